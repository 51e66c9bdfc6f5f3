//! Writes a graph and its weights as a standard ONNX model that other tools can open.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::builder::{ExternalData, OnnxGraph};
use crate::error::{Error, Result};

const MODEL_FILE: &str = "model.onnx";
const DATA_FILE: &str = "model.onnx.data";

/// Alignment of each weight in the data file, so that readers can memory-map it.
const ALIGNMENT_BYTES: u64 = 4096;

/// Writes `model.onnx` and `model.onnx.data` into `folder`, which it creates. Copies only the weights that the graph
/// uses.
///
/// # Errors
/// [`Error::Io`] naming the file that could not be read or written.
pub(crate) fn export(graph: &OnnxGraph, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    let data_path = folder.join(DATA_FILE);
    let fail = |source| Error::io(&data_path, source);
    let mut data = BufWriter::new(File::create(&data_path).map_err(fail)?);
    let mut position = 0;

    let model = graph.model(|tensor| {
        let offset_bytes = u64::next_multiple_of(position, ALIGNMENT_BYTES);
        std::io::copy(&mut std::io::repeat(0).take(offset_bytes - position), &mut data).map_err(fail)?;
        let mut source =
            File::open(tensor.file.as_path()).map_err(|source| Error::io(tensor.file.as_path(), source))?;
        source.seek(SeekFrom::Start(tensor.offset_bytes)).map_err(|source| Error::io(tensor.file.as_path(), source))?;
        std::io::copy(&mut source.take(tensor.bytes()), &mut data).map_err(fail)?;
        position = offset_bytes + tensor.bytes();
        Ok(ExternalData { location: DATA_FILE.to_owned(), offset_bytes })
    })?;
    data.flush().map_err(fail)?;

    let model_path = folder.join(MODEL_FILE);
    std::fs::write(&model_path, model).map_err(|source| Error::io(&model_path, source))
}
