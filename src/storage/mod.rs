//! Bytes in local files and object stores.

mod claim;
mod location;
mod lock;
mod object_file;
pub(crate) mod store;
mod unfinished;
mod upload;

pub(crate) use claim::Claim;
pub(crate) use location::Location;
pub(crate) use lock::{Lock, Others};
pub(crate) use object_file::ObjectFile;
pub(crate) use unfinished::{is_unfinished, remove_unfinished, writer_id};
pub(crate) use upload::{Upload, Written, write_small};
