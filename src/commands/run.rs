//! `rerank run`: scores the rows of Parquet and Arrow files.

#[cfg(feature = "cluster")]
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
#[cfg(feature = "cluster")]
use datafusion_rerank::cluster::PlannedModel;
use datafusion_rerank::{ModelRegistry, Reranker};

use crate::args::RunArgs;
#[cfg(feature = "cluster")]
use crate::cluster::{Cluster, JobMessage, cancel_orphan};
use crate::files::{Columns, Format, InputFile, Inputs, OutputKind, Target, refuse_existing, refuse_input};
use crate::job::{Group, InputIdentity, Ledger, Manifest, Marker, ModelIdentity, Permissions, Unit, UnitEntry, unit};
use crate::model::{conversion, open};
use crate::report::Totals;
use crate::report::{Before, Report, html};
use crate::run::{Estimate, Journal, OnError, Plan, Query, Scoring, Task, pipeline, query_lines, survey};
use crate::storage::{Claim, Location, write_small};
use crate::terminal::human_count;
use crate::terminal::{Extent, Printer, Progress, Stopped, stop};

/// Runs the subcommand.
pub(crate) fn run(args: RunArgs, printer: Printer) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(execute(args, printer));
    // After a failure a thread may still be loading a model or waiting for a store; nobody needs the result.
    runtime.shutdown_background();
    outcome
}

async fn execute(args: RunArgs, printer: Printer) -> Result<()> {
    let mut stop = pin!(stop::requested());
    let inputs = Inputs::find(&args.input).await?;
    let target = Target::find(&args.output, &inputs, args.overwrite).await?;
    if args.restart && matches!(target, Target::File(..)) {
        bail!("--restart is for jobs, whose OUTPUT is a directory; to replace a file pass --overwrite");
    }
    let report_files = args.report.as_deref().map(|text| ReportFiles::find(text, &inputs, &target)).transpose()?;
    let reranker =
        open::open_model(&args.model, &args.options, &args.engine)?.with_window_rows(args.window.window_rows);
    let kind = match &target {
        Target::File(_, kind) => *kind,
        Target::Directory(_) => OutputKind::Parquet,
    };
    let format = Format { kind, compression: args.compression, row_group_rows: args.row_group_rows };
    let (scoring, groups) = plan_scoring(&args, &inputs.files, format, &reranker).await?;
    let (manifest, units) = plan_units(&args, &target, &inputs.files, &groups, &reranker)?;
    #[cfg(feature = "cluster")]
    let cluster = cluster(&args, &target).await?;
    let claim = claim(&target, &args, stop.as_mut()).await?;
    let permissions = Permissions { restart: args.restart, overwrite: args.overwrite };
    let Work { mut ledger, tasks, committed } = match target {
        Target::File(file, _) => Work::file(&file, claim.as_ref(), &manifest, units),
        Target::Directory(output) => Work::job(output, &inputs, &manifest, units, permissions, args.dry_run).await?,
    };
    if !committed.is_empty() {
        let all = human_count(manifest.units.len() as u64, "unit");
        printer.note(&format!("{} of {all} committed already", committed.len()));
    }
    let before = Before::new(committed.values());
    let plan = Plan { inputs: inputs.files, tasks, scoring, format, on_error: args.on_error };
    let plan = Arc::new(plan);
    if args.dry_run {
        let lines = tokio::select! {
            stopped = &mut stop => return Err(stopped.into()),
            lines = estimate(plan, manifest.units.len(), &reranker) => lines?,
        };
        for line in lines {
            printer.data(&line)?;
        }
        return Ok(());
    }
    #[cfg(feature = "cluster")]
    let done = match (cluster, ledger.as_mut()) {
        (Some(cluster), Some(ledger)) => {
            work_on_cluster(&args, cluster, &plan, &reranker, ledger, &manifest, printer, stop).await
        }
        (_, ledger) => work(plan, &reranker, ledger, &manifest, printer, stop).await,
    };
    #[cfg(not(feature = "cluster"))]
    let done = work(plan, &reranker, ledger.as_mut(), &manifest, printer, stop).await;
    let (totals, load) = done?;
    drop(claim);

    let report = Report { files: manifest.units.len() - committed.len(), totals, load, before };
    for line in report.lines() {
        printer.note(&line);
    }
    if let Some(files) = report_files {
        let json = format!("{:#}\n", report.to_json(&reranker));
        write_small(&files.json, json.into_bytes()).await?;
        if let Some(file) = files.html {
            write_small(&file, html::page(&report, &reranker).into_bytes()).await?;
        }
    }
    Ok(())
}

