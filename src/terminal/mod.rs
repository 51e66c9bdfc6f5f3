//! Output for people, and requests to stop.

mod human;
pub(crate) mod printer;
pub(crate) mod stop;
pub(crate) mod table;
mod view;

pub(crate) use human::{busy_percent, human_count, human_rate, per_second};
pub(crate) use printer::{Printer, one_line};
pub(crate) use stop::Stopped;
pub(crate) use view::{Count, LINE_INTERVAL, ProgressView};
