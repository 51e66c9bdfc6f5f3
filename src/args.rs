//! The command line exactly as it was typed. Nothing is looked up or opened here; [`crate::job`] does that.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
#[cfg(feature = "cluster")]
use datafusion_rerank::ClusterAddress;
use datafusion_rerank::{DEFAULT_WINDOW_ROWS, Device, Devices};

#[cfg(feature = "hub")]
use crate::hub::HubModel;

/// Score query-passage pairs in Parquet and Arrow files with BGE rerankers.
#[derive(Debug, Parser)]
#[command(name = "rerank", version, about, max_term_width = 100, propagate_version = true)]
pub(crate) struct Cli {
    /// Print nothing but data and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Log to standard error what is done; twice for more. `RUST_LOG` overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Take settings from this file: TOML with the names of options (`model = "m3"`), in tables of their commands
    /// (`[run]`) if they are not meant for all [default: `rerank.toml` in this folder, or else `rerank/rerank.toml` in
    /// the user's configuration folder]. The command line and variables of the environment come first.
    #[arg(long, global = true, value_name = "FILE", env = "RERANK_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `rerank run --help` says after the options.
const RUN_MANUAL: &str = "\
Files
  An OUTPUT that ends in .parquet, .arrow, .feather (Arrow IPC files) or .arrows (an Arrow IPC
  stream) is one file, for an INPUT that is one file. It appears when it is complete.

  Any other OUTPUT is the directory of a job. INPUT is cut into units of about --unit-rows rows,
  between row groups and never across files; each unit becomes one Parquet file:

    OUTPUT/<path of the input below INPUT, without extension>-<number of the unit>-<id>.parquet
    OUTPUT/_rerank/job.json           what the job is; written before any work
    OUTPUT/_rerank/units/<id>.json    the unit is done; written after its file appeared
    OUTPUT/_rerank/failed/<id>.json   why a run ended at this unit
    OUTPUT/_rerank/tmp/               files being written, on local disks

  The rows of a unit keep their order, and together the units have the rows of INPUT, each once.
  Names that begin with _ or . are skipped by this program and by others that read directories
  of Parquet files. A unit is done when its record is there and its file has the recorded size.

Going on
  The same command again skips the units that are done. It is refused if what the output depends
  on has changed since: the inputs (which they are, their sizes and entity tags or times of
  change), the model (its configuration, its tokenizer and samples of its weights), its options,
  --query, --passage, --score, --on-error, --unit-rows, --compression or --row-group-rows;
  --restart starts over. --device, --threads, --batch-tokens and --window-rows may change: they
  touch scores by rounding only. While they do not change, a job that was killed and went on has
  the output of one that was not, bit for bit.

  Unfinished files that a killed run left on a local disk are deleted by the next. In a bucket
  they are the parts of uploads, which nobody sees; let a lifecycle rule abort incomplete
  uploads. Several processes may work on one job at once: they do each other's work again, and
  write the same files.

  rerank status OUTPUT tells how far a job is.

Rows that fail
  A row fails whose text cannot be tokenized, whose score is not a number, or which does not fit
  into the device's memory alone (a batch that does not fit is halved, and batches grow again
  later). --on-error says what that does; the reasons are counted in the records and in the
  report.

Exit status
  0 done; 1 failed; 2 wrong usage; 130 interrupted, 143 terminated. What was committed is kept
  in every case.

Environment
  RERANK_MODEL      the model, if --model is not given
  RERANK_CONFIG     a file of settings in place of ./rerank.toml; see rerank config --help
  AWS_*             for s3://: credentials, AWS_REGION, AWS_ENDPOINT (AWS_ALLOW_HTTP=true for http)
  GOOGLE_*          for gs://: GOOGLE_SERVICE_ACCOUNT and the like
  AZURE_*           for az://: AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and the like
  ORT_DYLIB_PATH    the ONNX Runtime library
  RUST_LOG          what to log, instead of --verbose

Examples
  rerank run pairs.parquet scored.parquet --model m3
  rerank run 's3://bucket/pairs/*.parquet' s3://bucket/scored/ --model m3 --device cuda:0 --on-error null
  rerank run pairs/ scored/ --model m3 --dry-run
  rerank status scored/";