/// What a dry run says.
async fn estimate(plan: Arc<Plan>, all_units: usize, reranker: &Reranker) -> Result<Vec<String>> {
    match &plan.scoring {
        Scoring::Query(query) => query_lines(&plan, query, all_units).await,
        Scoring::Columns(columns) => {
            let columns = columns.clone();
            Ok(Estimate::new(plan, columns, all_units, reranker).await?.lines())
        }
    }
}

/// Where the report goes.
struct ReportFiles {
    json: Location,
    html: Option<Location>,
}

impl ReportFiles {
    /// `x.html` is a page, with the JSON beside it in `x.json`; any other name is JSON.
    ///
    /// # Errors
    /// If one of them would replace what the run reads or writes, or would be read by the next run.
    fn find(text: &str, inputs: &Inputs, target: &Target) -> Result<Self> {
        let html = text.strip_suffix(".html");
        let json = html.map_or_else(|| text.to_owned(), |stem| format!("{stem}.json"));
        let files = Self { json: Location::parse(&json)?, html: html.map(|_| Location::parse(text)).transpose()? };
        for file in std::iter::once(&files.json).chain(&files.html) {
            if let Some(what) = conflict(file, inputs, target) {
                bail!("--report '{text}' would write {file}, which {what}; name another file");
            }
        }
        Ok(files)
    }
}

/// What a file is to the run that must not be replaced.
fn conflict(file: &Location, inputs: &Inputs, target: &Target) -> Option<&'static str> {
    if inputs.are_at(file) {
        return Some("is INPUT");
    }
    if inputs.take(file) {
        return Some("would be read as INPUT too");
    }
    match target {
        Target::File(output, _) => output.is_same(file).then_some("is OUTPUT"),
        Target::Directory(output) => Ledger::owns(output, file).then_some("belongs to the job in OUTPUT"),
    }
}

/// What is left to do.
struct Work {
    /// The records of a job; none of a file that is written alone.
    ledger: Option<Ledger>,
    tasks: Vec<Task>,
    /// What earlier runs did.
    committed: HashMap<String, Marker>,
}

impl Work {
    /// All of it, into one file.
    fn file(file: &Location, claim: Option<&Claim>, manifest: &Manifest, units: Vec<Unit>) -> Self {
        let task = |(unit, entry): (Unit, &UnitEntry)| Task {
            unit,
            entry: entry.clone(),
            output: file.clone(),
            staging: claim.map(|claim| claim.staging().clone()),
        };
        let tasks = units.into_iter().zip(&manifest.units).map(task).collect();
        Self { ledger: None, tasks, committed: HashMap::new() }
    }

    /// What the job's records do not have. A dry run only looks at them.
    async fn job(
        output: Location,
        inputs: &Inputs,
        manifest: &Manifest,
        units: Vec<Unit>,
        permissions: Permissions,
        dry_run: bool,
    ) -> Result<Self> {
        let mut ledger = Ledger::new(output);
        // What would be read by the next run is refused before anything is created.
        for entry in &manifest.units {
            refuse_input(&ledger.data_file(manifest, entry), inputs)?;
        }
        let progress = if dry_run {
            ledger.look(manifest, permissions).await?
        } else {
            ledger.begin(manifest, permissions).await?
        };
        let committed = progress.committed;
        let task = |(unit, entry): (Unit, &UnitEntry)| Task {
            unit,
            entry: entry.clone(),
            output: ledger.data_file(manifest, entry),
            staging: ledger.staging_file(&entry.id),
        };
        let left = units.into_iter().zip(&manifest.units).filter(|(_, entry)| !committed.contains_key(&entry.id));
        let tasks = left.map(task).collect();
        Ok(Self { ledger: Some(ledger), tasks, committed })
    }
}

