//! What `--help` says after the options of a command.

/// What `rerank run --help` says after the options.
pub(super) const RUN_MANUAL: &str = "\
Files
  An OUTPUT that ends in .parquet, .arrow, .feather (Arrow IPC files) or .arrows (an Arrow IPC
  stream) is one file, for an INPUT that is one file. It appears when it is complete. Until then
  its rows are in a file beside it (on a local disk) whose name begins with a dot, and another run
  with the same OUTPUT is refused.

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
pub(super) const SCORE_EXAMPLES: &str = "\
Examples
  rerank score 'what is a panda?' 'hi' 'The giant panda is a bear endemic to China.'
  rerank score --model m3 --json 'what is a panda?' 'hi'
  rerank score --model m3 --jsonl < pairs.jsonl > scored.jsonl";

/// What `rerank sql --help` says after the options.
#[cfg(feature = "shell")]
pub(super) const SQL_EXAMPLES: &str = "\
Examples
  rerank sql
  rerank sql -c \"SELECT query, passage, rerank(query, passage) AS s FROM 'pairs.parquet' ORDER BY s DESC LIMIT 5\"
  rerank sql -f report.sql --format csv > report.csv
  rerank sql --model m3 --model mine=/models/mine -c \"SELECT rerank('a', 'b'), rerank('a', 'b', 'mine')\"";

/// What `rerank cluster scheduler --help` says after the options.
#[cfg(feature = "cluster")]
pub(super) const SCHEDULER_MANUAL: &str = "\
Examples
  rerank cluster scheduler
  rerank cluster scheduler --bind 0.0.0.0 --host scheduler.internal
  rerank run s3://bucket/pairs/ s3://bucket/scored/ --model m3 --cluster df://scheduler.internal:50050";

/// What `rerank cluster executor --help` says after the options.
#[cfg(feature = "cluster")]
pub(super) const EXECUTOR_MANUAL: &str = "\
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
pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples
  rerank completions bash > /etc/bash_completion.d/rerank
  rerank completions zsh > \"${fpath[1]}/_rerank\"
  rerank completions fish > ~/.config/fish/completions/rerank.fish";

/// What `rerank model pull --help` says after the options.
#[cfg(feature = "hub")]
pub(super) const PULL_MANUAL: &str = "\
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
pub(super) const LIST_MANUAL: &str = "\
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
pub(super) const PRUNE_MANUAL: &str = "\
Examples
  rerank model prune --dry-run
  rerank model prune m3
  rerank model prune";