/// What `rerank score --help` says after the options.
const SCORE_EXAMPLES: &str = "\
Examples
  rerank score 'what is a panda?' 'hi' 'The giant panda is a bear endemic to China.'
  rerank score --model m3 --json 'what is a panda?' 'hi'
  rerank score --model m3 --jsonl < pairs.jsonl > scored.jsonl";

/// What `rerank sql --help` says after the options.
#[cfg(feature = "shell")]
const SQL_EXAMPLES: &str = "\
Examples
  rerank sql
  rerank sql -c \"SELECT query, passage, rerank(query, passage) AS s FROM 'pairs.parquet' ORDER BY s DESC LIMIT 5\"
  rerank sql -f report.sql --format csv > report.csv
  rerank sql --model m3 --model mine=/models/mine -c \"SELECT rerank('a', 'b'), rerank('a', 'b', 'mine')\"";

/// What `rerank cluster scheduler --help` says after the options.
#[cfg(feature = "cluster")]
const SCHEDULER_MANUAL: &str = "\
Examples
  rerank cluster scheduler
  rerank cluster scheduler --bind 0.0.0.0 --host scheduler.internal
  rerank run s3://bucket/pairs/ s3://bucket/scored/ --model m3 --cluster df://scheduler.internal:50050";

/// What `rerank cluster executor --help` says after the options.
#[cfg(feature = "cluster")]
const EXECUTOR_MANUAL: &str = "\
Environment
  AWS_*, GOOGLE_*, AZURE_*   object stores, as for rerank run
  ORT_DYLIB_PATH             the ONNX Runtime library

Signals
  On SIGTERM or Ctrl-C no more tasks are taken, and the process ends when its last task is done. A
  process that is killed loses what was not committed; others do it again.

Examples
  rerank cluster executor --scheduler df://scheduler.internal:50050 --bind 0.0.0.0 --host gpu7.internal \\
      --device cuda:0 --model gemma=/models/bge-reranker-v2-gemma
  rerank cluster executor --port 50053 --model m3";

/// What `rerank completions --help` says after the options.
const COMPLETIONS_EXAMPLES: &str = "\
Examples
  rerank completions bash > /etc/bash_completion.d/rerank
  rerank completions zsh > \"${fpath[1]}/_rerank\"
  rerank completions fish > ~/.config/fish/completions/rerank.fish";

/// What `rerank model pull --help` says after the options.
#[cfg(feature = "hub")]
const PULL_MANUAL: &str = "\
Environment
  HF_TOKEN          a token, for models that are private or whose licence must be accepted
                    (also HF_TOKEN_PATH, or the token that `hf auth login` left)
  HF_HOME           where the cache is, with the token [default: ~/.cache/huggingface]
  HF_HUB_CACHE      where the cache is, alone [default: hub in HF_HOME]
  HF_ENDPOINT       another hub, or a mirror [default: https://huggingface.co]
  HF_HUB_OFFLINE    1 forbids to ask the hub: what the cache has is found, the rest is an error

Examples
  rerank model pull m3
  rerank model pull BAAI/bge-reranker-base
  rerank model pull m3@953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e
  rerank score --model \"$(rerank model pull m3)\" \"what is a panda?\" \"hi\" \"A bear.\"";

/// What `rerank model list --help` says after the options.
const LIST_MANUAL: &str = "\
Columns
  name        what --model and SQL take; of a model without a short name its id does it
  id          its repository on the hub, or the directory of a checkpoint that is elsewhere
  revision    the commit, and the branches and tags that were this commit when they were fetched
  family      as config.json says: other decoders of an architecture are listed with its rerankers
  size        of all files of the revision, some of which other revisions may share
  converted   the weights in other precisions, made when they were first asked for

Examples
  rerank model list
  rerank model list --json | jq -r '.models[].folder'";

/// What `rerank model prune --help` says after the options.
const PRUNE_MANUAL: &str = "\
Examples
  rerank model prune --dry-run
  rerank model prune m3
  rerank model prune";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Score the rows of Parquet and Arrow files: every column passes through and a score column is added.
    ///
    /// With a directory as OUTPUT this is a job that can be killed at any moment: the same command again goes on where
    /// it was.
    #[command(after_long_help = RUN_MANUAL)]
    Run(Box<RunArgs>),
    /// Say how far a job has come, without touching it.
    Status(StatusArgs),
    /// Score passages given on the command line and print them, best first; or score a stream of JSON lines.
    #[command(after_long_help = SCORE_EXAMPLES)]
    Score(Box<ScoreArgs>),
    /// Ask questions in SQL, in a shell or from files.
    #[cfg(feature = "shell")]
    #[command(after_long_help = SQL_EXAMPLES)]
    Sql(Box<SqlArgs>),
    /// Run the processes of a cluster, which scores jobs and queries of `--cluster`.
    #[cfg(feature = "cluster")]
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Fetch checkpoints, look at them and convert them.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Print what every setting is when the command line does not say, and where that comes from.
    Config,
    /// Print what makes a shell complete commands and options.
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Write a manual page for each command.
    Manual(ManualArgs),
}

