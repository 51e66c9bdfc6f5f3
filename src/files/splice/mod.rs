//! A Parquet file that is the input's own column chunks and a few columns more.
//!
//! ```text
//! input      | row group 0: id, query, passage |         | row group 1: id, query, passage |         footer
//! output     | row group 0: id, query, passage | score   | row group 1: id, query, passage | score   footer
//! ```
//!
//! The chunks are copied byte for byte, and with them go their page indexes and bloom filters. The footer is the
//! input's, with other offsets and the added columns: the Parquet library would not write all of it again, and it does
//! not only describe the data. By the name of the writer and the order of columns, for instance, readers decide whether
//! they trust statistics.

mod copy;
mod encoder;
mod footer;
mod sink;
mod writer;

pub(super) use copy::Splice;
