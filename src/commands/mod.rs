//! One file per subcommand.

mod model_export;
mod model_inspect;
mod model_list;
mod model_prune;
#[cfg(feature = "hub")]
mod model_pull;
mod run;
mod score;
mod status;

use anyhow::Result;

use crate::args::{Command, ModelCommand};
use crate::printer::Printer;

/// Does what the command line says.
pub(crate) fn run(command: Command, printer: Printer) -> Result<()> {
    match command {
        Command::Run(args) => run::run(*args, printer),
        Command::Status(args) => status::run(&args, printer),
        Command::Score(args) => score::run(&args, printer),
        Command::Model(ModelCommand::Export(args)) => model_export::run(&args, printer),
        Command::Model(ModelCommand::Inspect(args)) => model_inspect::run(&args, printer),
        #[cfg(feature = "hub")]
        Command::Model(ModelCommand::Pull(args)) => model_pull::run(&args, printer),
        Command::Model(ModelCommand::List(args)) => model_list::run(&args, printer),
        Command::Model(ModelCommand::Prune(args)) => model_prune::run(&args, printer),
    }
}
