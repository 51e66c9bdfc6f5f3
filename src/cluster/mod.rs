//! Jobs on a cluster of Apache DataFusion Ballista.
//!
//! ```text
//! this process                scheduler                 executors
//! job.json, units    ──────>  a task for each unit ──>  read, score, write, commit: as a job without a cluster does
//! progress, report   <──────────────────── records below OUTPUT <──────┘
//! ```
//!
//! The plan is a [`ScoreUnitsExec`](score_units_exec::ScoreUnitsExec) over a table in memory with a unit a row, each in a
//! partition of its own. All that a unit's output depends on travels in it. Nothing but the records below OUTPUT tells
//! what is done: a task that is tried again, or tried twice at once, writes the same file and the same record.

mod client;
mod job_codec;
mod messages;
mod score_units_exec;
mod stores;
mod unit_work;
mod work_dir;

pub(crate) use client::{Cluster, cancel_orphan};
pub(crate) use job_codec::JobCodec;
pub(crate) use messages::JobMessage;
pub(crate) use stores::Stores;
pub(crate) use unit_work::UnitWork;
pub(crate) use work_dir::WorkDir;
