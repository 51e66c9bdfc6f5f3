//! What a job is, what of it is done, and the records that say so.

pub(crate) mod ledger;
mod manifest;
mod marker;
mod status;
pub(crate) mod unit;

pub(crate) use ledger::{Ledger, Permissions};
pub(crate) use manifest::{InputIdentity, Manifest, ModelIdentity, Settings, UnitEntry, now};
pub(crate) use marker::{Marker, Worker};
pub(crate) use status::Status;
pub(crate) use unit::{Group, Unit};
