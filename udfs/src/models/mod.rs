//! The model families, one file each, all behind one trait.
//!
//! To add a family, write its file (configuration, text recipe, graph, all exits and the tensor that its names are
//! known by), give it a [`Family`] variant and add its architecture to `recognise.rs`. Keys of its configuration that
//! change no score belong in `checkpoint/ignored.rs`.

mod architecture;
mod decoder;
mod exits;
mod family;
mod gemma;
mod gemma2;
mod graph_options;
mod minicpm;
mod onnx;
mod recognise;
mod rope;
mod shape;
mod xlm_roberta;

pub(crate) use architecture::Architecture;
pub use family::Family;
pub(crate) use graph_options::GraphOptions;
pub(crate) use recognise::recognise;
pub use shape::{GpuBytes, ModelShape};
