//! The command line, parsed. Nothing is looked up or opened here.

#[cfg(feature = "cluster")]
mod cluster;
mod manual;
mod model;
mod options;
mod run;
mod score;
mod scoring;
#[cfg(feature = "shell")]
mod sql;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "cluster")]
pub(crate) use cluster::{ClusterCommand, ExecutorArgs, SchedulerArgs};
#[cfg(feature = "hub")]
pub(crate) use model::PullArgs;
pub(crate) use model::{ExportArgs, InspectArgs, ListArgs, ModelCommand, PruneArgs};
pub(crate) use options::{GraphOptionArgs, OptionArgs, OptionFlags};
pub(crate) use run::{RunArgs, StatusArgs};
pub(crate) use score::ScoreArgs;
pub(crate) use scoring::{EngineArgs, ModelArgs};
#[cfg(feature = "shell")]
pub(crate) use sql::SqlArgs;

#[cfg(feature = "shell")]
use self::manual::SQL_EXAMPLES;
use self::manual::{COMPLETIONS_EXAMPLES, RUN_MANUAL, SCORE_EXAMPLES};

/// Score query-passage pairs in Parquet and Arrow files with BGE rerankers.
#[derive(Debug, Parser)]
#[command(name = "rerank", version, about, max_term_width = 100, propagate_version = true)]
pub(crate) struct Cli {
    /// Print nothing but data and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Log to standard error; twice for more. `RUST_LOG` takes precedence.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Read settings from this file: TOML whose keys are the long names of options (`model = "m3"`), for all commands
    /// or in the table of one (`[run]`) [default: `rerank.toml` in this folder, or else `rerank/rerank.toml` in the
    /// user's configuration folder]. The command line and environment variables take precedence.
    #[arg(long, global = true, value_name = "FILE", env = "RERANK_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Score the rows of Parquet and Arrow files: keeps every column and adds a score column.
    ///
    /// With a directory as OUTPUT this is a job, which can be killed at any moment: the same command resumes it.
    #[command(after_long_help = RUN_MANUAL)]
    Run(Box<RunArgs>),
    /// Show the progress of a job, without touching it.
    Status(StatusArgs),
    /// Score passages from the command line and print them, best first; or score a stream of JSON lines.
    #[command(after_long_help = SCORE_EXAMPLES)]
    Score(Box<ScoreArgs>),
    /// Run SQL, in a shell or from files.
    #[cfg(feature = "shell")]
    #[command(after_long_help = SQL_EXAMPLES)]
    Sql(Box<SqlArgs>),
    /// Run the processes of a cluster, for jobs and queries with `--cluster`.
    #[cfg(feature = "cluster")]
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Download, inspect and convert checkpoints.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Print the value of every setting and where it comes from.
    Config,
    /// Print a completion script for a shell.
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Write a manual page for each command.
    Manual(ManualArgs),
}

/// `rerank completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `rerank manual`.
#[derive(Debug, Args)]
pub(crate) struct ManualArgs {
    /// Folder for `rerank.1`, `rerank-run.1` and so on; created if it does not exist.
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
