//! Bytes in local files and object stores.

mod location;
mod lock;
mod object_file;
pub(crate) mod store;
mod upload;

pub(crate) use location::Location;
pub(crate) use lock::{Lock, Others};
pub(crate) use object_file::ObjectFile;
pub(crate) use upload::{Upload, Written, write_small};
