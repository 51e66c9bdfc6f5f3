//! Bytes in local files and object stores.

mod claim;
mod listing;
mod location;
mod lock;
mod object_file;
mod range_reader;
pub(crate) mod store;
mod unfinished;
mod upload;

pub(crate) use claim::Claim;
pub(crate) use listing::list;
pub(crate) use location::Location;
pub(crate) use lock::{Lock, Others};
pub(crate) use object_file::ObjectFile;
pub(crate) use range_reader::RangeReader;
pub(crate) use unfinished::{is_unfinished, remove_unfinished, writer_id};
pub(crate) use upload::{Replaces, Upload, Written, write_small};
