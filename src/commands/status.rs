//! `rerank status`: shows the progress of a job.

use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::args::StatusArgs;
use crate::job::{Ledger, Status};
use crate::storage::Location;
use crate::terminal::Printer;

/// Runs the subcommand.
pub(crate) fn run(args: &StatusArgs, printer: Printer) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let status = runtime.block_on(async {
        let output = Location::parse(&args.output)?;
        let ledger = Ledger::new(output.clone());
        let Some(manifest) = ledger.manifest().await? else {
            bail!("OUTPUT {output} holds no job: there is no _rerank/job.json; name the OUTPUT directory of a run");
        };
        Ok(Status::new(&manifest, &ledger.progress(&manifest).await?))
    })?;
    if args.json {
        printer.data(&format!("{:#}", status.to_json()))?;
    } else {
        for line in status.lines(SystemTime::now()) {
            printer.data(&line)?;
        }
    }
    Ok(())
}