/// A process of a cluster.
#[cfg(feature = "cluster")]
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Run the scheduler, which cuts plans into tasks, hands them to executors and notices when one is lost. It needs
    /// neither models nor data.
    #[command(after_long_help = SCHEDULER_MANUAL)]
    Scheduler(SchedulerArgs),
    /// Run an executor, which opens models, reads, scores and writes.
    #[command(after_long_help = EXECUTOR_MANUAL)]
    Executor(Box<ExecutorArgs>),
}

/// What to do with a checkpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Write a checkpoint as a standard ONNX directory that other tools can run.
    Export(ExportArgs),
    /// Say what a checkpoint is, without loading its weights.
    Inspect(InspectArgs),
    /// Fetch a model from the Hugging Face Hub into the cache that Python shares, and print the folder it is in.
    ///
    /// Only the files that are needed are fetched: configuration, tokenizer and safetensors weights. What is there is
    /// not fetched again, and a download that was cut goes on where it was. Every file is checked against the hub's
    /// own id of its content.
    #[cfg(feature = "hub")]
    #[command(after_long_help = PULL_MANUAL)]
    Pull(PullArgs),
    /// List the rerankers in the Hugging Face cache, and their weights in other precisions.
    #[command(after_long_help = LIST_MANUAL)]
    List(ListArgs),
    /// Remove weights in other precisions, which are made again when they are needed.
    ///
    /// The Hugging Face cache is never touched; `hf cache` is for that. Models that are loaded keep their weights, and
    /// weights that are about to be loaded stay.
    #[command(after_long_help = PRUNE_MANUAL)]
    Prune(PruneArgs),
}

