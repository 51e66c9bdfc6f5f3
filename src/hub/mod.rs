//! Models of the Hugging Face Hub: what they are called, where their files are on this machine, and how they get there.
//!
//! The cache is the one that Python's `huggingface_hub` keeps, in its layout, so that either finds what the other has
//! fetched: `blobs/` holds contents under their ids, `snapshots/<commit>/` links to them by name, `refs/` says which
//! commit a branch or tag was. (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>)

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

#[cfg(feature = "hub")]
pub(crate) use cache::Repository;
pub(crate) use cache::{HubCache, Snapshot, short_commit};
#[cfg(feature = "hub")]
pub(crate) use client::{HubClient, RemoteFile};
#[cfg(feature = "hub")]
pub(crate) use download::Download;
#[cfg(feature = "hub")]
pub(crate) use files::{CONFIG, INDEX, needed, shards};
pub(crate) use model::HubModel;
#[cfg(feature = "hub")]
pub(crate) use transfer::Transfer;
