//! Files of rows: selecting and reading inputs, writing outputs.

mod arrow_file;
mod arrow_hint;
mod arrow_output;
mod format;
mod group;
mod input;
mod interval;
mod layout;
mod output;
mod parquet_file;
mod partitions;
mod readable;
mod rows;
mod source;
mod splice;
mod text_columns;
mod thrift_value;

#[cfg(feature = "cluster")]
pub(crate) use arrow_hint::decode_arrow_schema;
pub(crate) use format::{Compression, FileFormat, OutputKind};
pub(crate) use group::Group;
pub(crate) use input::{InputFile, InputIdentity, Inputs};
pub(crate) use layout::{Columns, difference, with_inner_fields};
pub(crate) use output::{Destination, Format, OutputFile, Target, refuse_existing, refuse_input};
pub(crate) use partitions::{
    PartitionValue, partition_columns, partition_field, partition_of, partition_value, unmarked,
};
pub(crate) use readable::check_kept;
pub(crate) use rows::{RowLayout, Rows};
pub(crate) use source::{Batches, Source};