/// `rerank run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A Parquet or Arrow IPC file (`.parquet`, `.arrow`, `.feather`), a directory of them (searched in depth; names
    /// that begin with `.` or `_` are skipped) or a glob (`*`, `?`, `[..]`, `**`); a local path or a URL (`s3://`,
    /// `gs://`, `az://`). All files must have the same columns.
    pub(crate) input: String,

    /// A file to write (`.parquet`, `.arrow`, `.feather`, `.arrows`), or the directory of a job that can be resumed.
    /// A file appears only when it is complete.
    pub(crate) output: String,

    /// Column of the queries.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "query")]
    pub(crate) query: String,

    /// Column of the passages.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "passage")]
    pub(crate) passage: String,

    /// Column that is added: Float32, or a list of Float32 if several cutoff layers are asked for.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "score")]
    pub(crate) score: String,

    /// A query that gives the columns and rows of the output, in place of `SELECT *, rerank(query, passage) AS score
    /// FROM input`. The table `input` is INPUT; other files are named by their paths (`JOIN 'languages.parquet' AS l`).
    /// `--model`, its options and `--window-rows` are what calls of `rerank` use that say nothing else. A query that
    /// needs more than one row of the input at a time (ORDER BY, GROUP BY, LIMIT, window functions) is refused.
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["query", "passage", "score", "on_error"])]
    pub(crate) sql: Option<String>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    #[command(flatten)]
    pub(crate) window: WindowArgs,

    /// Rows of a unit of work: a unit is a file of the output, and what is done again at most when a job is killed.
    /// Inputs are cut between row groups (record batches of Arrow files), so that a unit may be larger.
    #[arg(long, help_heading = "Job", value_name = "ROWS", default_value_t = 1_000_000, value_parser = at_least_one)]
    pub(crate) unit_rows: usize,

    /// Compression of the output.
    #[arg(long, help_heading = "Job", value_enum, default_value_t = Compression::Zstd)]
    pub(crate) compression: Compression,

    /// Most rows in a row group of the output; a group also ends when it reaches 64 MiB.
    #[arg(long, help_heading = "Job", value_name = "ROWS", default_value_t = 131_072, value_parser = at_least_one)]
    pub(crate) row_group_rows: usize,

    /// What a row that cannot be scored does: fail the run, or get a NULL score and its reason in a column
    /// `<score>_error`. A NULL query or passage is no failure: its score is NULL.
    #[arg(long, help_heading = "Job", value_enum, default_value_t = OnError::Fail)]
    pub(crate) on_error: OnError,

    /// Replace the file OUTPUT if it exists already; begin a job in a directory that holds other files, which are left
    /// alone.
    #[arg(long, help_heading = "Job")]
    pub(crate) overwrite: bool,

    /// Delete the data files and records of the job that OUTPUT holds, and nothing else, and start over.
    #[arg(long, help_heading = "Job")]
    pub(crate) restart: bool,

    /// Write what the run did and cost to this file, as JSON. If its name ends in `.html` it gets a page with
    /// throughput over time and the distributions of scores and lengths, and the JSON is written beside it.
    #[arg(long, help_heading = "Job", value_name = "FILE")]
    pub(crate) report: Option<String>,

    /// Have a cluster do the job: the address of its scheduler (`rerank cluster --help`). INPUT, OUTPUT and the files
    /// that `--sql` names must be reached by all executors under the same names: in a bucket, or on a file system that
    /// all machines share. Devices and threads are the executors' own; `--device cuda` says that they have GPUs, which
    /// decides what precision is usual.
    #[cfg(feature = "cluster")]
    #[arg(
        long, help_heading = "Job", value_name = "df://HOST:PORT", env = "RERANK_CLUSTER",
        conflicts_with_all = ["threads", "dry_run"]
    )]
    pub(crate) cluster: Option<ClusterAddress>,

    /// Write nothing: count the units that are to do, sample the lengths of their rows, measure the model for a few
    /// seconds and tell how long the run would take.
    #[arg(long, help_heading = "Job", conflicts_with = "report")]
    pub(crate) dry_run: bool,
}

