//! Reading: units into windows, on a thread that may block.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::input::InputFile;
use crate::layout::{Columns, Layout, difference};
use crate::output::Format;
use crate::pipeline::{Failed, Plan};
use crate::source::Source;
use crate::units::{Group, Unit};
use crate::window::{Gatherer, Window};

/// Files whose footers are read at once before the run.
const SURVEYS_AT_ONCE: usize = 16;

/// Windows read ahead of the scoring.
const WINDOWS_AHEAD: usize = 1;

/// What there is to read.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The columns of the first file, which the others have too.
    pub(crate) schema: SchemaRef,
    /// The groups of each file.
    pub(crate) groups: Vec<Vec<Group>>,
}

/// Checks that all files can be read, are alike and, if columns are asked for, have them and can be written with what is
/// added: what can be known to be wrong is found before anything is scored.
pub(crate) async fn survey(files: &[InputFile], columns: Option<&Columns>, format: Format) -> Result<Survey> {
    let surveys = files.iter().cloned().map(|file| {
        let columns = columns.cloned();
        async move {
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                let source = Source::open(&file, &runtime)?;
                if let Some(columns) = columns {
                    let layout = layout(&source, &file, &columns)?;
                    format
                        .check(&layout.scored)
                        .with_context(|| format!("cannot write the columns of {}", file.location))?;
                }
                Ok::<_, anyhow::Error>((Arc::clone(source.schema()), source.groups()))
            })
            .await
            .context("a file could not be examined")?
        }
    });
    let mut surveys = stream::iter(surveys).buffered(SURVEYS_AT_ONCE);
    let mut first: Option<SchemaRef> = None;
    let mut groups = Vec::with_capacity(files.len());
    while let Some((schema, found)) = surveys.try_next().await? {
        let file = &files[groups.len()].location;
        let first = first.get_or_insert_with(|| Arc::clone(&schema));
        if let Some(difference) = difference(&schema, first) {
            bail!("the columns of {file} are not those of {}: {difference}", files[0].location);
        }
        groups.push(found);
    }
    Ok(Survey { schema: first.context("there are no input files")?, groups })
}

/// Reads the units of the plan one after the other, into windows. Reading stops when the receiver is dropped.
pub(crate) fn read(plan: Arc<Plan>, columns: Columns, window_rows: usize) -> mpsc::Receiver<Result<Window, Failed>> {
    let (sender, receiver) = mpsc::channel(WINDOWS_AHEAD);
    let runtime = Handle::current();
    let reading = tokio::task::spawn_blocking({
        let sender = sender.clone();
        move || {
            if let Err(error) = read_all(&plan, &columns, window_rows, &runtime, &sender) {
                // Nobody is left to tell if the run ended already.
                drop(sender.blocking_send(Err(error)));
            }
        }
    });
    tokio::spawn(async move {
        if let Err(error) = reading.await {
            let error = anyhow::Error::new(error).context("reading stopped");
            drop(sender.send(Err(Failed { task: None, error })).await);
        }
    });
    receiver
}

/// Reads some columns of a unit, or all, in batches of at most `batch_rows` rows. `each` takes a batch and says whether
/// it wants more; gives whether it did to the end. Blocks.
pub(crate) fn read_unit(
    input: &InputFile,
    unit: &Unit,
    columns: Option<&[usize]>,
    batch_rows: usize,
    runtime: &Handle,
    each: impl FnMut(RecordBatch) -> bool,
) -> Result<bool> {
    let source = Source::open(input, runtime)?;
    read_groups(&source, input, unit, columns, batch_rows, runtime, each)
}

/// The file that is being read.
struct Current {
    input: usize,
    source: Source,
    layout: Arc<Layout>,
}

fn read_all(
    plan: &Plan,
    columns: &Columns,
    window_rows: usize,
    runtime: &Handle,
    sender: &mpsc::Sender<Result<Window, Failed>>,
) -> Result<(), Failed> {
    let mut current: Option<Current> = None;
    for task in 0..plan.tasks.len() {
        match read_windows(plan, columns, task, &mut current, window_rows, runtime, sender) {
            Ok(true) => {}
            // Nobody wants more.
            Ok(false) => return Ok(()),
            Err(error) => return Err(Failed { task: Some(task), error }),
        }
    }
    Ok(())
}

/// Reads a unit; `false` if nobody wants more.
fn read_windows(
    plan: &Plan,
    columns: &Columns,
    task: usize,
    current: &mut Option<Current>,
    window_rows: usize,
    runtime: &Handle,
    sender: &mpsc::Sender<Result<Window, Failed>>,
) -> Result<bool> {
    let unit = &plan.tasks[task].unit;
    let input = &plan.inputs[unit.input];
    let Current { source, layout, .. } = match current {
        Some(current) if current.input == unit.input => current,
        _ => {
            let source = Source::open(input, runtime)?;
            let layout = Arc::new(layout(&source, input, columns)?);
            current.insert(Current { input: unit.input, source, layout })
        }
    };
    let mut gatherer = Gatherer::new(task, Arc::clone(layout), window_rows);
    let wanted = |window| sender.blocking_send(Ok(window)).is_ok();
    let all = read_groups(source, input, unit, None, window_rows, runtime, |batch| {
        gatherer.push(batch).into_iter().all(wanted) && !sender.is_closed()
    })?;
    Ok(all && wanted(gatherer.finish()))
}

fn read_groups(
    source: &Source,
    input: &InputFile,
    unit: &Unit,
    columns: Option<&[usize]>,
    batch_rows: usize,
    runtime: &Handle,
    mut each: impl FnMut(RecordBatch) -> bool,
) -> Result<bool> {
    let mut rows = 0;
    for batch in source.read(input, unit.groups.clone(), columns, batch_rows, runtime)? {
        let batch =
            batch.with_context(|| format!("cannot read {} after row {}", input.location, unit.first_row + rows))?;
        rows += batch.num_rows() as u64;
        if !each(batch) {
            return Ok(false);
        }
    }
    if rows != unit.rows {
        bail!(
            "cannot read {}: it gave {rows} rows from row {} on, expected {}; was it changed during the run?",
            input.location,
            unit.first_row,
            unit.rows
        );
    }
    Ok(true)
}

fn layout(source: &Source, file: &InputFile, columns: &Columns) -> Result<Layout> {
    Layout::new(source.schema(), columns).with_context(|| format!("cannot score {}", file.location))
}