/// Surveys the inputs and settles how their rows are scored. The second is the groups of each file.
async fn plan_scoring(
    args: &RunArgs,
    files: &[InputFile],
    format: Format,
    reranker: &Reranker,
) -> Result<(Scoring, Vec<Vec<Group>>)> {
    let Some(sql) = &args.sql else {
        let columns = Columns {
            query: args.query.clone(),
            passage: args.passage.clone(),
            score: args.score.clone(),
            score_type: reranker.score_type(),
            errors: args.on_error == OnError::Null,
        };
        let groups = survey(files, Some(&columns), format).await?.groups;
        return Ok((Scoring::Columns(columns), groups));
    };
    let survey = survey(files, None, format).await?;
    let (models, settings) = open::query_settings(args)?;
    let query = Query::plan(sql, &survey.schema, &models, settings).await?;
    format.check(&query.schema()).context("cannot write the columns of --sql")?;
    Ok((Scoring::Query(Arc::new(query)), survey.groups))
}

/// Cuts the inputs into units: what the job is.
fn plan_units(
    args: &RunArgs,
    target: &Target,
    files: &[InputFile],
    groups: &[Vec<Group>],
    reranker: &Reranker,
) -> Result<(Manifest, Vec<Unit>)> {
    // A file that is named is written whole.
    let unit_rows = match target {
        Target::File(..) => u64::MAX,
        Target::Directory(_) => args.unit_rows as u64,
    };
    let units: Vec<Unit> =
        groups.iter().enumerate().flat_map(|(file, groups)| unit::cut(file, groups, unit_rows)).collect();
    // Planning a query has opened all that its calls name.
    let mut others = ModelRegistry::open_models().iter().map(identity).collect::<Result<Vec<_>>>()?;
    let mut models = vec![identity(reranker)?];
    others.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
    others.dedup_by(|one, other| one.fingerprint == other.fingerprint);
    others.retain(|other| other.fingerprint != models[0].fingerprint);
    models.append(&mut others);
    let identities = files
        .iter()
        .map(|file| InputIdentity {
            name: file.name.clone(),
            size_bytes: file.size_bytes,
            version: file.version.clone(),
        })
        .collect();
    let manifest = Manifest::new(&args.input, models, open::settings(args, reranker), identities, &units)?;
    Ok((manifest, units))
}

fn identity(reranker: &Reranker) -> Result<ModelIdentity> {
    Ok(ModelIdentity {
        location: reranker.location().display().to_string(),
        family: reranker.family().name().to_owned(),
        fingerprint: reranker.model().fingerprint()?.to_owned(),
        precision: reranker.precision().to_string(),
    })
}