/// `rerank status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The output directory of the job.
    pub(crate) output: String,

    /// Print a JSON object instead of lines for reading.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rerank score`.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// The query.
    #[arg(required_unless_present = "jsonl")]
    pub(crate) query: Option<String>,

    /// The passages.
    #[arg(required_unless_present = "jsonl")]
    pub(crate) passages: Vec<String>,

    /// Read JSON lines from this file, or from standard input, in place of QUERY and PASSAGES: objects with the texts
    /// `query` and `passage`. Each comes out as it was, in its place, with its `score`; `score` is null if a text is,
    /// and where a pair cannot be scored, whose reason is then in `score_error`.
    #[arg(
        long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-",
        conflicts_with_all = ["query", "passages", "json"]
    )]
    pub(crate) jsonl: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    /// Print a JSON object a line instead of `score<TAB>passage` (in which tabs and line ends of a passage are
    /// written `\t` and `\n`).
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rerank sql`.
#[cfg(feature = "shell")]
#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// Run these statements and leave; may be repeated. Without `-c` and `-f` statements are asked for, or read from
    /// standard input if that is no terminal. The first that fails ends the program with status 1.
    #[arg(short, long, value_name = "SQL")]
    pub(crate) command: Vec<String>,

    /// Run the statements of a file (`-`: standard input) and leave, before those of `-c`; may be repeated.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,

    /// How rows are printed. Where standard output is no terminal, rows are all that is printed.
    #[arg(long, value_enum, default_value = "automatic")]
    pub(crate) format: datafusion_cli::print_format::PrintFormat,

    /// Most rows of a result that are printed as a table; `inf` prints all.
    #[arg(long, value_name = "ROWS", default_value = "40")]
    pub(crate) max_rows: datafusion_cli::print_options::MaxRows,

    /// A model that SQL can name, as NAME=DIR, DIR, `m3`, a Hugging Face id, or `tiny`, the bundled one; may be
    /// repeated. The first is that of calls that name none [default: tiny].
    #[arg(long, help_heading = "Model", value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Vec<String>,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    #[command(flatten)]
    pub(crate) window: WindowArgs,

    /// Have a cluster run the queries: the address of its scheduler (`rerank cluster --help`). Files must be reached by
    /// all executors under the same names. Devices and threads are the executors' own; `--device cuda` says that they have
    /// GPUs, which decides what precision is usual.
    #[cfg(feature = "cluster")]
    #[arg(
        long,
        help_heading = "Device",
        value_name = "df://HOST:PORT",
        env = "RERANK_CLUSTER",
        conflicts_with = "threads"
    )]
    pub(crate) cluster: Option<ClusterAddress>,
}

/// `rerank cluster scheduler`.
#[cfg(feature = "cluster")]
#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    /// Address to listen on. There is no authentication: whoever reaches it can have plans run.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,

    /// Port to listen on.
    #[arg(long, default_value_t = 50050)]
    pub(crate) port: u16,

    /// Name or address by which executors reach this machine; must be given unless `--bind` is an address that they
    /// can reach.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Seconds without a sign of life after which an executor is taken for lost and its tasks are given to others. At
    /// least twice the executors' `--heartbeat`.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) executor_timeout: u64,
}

/// `rerank cluster executor`.
#[cfg(feature = "cluster")]
#[derive(Debug, Args)]
pub(crate) struct ExecutorArgs {
    /// The scheduler; it is waited for, and found again after it was started anew.
    #[arg(long, value_name = "df://HOST:PORT", env = "RERANK_CLUSTER", default_value = "df://127.0.0.1:50050")]
    pub(crate) scheduler: ClusterAddress,

    /// Address to listen on. There is no authentication.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,

    /// Port of the rows that others fetch; the next port takes the scheduler's orders.
    #[arg(long, default_value_t = 50051, value_parser = clap::value_parser!(u16).range(1..65535))]
    pub(crate) port: u16,

    /// Name or address by which the scheduler, other executors and clients reach this machine; also the executor's name
    /// in errors, with the port [default: the address that the scheduler sees].
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Tasks at once: units of a job, partitions of a query. Two keep a device busy, as one is read and written while
    /// the other is scored.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub(crate) slots: usize,

    /// Seconds between signs of life.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) heartbeat: u64,

    /// Folder for rows on their way to others, and for what does not fit into memory [default: a new one in the
    /// system's temporary folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,

    /// A model that plans name, as NAME=DIR; may be repeated. It is found here whatever its place is on other machines,
    /// and must be the same checkpoint there. What is not given is looked for in the Hugging Face cache, and then
    /// where the client has it.
    #[arg(long, help_heading = "Model", value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Vec<String>,

    /// Models kept open, the least recently used going first.
    #[arg(long, help_heading = "Model", value_name = "MODELS", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) max_models: usize,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// `rerank completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `rerank manual`.
#[derive(Debug, Args)]
pub(crate) struct ManualArgs {
    /// Where to write `rerank.1`, `rerank-run.1` and so on; made if it does not exist.
    pub(crate) folder: PathBuf,
}

/// `rerank model export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The checkpoint: a directory, a model name or a Hugging Face id in the local cache.
    pub(crate) model: String,

    /// The directory to make.
    pub(crate) output: String,

    /// What the graph is for: `cpu`, or `cuda`, whose fast kernels want other operands. No GPU is needed.
    #[arg(long, default_value_t = Device::Cpu)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) options: GraphOptionArgs,
}

/// `rerank model inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The checkpoint: a directory, a model name or a Hugging Face id in the local cache.
    pub(crate) model: String,

    /// Which options are allowed and what is usual may depend on the device. No GPU is needed.
    #[arg(long, default_value_t = Device::Cpu)]
    pub(crate) device: Device,

    /// The work is told for these.
    #[command(flatten)]
    pub(crate) options: GraphOptionArgs,
}

/// `rerank model pull`.
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A published model's name (`m3`, `gemma`, `minicpm`, `gemma2`) or the id of a repository on the hub (`ORG/REPO`),
    /// with `@REVISION` (a branch, a tag or a commit) if it is not `main` that is wanted.
    #[arg(value_name = "NAME|ORG/REPO[@REVISION]", value_parser = HubModel::parse)]
    pub(crate) model: HubModel,
}

