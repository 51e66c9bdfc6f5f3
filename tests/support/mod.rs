//! Test helpers, by subject.

mod checkpoints;
pub(crate) mod faults;
mod folders;
mod goldens;
pub(crate) mod hub;
mod jobs;
mod program;
pub(crate) mod random;
mod ranks;
pub(crate) mod reduce;
pub(crate) mod s3;
pub(crate) mod scripts;
mod sessions;
pub(crate) mod stand_ins;
pub(crate) mod statements;
pub(crate) mod tables;
mod time_limit;
pub(crate) mod weights;

pub(crate) use checkpoints::{CHECKPOINTS, MODEL, broken_model, copy, fixture, open, tiny_m3};
pub(crate) use folders::{damage, data_files, files, folder, input_of};
pub(crate) use goldens::goldens;
pub(crate) use jobs::{ids, job, output_rows, write_inputs};
pub(crate) use program::{assert_fails, lines, model, rerank, run};
pub(crate) use ranks::{largest_difference, spearman};
pub(crate) use sessions::{metric, models, session};
