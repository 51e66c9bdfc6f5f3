//! One file per subcommand.

#[cfg(feature = "cluster")]
mod cluster_executor;
#[cfg(feature = "cluster")]
mod cluster_scheduler;
mod completions;
mod config;
mod manual;
mod model_export;
mod model_inspect;
mod model_list;
mod model_prune;
#[cfg(feature = "hub")]
mod model_pull;
mod run;
mod score;
#[cfg(feature = "shell")]
mod sql;
mod status;

use anyhow::Result;

#[cfg(feature = "cluster")]
use crate::args::ClusterCommand;
use crate::args::{Command, ModelCommand};
use crate::settings::SettingsFile;
use crate::terminal::Printer;

/// Runs the command. `cli` is the definition of the command line, with the `settings` of a file as defaults.
pub(crate) fn run(
    command: Command,
    mut cli: clap::Command,
    settings: Option<&SettingsFile>,
    printer: Printer,
) -> Result<()> {
    match command {
        Command::Run(args) => run::run(*args, printer),
        Command::Status(args) => status::run(&args, printer),
        Command::Score(args) => score::run(&args, printer),
        #[cfg(feature = "shell")]
        Command::Sql(args) => sql::run(*args, printer),
        #[cfg(feature = "cluster")]
        Command::Cluster(ClusterCommand::Scheduler(args)) => cluster_scheduler::run(&args, printer),
        #[cfg(feature = "cluster")]
        Command::Cluster(ClusterCommand::Executor(args)) => cluster_executor::run(*args, printer),
        Command::Model(ModelCommand::Export(args)) => model_export::run(&args, printer),
        Command::Model(ModelCommand::Inspect(args)) => model_inspect::run(&args, printer),
        Command::Config => config::run(&cli, settings, printer),
        Command::Completions(args) => completions::run(&args, &mut cli),
        Command::Manual(args) => manual::run(&args, cli),
        #[cfg(feature = "hub")]
        Command::Model(ModelCommand::Pull(args)) => model_pull::run(&args, printer),
        Command::Model(ModelCommand::List(args)) => model_list::run(&args, printer),
        Command::Model(ModelCommand::Prune(args)) => model_prune::run(&args, printer),
    }
}
