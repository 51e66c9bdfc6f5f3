//! `rerank sql`: DataFusion's shell with the reranker functions.

use std::io::{ErrorKind, IsTerminal, read_to_string, stdin};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::config::ConfigOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_cli::catalog::DynamicObjectStoreCatalog;
use datafusion_cli::exec;
use datafusion_cli::functions::ParquetMetadataFunc;
use datafusion_cli::object_storage::instrumented::InstrumentedObjectStoreRegistry;
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::{MaxRows, PrintOptions};
#[cfg(feature = "cluster")]
use datafusion_rerank::cluster::RerankClusterExt;
use datafusion_rerank::{RerankConfig, RerankFunctions, WithRerank};

use crate::args::SqlArgs;
use crate::job::root_error;
use crate::model::session::{JOIN_DYNAMIC_FILTERS, shell_settings};
use crate::terminal::{Printer, printer};

/// The file name that means standard input.
const STDIN: &str = "-";

/// Runs the subcommand.
pub(crate) fn run(args: SqlArgs, printer: Printer) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(execute(args, printer));
    // A model may still be loading; its result is no longer needed.
    runtime.shutdown_background();
    outcome
}

async fn execute(args: SqlArgs, printer: Printer) -> Result<()> {
    let scripts = scripts(&args)?;
    let (models, settings) = shell_settings(&args)?;
    let model = settings.model.clone();
    let stores = Arc::new(InstrumentedObjectStoreRegistry::new());
    let functions = RerankFunctions::new(models);
    let ctx = session(&functions, settings, Arc::clone(&stores))?;
    #[cfg(feature = "cluster")]
    let ctx = match &args.cluster {
        Some(address) => ctx.on_cluster(address, &functions)?,
        None => ctx,
    };
    let ctx = with_tables(ctx).await?;
    let mut print = PrintOptions {
        format: args.format,
        // Programs that read the output get rows only.
        quiet: printer.is_quiet() || !std::io::stdout().is_terminal(),
        maxrows: most_rows(args.format, args.max_rows),
        color: std::io::stdout().is_terminal() && printer::colours(),
        instrumented_registry: stores,
    };
    let Some(scripts) = scripts else {
        printer.note(&format!("rerank(query, passage) uses the model {model}. \\? shows commands, \\q leaves."));
        return exec::exec_from_repl(&ctx, &mut print).await.context("the shell ended");
    };
    exec::exec_from_commands(&ctx, scripts, &print).await.map_err(|error| match error.find_root() {
        // A reader such as `head` has stopped: see `printer::is_broken_pipe`.
        root if is_closed_output(root) => std::io::Error::from(ErrorKind::BrokenPipe).into(),
        _ => root_error(&error),
    })
}

/// Whether rows could not be printed because their reader is gone. Each format reports it in another way.
fn is_closed_output(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::IoError(error) => error.kind() == ErrorKind::BrokenPipe,
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::IoError(_, error) => error.kind() == ErrorKind::BrokenPipe,
            // The CSV writer keeps only the text.
            ArrowError::CsvError(text) => text.starts_with("Broken pipe"),
            _ => false,
        },
        _ => false,
    }
}

/// The limit applies to tables only, which people read. The shell would apply it to every format, and would print a
/// part of the result as if it were complete.
fn most_rows(format: PrintFormat, table: MaxRows) -> MaxRows {
    match format {
        // `automatic` prints a table, whether or not to a terminal.
        PrintFormat::Table | PrintFormat::Automatic => table,
        PrintFormat::Csv | PrintFormat::Tsv | PrintFormat::Json | PrintFormat::NdJson => MaxRows::Unlimited,
    }
}

/// The scripts to run, in order; `None` for an interactive session.
fn scripts(args: &SqlArgs) -> Result<Option<Vec<String>>> {
    let files = args.file.iter().map(|file| read(file));
    let scripts = files.chain(args.command.iter().cloned().map(Ok)).collect::<Result<Vec<String>>>()?;
    if !scripts.is_empty() {
        return Ok(Some(scripts));
    }
    if stdin().is_terminal() { Ok(None) } else { Ok(Some(vec![read(Path::new(STDIN))?])) }
}

fn read(file: &Path) -> Result<String> {
    if file == Path::new(STDIN) {
        return read_to_string(stdin()).context("standard input cannot be read");
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// A session like that of DataFusion's own shell.
fn session(
    functions: &RerankFunctions,
    settings: RerankConfig,
    stores: Arc<InstrumentedObjectStoreRegistry>,
) -> Result<SessionContext> {
    let mut options = ConfigOptions::from_env().context("a DATAFUSION_ variable is wrong")?;
    if std::env::var_os("DATAFUSION_FORMAT_NULL").is_none() {
        "NULL".clone_into(&mut options.format.null);
    }
    // In nanoseconds, as is the default, dates after 2262 would be others.
    options.execution.parquet.coerce_int96.get_or_insert_with(|| "us".to_owned());
    if std::env::var_os("DATAFUSION_OPTIMIZER_ENABLE_JOIN_DYNAMIC_FILTER_PUSHDOWN").is_none() {
        options.optimizer.enable_join_dynamic_filter_pushdown = JOIN_DYNAMIC_FILTERS;
    }
    let config = SessionConfig::from(options).with_information_schema(true).with_option_extension(settings);
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(stores).build_arc()?;
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_rerank(functions)
        .build();
    Ok(SessionContext::new_with_state(state))
}

/// Makes files and URLs available as tables, along with the functions that describe a Parquet file.
async fn with_tables(ctx: SessionContext) -> Result<SessionContext> {
    let ctx = ctx.enable_url_table();
    ctx.refresh_catalogs().await?;
    let catalogs = Arc::clone(ctx.state().catalog_list());
    ctx.register_catalog_list(Arc::new(DynamicObjectStoreCatalog::new(catalogs, ctx.state_weak_ref())));
    ctx.register_udtf("parquet_metadata", Arc::new(ParquetMetadataFunc {}));
    Ok(ctx)
}
