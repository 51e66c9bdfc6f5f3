//! Arrow IPC files and streams being written.

use anyhow::{Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

use crate::args::Compression;
use crate::upload::Upload;

/// Writes record batches as they come. What is encoded is uploaded at once.
pub(crate) struct ArrowWriter {
    encoder: Encoder,
    upload: Upload,
}

/// Encoders into memory.
enum Encoder {
    File(FileWriter<Vec<u8>>),
    Stream(StreamWriter<Vec<u8>>),
}

impl ArrowWriter {
    /// Begins a file: it can be read in parts.
    ///
    /// # Errors
    /// For a codec that the format does not have, or a column whose type it cannot hold.
    pub(crate) fn file(upload: Upload, schema: &Schema, compression: Compression) -> Result<Self> {
        if let Some(field) = schema.fields().iter().find(|field| has_dictionary(field.data_type())) {
            bail!(
                "column '{}' is dictionary-encoded, and an Arrow file cannot hold another dictionary in each batch; name an OUTPUT that ends in .arrows or .parquet",
                field.name()
            );
        }
        let encoder = FileWriter::try_new_with_options(Vec::new(), schema, options(compression)?)?;
        Ok(Self { encoder: Encoder::File(encoder), upload })
    }

    /// Begins a stream: it is read from its beginning.
    ///
    /// # Errors
    /// For a codec that the format does not have.
    pub(crate) fn stream(upload: Upload, schema: &Schema, compression: Compression) -> Result<Self> {
        let encoder = StreamWriter::try_new_with_options(Vec::new(), schema, options(compression)?)?;
        Ok(Self { encoder: Encoder::Stream(encoder), upload })
    }

    /// Adds rows.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match &mut self.encoder {
            Encoder::File(writer) => writer.write(rows)?,
            Encoder::Stream(writer) => writer.write(rows)?,
        }
        self.put_encoded().await
    }

    /// Writes the rest and makes the file appear.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        match &mut self.encoder {
            Encoder::File(writer) => writer.finish()?,
            Encoder::Stream(writer) => writer.finish()?,
        }
        self.put_encoded().await?;
        Ok(self.upload.finish().await?)
    }

    /// What was written until now.
    pub(crate) fn into_upload(self) -> Upload {
        self.upload
    }

    async fn put_encoded(&mut self) -> Result<()> {
        let encoded = match &mut self.encoder {
            Encoder::File(writer) => std::mem::take(writer.get_mut()),
            Encoder::Stream(writer) => std::mem::take(writer.get_mut()),
        };
        Ok(self.upload.put(encoded.into()).await?)
    }
}

fn options(compression: Compression) -> Result<IpcWriteOptions> {
    let codec = match compression {
        Compression::Zstd => Some(CompressionType::ZSTD),
        Compression::None => None,
        Compression::Snappy => bail!("Arrow IPC has no snappy compression; pass --compression zstd or none"),
    };
    Ok(IpcWriteOptions::default().try_with_compression(codec)?)
}

fn has_dictionary(data_type: &DataType) -> bool {
    use DataType::{
        Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct, Union,
    };
    match data_type {
        Dictionary(..) => true,
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) | Map(item, _) => {
            has_dictionary(item.data_type())
        }
        RunEndEncoded(_, values) => has_dictionary(values.data_type()),
        Struct(fields) => fields.iter().any(|field| has_dictionary(field.data_type())),
        Union(fields, _) => fields.iter().any(|(_, field)| has_dictionary(field.data_type())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn dictionaries_are_found_inside_of_types() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let field = Arc::new(Field::new("x", dictionary.clone(), true));
        let list = DataType::List(Arc::clone(&field));
        let nested = DataType::Struct(vec![Field::new("y", list.clone(), true)].into());
        for found in [&dictionary, &list, &nested] {
            assert!(has_dictionary(found), "{found}");
        }
        assert!(!has_dictionary(&DataType::List(Arc::new(Field::new("x", DataType::Utf8, true)))));
    }

    #[test]
    fn snappy_is_not_to_be_had() {
        assert!(options(Compression::Snappy).unwrap_err().to_string().contains("pass --compression zstd or none"));
        assert!(options(Compression::Zstd).is_ok() && options(Compression::None).is_ok());
    }
}
