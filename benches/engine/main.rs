//! The engine's overhead over the model's own work, and the effect of the options on that work.
//!
//! One target with a module per question, because each target would have to be linked separately:
//!
//! ```text
//! cargo bench --bench engine -- overhead DIR            engine and job compared with a bare ONNX Runtime loop
//! cargo bench --bench engine -- options DIR JSON JSON   options compared with each other
//! cargo bench --bench engine -- open DIR                seconds and memory to open a checkpoint
//! cargo bench --bench engine -- sql DIR                 the operator compared with the functions alone, query by query
//! ```
//!
//! `benches/make_checkpoint.py` makes checkpoints of any shape. Runs alternate, and medians are compared.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

mod open;
mod options;
mod overhead;
mod sql;
mod support;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    question: Question,
    /// Passed by cargo.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Question {
    /// Pairs a second of a bare session, of the engine, and of `rerank run` as a process.
    Overhead {
        checkpoint: PathBuf,
        /// Rows of the table, repeated if there are fewer.
        #[arg(long, default_value_t = 1000)]
        rows: usize,
        #[arg(long, default_value_t = 3)]
        repeats: usize,
    },
    /// Seconds for the same pairs under each of several option sets.
    Options {
        checkpoint: PathBuf,
        /// Option sets as JSON objects. The others are compared with the first.
        #[arg(required = true)]
        options: Vec<String>,
        #[arg(long, default_value_t = 64)]
        rows: usize,
        #[arg(long, default_value_t = 3)]
        repeats: usize,
    },
    /// Seconds and peak memory to open a checkpoint and score a few pairs.
    Open {
        checkpoint: PathBuf,
        #[arg(long, default_value_t = 4)]
        rows: usize,
    },
    /// Pairs and seconds of queries with the operator and without it, and how busy it keeps the device.
    Sql {
        checkpoint: PathBuf,
        #[arg(long, default_value_t = 500)]
        rows: usize,
    },
}

fn main() -> anyhow::Result<()> {
    datafusion_rerank::allow_onnxruntime_search();
    match Args::parse().question {
        Question::Overhead { checkpoint, rows, repeats } => overhead::run(&checkpoint, rows, repeats),
        Question::Options { checkpoint, options, rows, repeats } => options::run(&checkpoint, &options, rows, repeats),
        Question::Open { checkpoint, rows } => open::run(&checkpoint, rows),
        Question::Sql { checkpoint, rows } => sql::run(&checkpoint, rows),
    }
}