/// Scores what is left to score.
async fn work(
    plan: Arc<Plan>,
    reranker: &Reranker,
    ledger: Option<&mut Ledger>,
    manifest: &Manifest,
    printer: Printer,
    mut stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<(Totals, Duration)> {
    let extent = Extent::of(plan.tasks.iter().map(|task| &task.unit));
    tracing::info!(units = plan.tasks.len(), rows = extent.rows, model = %reranker.location().display(), "begin");
    let load = if plan.tasks.is_empty() {
        Duration::ZERO
    } else {
        load(reranker.clone(), extent.rows, printer, stop.as_mut()).await?
    };
    let mut progress = Progress::start(printer, extent);
    let Some(ledger) = ledger else {
        pipeline::run(plan, reranker.clone(), None, &mut progress, stop).await?;
        return Ok((progress.totals(), load));
    };
    let journal = Journal { ledger: &mut *ledger, manifest, worker: None };
    let outcome = pipeline::run(plan, reranker.clone(), Some(journal), &mut progress, stop).await;
    outcome.map_err(|error| with_advice(error, ledger, manifest))?;
    Ok((progress.totals(), load))
}

/// The error of a job that was stopped says how to go on.
fn with_advice(error: anyhow::Error, ledger: &Ledger, manifest: &Manifest) -> anyhow::Error {
    match error.downcast::<Stopped>() {
        Ok(stopped) => {
            let (done, all) = (ledger.commits(), manifest.units.len());
            let advice = format!("{done} of {all} units are committed; run the same command again to go on");
            stopped.with_advice(advice).into()
        }
        Err(error) => error,
    }
}

/// The cluster that is to do the job, if one is. What a client that was killed had asked it for is cancelled.
#[cfg(feature = "cluster")]
async fn cluster(args: &RunArgs, target: &Target) -> Result<Option<Cluster>> {
    let Some(address) = &args.cluster else { return Ok(None) };
    let Target::Directory(output) = target else {
        bail!("--cluster is for jobs, whose OUTPUT is a directory: its units are what executors share");
    };
    let mut cluster = Cluster::connect(address).await?;
    cancel_orphan(&mut cluster, &Ledger::new(output.clone())).await?;
    Ok(Some(cluster))
}

/// Has a cluster score what is left to score.
#[cfg(feature = "cluster")]
#[expect(clippy::too_many_arguments, reason = "as those of a job without a cluster, and the cluster")]
async fn work_on_cluster(
    args: &RunArgs,
    mut cluster: Cluster,
    plan: &Plan,
    reranker: &Reranker,
    ledger: &mut Ledger,
    manifest: &Manifest,
    printer: Printer,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<(Totals, Duration)> {
    let model = PlannedModel::of(open::model_name(&args.model), reranker)?;
    let session = if args.sql.is_some() { open::session_settings(args)? } else { BTreeMap::new() };
    let message = JobMessage::new(ledger.output(), model.to_json(), manifest, session);
    let extent = Extent::of(plan.tasks.iter().map(|task| &task.unit));
    let mut progress = Progress::start(printer, extent);
    match cluster.run(&message, plan, ledger, manifest, &mut progress, stop).await {
        Ok(load) => Ok((progress.totals(), load)),
        Err(error) if error.is::<Stopped>() => Err(with_advice(error, ledger, manifest)),
        Err(error) => {
            let (done, all) = (ledger.commits(), manifest.units.len());
            Err(error.context(format!("{done} of {all} units are committed")))
        }
    }
}

/// The right to write OUTPUT, if that is a local file. What the run leaves beside it goes when it is dropped.
async fn claim(
    target: &Target,
    args: &RunArgs,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<Option<Claim>> {
    let Target::File(file, _) = target else { return Ok(None) };
    if args.dry_run {
        return Ok(None);
    }
    // Signals are waited for from here on. Before, they ended the process, and there was nothing to remove.
    if let Poll::Ready(stopped) = futures::poll!(stop) {
        return Err(stopped.into());
    }
    let claim = Claim::new(file)?;
    // Another process may have been writing it when it was looked for.
    refuse_existing(file, args.overwrite).await?;
    Ok(claim)
}

/// Loads the weights, converted first where that is needed, finds out how batches are to be cut if `rows` are many, and
/// tells how long it took.
async fn load(
    reranker: Reranker,
    rows: u64,
    printer: Printer,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<Duration> {
    let start = Instant::now();
    let loading = tokio::task::spawn_blocking(move || prepare(&reranker, rows, printer));
    tokio::select! {
        stopped = stop => return Err(stopped.into()),
        loaded = loading => loaded.context("the model could not be loaded")??,
    }
    Ok(start.elapsed())
}

fn prepare(reranker: &Reranker, rows: u64, printer: Printer) -> datafusion_rerank::Result<()> {
    conversion::prepare(reranker, printer)?;
    reranker.load()?;
    if let Some(tokens) = reranker.model().tune_batches(rows)? {
        printer.note(&format!("batches of {tokens} tokens are the fastest here; that is remembered"));
    }
    Ok(())
}
