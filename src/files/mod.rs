//! Files of rows: selecting and reading inputs, writing outputs.

mod arrow_file;
mod arrow_hint;
mod arrow_output;
mod format;
mod group;
mod input;
mod layout;
mod output;
mod parquet_file;
mod rows;
mod source;
mod splice;
mod text_columns;

pub(crate) use format::{Compression, FileFormat, OutputKind};
pub(crate) use group::Group;
pub(crate) use input::{InputFile, InputIdentity, Inputs};
pub(crate) use layout::{Columns, difference};
pub(crate) use output::{Destination, Format, OutputFile, Target, refuse_existing, refuse_input};
pub(crate) use rows::{RowLayout, Rows};
pub(crate) use source::{Batches, Source};
