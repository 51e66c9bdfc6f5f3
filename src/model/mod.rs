//! Models as the command line names them.

pub(crate) mod account;
pub(crate) mod conversion;
pub(crate) mod open;
mod options;
pub(crate) mod session;

pub(crate) use conversion::convert_weights;
