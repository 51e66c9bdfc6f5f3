//! What the program tells a person, and how a person stops it.

mod human;
pub(crate) mod printer;
mod progress;
pub(crate) mod stop;
pub(crate) mod table;

pub(crate) use human::{busy_percent, human_count, human_rate, per_second};
pub(crate) use printer::{Count, Printer, ProgressStyle, bar, one_line};
pub(crate) use progress::{Extent, LINE_INTERVAL, Progress};
pub(crate) use stop::Stopped;
