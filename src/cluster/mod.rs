//! Jobs on a cluster of Apache DataFusion Ballista.
//!
//! ```text
//! this process                scheduler                 executors
//! job.json, units    ──────>  a task for each unit ──>  read, score, write, commit: as a job without a cluster does
//! progress, report   <──────────────────── records below OUTPUT <──────┘
//! ```
//!
//! The plan is a [`ScoreUnitsExec`](score_units_exec::ScoreUnitsExec) over an in-memory table with one unit per row and
//! one row per partition. It carries everything that a unit's output depends on. Only the records below OUTPUT count as
//! done: a task that is retried, or runs twice at once, writes the same file and the same record.

mod client;
mod cluster_job;
mod job_codec;
mod messages;
mod records;
mod score_units_exec;
mod stores;
mod unit_work;
mod work_dir;

pub(crate) use cluster_job::ClusterJob;
pub(crate) use job_codec::JobCodec;
pub(crate) use stores::Stores;
pub(crate) use unit_work::UnitWork;
pub(crate) use work_dir::WorkDir;