/// `rerank model list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Folder in which weights of another precision are kept [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,

    /// Print a JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rerank model prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove the weights of this model only: a published model's name, a Hugging Face id, or a checkpoint directory.
    pub(crate) model: Option<String>,

    /// Folder in which weights of another precision are kept [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,

    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// The model: NAME=DIR (a name for a checkpoint directory), DIR, the name of a published model (`m3`) or a Hugging
    /// Face id, which must be in the local Hugging Face cache, or `tiny`, the bundled demonstration.
    #[arg(long, value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Option<String>,
}

/// How pairs are made into text and scored.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Model options")]
pub(crate) struct OptionArgs {
    /// Give the sigmoid of the logit (0 to 1) instead of the logit.
    #[arg(long)]
    pub(crate) normalize: bool,

    /// Longest passage, and longest pair, in tokens [default: 512].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_length: Option<usize>,

    /// Longest query, in tokens [default: three quarters of the longest pair].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) query_max_length: Option<usize>,

    /// Text put before every query.
    #[arg(long, value_name = "TEXT")]
    pub(crate) query_instruction: Option<String>,

    /// Text put before every passage.
    #[arg(long, value_name = "TEXT")]
    pub(crate) passage_instruction: Option<String>,

    /// The question put to a decoder after the pair.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,

    #[command(flatten)]
    pub(crate) graph: GraphOptionArgs,
}

/// Options that change what is computed, not the text.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Model options")]
pub(crate) struct GraphOptionArgs {
    /// In what the layers compute: `fp32`; `fp16` or `bf16` on a GPU, which are several times as fast; `int8` on the CPU,
    /// which is about twice as fast and less exact. Weights are converted once and kept in the cache [default: fp32 on the
    /// CPU; on a GPU fp16 for m3, bf16 for the decoders].
    #[arg(long, value_name = "PRECISION")]
    pub(crate) precision: Option<String>,

    /// The layer whose score is wanted, or several separated by commas [default: the last].
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub(crate) cutoff_layers: Vec<usize>,

    /// How many neighbouring passage tokens are averaged into one at each compression layer [default: 1].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) compress_ratio: Option<usize>,

    /// The layers before which passages are compressed, separated by commas [default: 8].
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub(crate) compress_layers: Vec<usize>,

    /// Any option of the model by its name; may be repeated.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) named: Vec<(String, String)>,
}

/// Where and how the model runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct EngineArgs {
    /// Where the model runs: `cpu`, `cuda`, `cuda:N`, or on several GPUs `cuda:N,M`, each with weights of its own and all
    /// fed from one queue. A GPU that cannot be used is an error.
    #[arg(long, default_value_t = Devices::default())]
    pub(crate) device: Devices,

    /// Threads of the CPU device [default: all cores].
    #[arg(long, value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,

    /// Most tokens in a device batch, padding included [default: what a large job measured, or else 512 a thread on the CPU,
    /// 65536 on a GPU].
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) batch_tokens: Option<usize>,

    /// Folder in which weights of another precision, what was measured of batches and the bundled model are kept [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,
}

/// Of how many rows batches are made.
#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// Rows sorted by length and cut into batches together: more rows mean less padding and more memory.
    #[arg(long, value_name = "ROWS", default_value_t = DEFAULT_WINDOW_ROWS, value_parser = at_least_one)]
    pub(crate) window_rows: usize,
}

/// Compression codecs of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Small files at little cost.
    Zstd,
    /// For readers that have no zstd.
    Snappy,
    /// No compression.
    None,
}

/// What a row that cannot be scored does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Fails the run.
    Fail,
    /// Gets a NULL score and its reason in a column of its own.
    Null,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_start_at_one() {
        assert_eq!(at_least_one("1"), Ok(1));
        for wrong in ["0", "-1", "x", ""] {
            assert!(at_least_one(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_option_may_hold_equals_signs() {
        assert_eq!(name_and_value("prompt=a=b"), Ok(("prompt".to_owned(), "a=b".to_owned())));
        assert!(name_and_value("prompt").is_err());
    }
}
