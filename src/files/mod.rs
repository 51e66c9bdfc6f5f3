//! Files of rows: selecting and reading inputs, writing outputs.

mod arrow_file;
mod arrow_output;
mod format;
mod group;
mod input;
mod layout;
mod output;
mod source;

pub(crate) use format::{Compression, FileFormat, OutputKind};
pub(crate) use group::Group;
pub(crate) use input::{InputFile, InputIdentity, Inputs};
pub(crate) use layout::{Columns, Layout, difference};
pub(crate) use output::{Format, OutputFile, Target, refuse_existing, refuse_input};
pub(crate) use source::Source;
