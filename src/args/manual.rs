//! The text that `--help` prints after the options of a command.

/// Printed by `rerank run --help` after the options.
pub(super) const RUN_MANUAL: &str = "\
Files
  An OUTPUT that ends in .parquet, .arrow, .feather (Arrow IPC files) or .arrows (an Arrow IPC
  stream) is one file, for an INPUT that is one file. It appears once it is complete. Until then,
  on a local disk, its rows are in a file beside it whose name begins with a dot, and another run
  with the same OUTPUT is refused.

  Any other OUTPUT is the directory of a job. INPUT is divided into units of about --unit-rows
  rows, between row groups and never across files; each unit becomes one Parquet file:

    OUTPUT/<path of the input below INPUT, without extension>-<number of the unit>-<id>.parquet
    OUTPUT/_rerank/job.json           the definition of the job; written before any work
    OUTPUT/_rerank/units/<id>.json    the record of a finished unit; written after its file
    OUTPUT/_rerank/failed/<id>.json   why a run ended at this unit
    OUTPUT/_rerank/tmp/               files being written, on local disks

  The rows of a unit keep their order, and the units together hold each row of INPUT exactly once.
  Programs that read directories of Parquet files, this one included, skip names that begin with _
  or a dot. A unit is finished when its record exists and its file has the recorded size.

Resuming
  The same command again skips finished units. It is refused if anything that the output depends
  on has changed: the inputs (names, sizes, and entity tags or modification times), the model
  (configuration, tokenizer and samples of its weights), its options, --query, --passage,
  --score, --on-error, --unit-rows, --compression or --row-group-rows; --restart starts over.
  --device, --threads, --batch-tokens and --window-rows may change: they affect scores by
  rounding only. If they stay the same, a job that was killed and resumed has the same output, bit
  for bit, as one that was not.

  A run deletes the unfinished files of killed runs on a local disk. In a bucket, these are parts
  of uploads, which are invisible; set a lifecycle rule that aborts incomplete uploads.
  Several processes may work on one job at once: they repeat each other's work and write the same
  files.

  rerank status OUTPUT shows the progress of a job.

Rows that fail
  A row fails if its text cannot be tokenized, its score is not a number, or it does not fit into
  the device's memory even on its own (a batch that does not fit is halved, and batches grow again
  later).
  --on-error sets what happens then. The records and the report count the reasons.

Exit status
  0 success; 1 failure; 2 wrong usage; 130 interrupted, 143 terminated. Committed units are kept
  in every case.

Environment
  RERANK_MODEL      the model, if --model is not given
  RERANK_CONFIG     the settings file, instead of ./rerank.toml; see rerank config --help
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

/// Printed by `rerank score --help` after the options.
pub(super) const SCORE_EXAMPLES: &str = "\
Examples
  rerank score 'what is a panda?' 'hi' 'The giant panda is a bear endemic to China.'
  rerank score --model m3 --json 'what is a panda?' 'hi'
  rerank score --model m3 --jsonl < pairs.jsonl > scored.jsonl";

/// Printed by `rerank sql --help` after the options.
#[cfg(feature = "shell")]
pub(super) const SQL_EXAMPLES: &str = "\
Examples
  rerank sql
  rerank sql -c \"SELECT query, passage, rerank(query, passage) AS s FROM 'pairs.parquet' ORDER BY s DESC LIMIT 5\"
  rerank sql -f report.sql --format csv > report.csv
  rerank sql --model m3 --model mine=/models/mine -c \"SELECT rerank('a', 'b'), rerank('a', 'b', 'mine')\"";

/// Printed by `rerank cluster scheduler --help` after the options.
#[cfg(feature = "cluster")]
pub(super) const SCHEDULER_MANUAL: &str = "\
Examples
  rerank cluster scheduler
  rerank cluster scheduler --bind 0.0.0.0 --host scheduler.internal
  rerank run s3://bucket/pairs/ s3://bucket/scored/ --model m3 --cluster df://scheduler.internal:50050";

/// Printed by `rerank cluster executor --help` after the options.
#[cfg(feature = "cluster")]
pub(super) const EXECUTOR_MANUAL: &str = "\
Environment
  AWS_*, GOOGLE_*, AZURE_*   object stores, as for rerank run
  ORT_DYLIB_PATH             the ONNX Runtime library

Signals
  On SIGTERM or Ctrl-C the executor accepts no more tasks and exits after its last one. A killed
  process loses its uncommitted work; other executors repeat it.

Examples
  rerank cluster executor --scheduler df://scheduler.internal:50050 --bind 0.0.0.0 --host gpu7.internal \\
      --device cuda:0 --model gemma=/models/bge-reranker-v2-gemma
  rerank cluster executor --port 50053 --model m3";

/// Printed by `rerank completions --help` after the options.
pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples
  rerank completions bash > /etc/bash_completion.d/rerank
  rerank completions zsh > \"${fpath[1]}/_rerank\"
  rerank completions fish > ~/.config/fish/completions/rerank.fish";

/// Printed by `rerank model pull --help` after the options.
#[cfg(feature = "hub")]
pub(super) const PULL_MANUAL: &str = "\
Environment
  HF_TOKEN          a token, for models that are private or whose licence must be accepted
                    (or HF_TOKEN_PATH, or the token of `hf auth login`)
  HF_HOME           folder of the cache and the token [default: ~/.cache/huggingface]
  HF_HUB_CACHE      folder of the cache alone [default: hub in HF_HOME]
  HF_ENDPOINT       another hub, or a mirror [default: https://huggingface.co]
  HF_HUB_OFFLINE    1 forbids requests to the hub: a model that the cache lacks is an error

Examples
  rerank model pull m3
  rerank model pull BAAI/bge-reranker-base
  rerank model pull m3@953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e
  rerank score --model \"$(rerank model pull m3)\" \"what is a panda?\" \"hi\" \"A bear.\"";

/// Printed by `rerank model list --help` after the options.
pub(super) const LIST_MANUAL: &str = "\
Columns
  name        the name for --model and SQL; a model without one is named by its id
  id          the repository on the hub, or the directory of a checkpoint outside the cache
  revision    the commit, and the branches and tags that pointed to it when it was downloaded
  family      from config.json, which does not distinguish rerankers from other decoders of the
              same architecture
  size        total size of the revision's files, some of which other revisions may share
  converted   the weights in other precisions, created when first needed

Examples
  rerank model list
  rerank model list --json | jq -r '.models[].folder'";

/// Printed by `rerank model prune --help` after the options.
pub(super) const PRUNE_MANUAL: &str = "\
Examples
  rerank model prune --dry-run
  rerank model prune m3
  rerank model prune";
