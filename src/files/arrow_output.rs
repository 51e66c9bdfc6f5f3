//! Writers of Arrow IPC files and streams.

use anyhow::{Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

use super::format::Compression;
use super::layout::any_type;
use crate::storage::Upload;

/// Writes record batches and uploads each one as soon as it is encoded.
pub(crate) struct ArrowWriter {
    encoder: IpcEncoder,
    upload: Upload,
}

/// Encoders that write to memory.
enum IpcEncoder {
    File(FileWriter<Vec<u8>>),
    Stream(StreamWriter<Vec<u8>>),
}

impl ArrowWriter {
    /// Begins a file, which can be read in parts.
    ///
    /// # Errors
    /// If the format does not support the codec.
    pub(crate) fn file(upload: Upload, schema: &Schema, compression: Compression) -> Result<Self> {
        let encoder = FileWriter::try_new_with_options(Vec::new(), schema, options(compression)?)?;
        Ok(Self { encoder: IpcEncoder::File(encoder), upload })
    }

    /// Begins a stream, which can only be read from its beginning.
    ///
    /// # Errors
    /// If the format does not support the codec.
    pub(crate) fn stream(upload: Upload, schema: &Schema, compression: Compression) -> Result<Self> {
        let encoder = StreamWriter::try_new_with_options(Vec::new(), schema, options(compression)?)?;
        Ok(Self { encoder: IpcEncoder::Stream(encoder), upload })
    }

    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match &mut self.encoder {
            IpcEncoder::File(writer) => writer.write(rows)?,
            IpcEncoder::Stream(writer) => writer.write(rows)?,
        }
        self.put_encoded().await
    }

    /// Writes the rest and makes the file appear.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        match &mut self.encoder {
            IpcEncoder::File(writer) => writer.finish()?,
            IpcEncoder::Stream(writer) => writer.finish()?,
        }
        self.put_encoded().await?;
        Ok(self.upload.finish().await?)
    }

    /// The upload of what has been written so far.
    pub(crate) fn into_upload(self) -> Upload {
        self.upload
    }

    async fn put_encoded(&mut self) -> Result<()> {
        let encoded = match &mut self.encoder {
            IpcEncoder::File(writer) => std::mem::take(writer.get_mut()),
            IpcEncoder::Stream(writer) => std::mem::take(writer.get_mut()),
        };
        Ok(self.upload.put(encoded.into()).await?)
    }
}

/// # Errors
/// If the file format does not support the codec, or cannot hold a column's type.
pub(crate) fn check_file(schema: &Schema, compression: Compression) -> Result<()> {
    if let Some(field) = schema.fields().iter().find(|field| any_type(field.data_type(), is_dictionary)) {
        bail!(
            "column '{}' is dictionary-encoded, and an Arrow file cannot hold another dictionary in each batch; name an OUTPUT that ends in .arrows or .parquet",
            field.name()
        );
    }
    check_stream(compression)
}

/// # Errors
/// If the stream format does not support the codec.
pub(crate) fn check_stream(compression: Compression) -> Result<()> {
    options(compression).map(drop)
}

fn is_dictionary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(..))
}

fn options(compression: Compression) -> Result<IpcWriteOptions> {
    let codec = match compression {
        Compression::Zstd => Some(CompressionType::ZSTD),
        Compression::None => None,
        Compression::Snappy => bail!("Arrow IPC has no snappy compression; pass --compression zstd or none"),
    };
    Ok(IpcWriteOptions::default().try_with_compression(codec)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snappy_is_not_to_be_had() {
        assert!(options(Compression::Snappy).unwrap_err().to_string().contains("pass --compression zstd or none"));
        assert!(options(Compression::Zstd).is_ok() && options(Compression::None).is_ok());
    }
}
