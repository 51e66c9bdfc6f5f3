//! Models of the Hugging Face Hub: their names, the cache on this machine, downloads.
//!
//! The cache is the one of Python's `huggingface_hub`, so each program finds what the other has downloaded.
//! [`datafusion_rerank::HubCache`] documents its layout.

mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
mod files;
#[cfg(feature = "hub")]
mod git;
mod model;
#[cfg(feature = "hub")]
mod repository;
#[cfg(feature = "hub")]
mod transfer;

pub(crate) use cache::{Snapshot, find_cache, short_commit};
#[cfg(feature = "hub")]
pub(crate) use client::{HubClient, RemoteFile};
#[cfg(feature = "hub")]
pub(crate) use download::Download;
#[cfg(feature = "hub")]
pub(crate) use files::needed;
pub(crate) use model::HubModel;
#[cfg(feature = "hub")]
pub(crate) use repository::Repository;
#[cfg(feature = "hub")]
pub(crate) use transfer::Transfer;
