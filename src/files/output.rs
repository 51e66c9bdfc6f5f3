//! Where a run writes, and the files that it writes.

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use object_store::ObjectStoreExt;
use parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::arrow_output;
use super::arrow_output::ArrowWriter;
use super::format::{Compression, OutputKind};
use super::input::Inputs;
use super::layout::any_type;
use crate::storage::{Location, Upload, Written};

/// A row group ends at this size at the latest: it is buffered in memory until then.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Where a run writes.
#[derive(Debug)]
pub(crate) enum Target {
    /// One file, from one input.
    File(Location, OutputKind),
    /// The directory of a resumable job.
    Directory(Location),
}

impl Target {
    /// Interprets OUTPUT: a file if its name ends like one, else a directory.
    ///
    /// # Errors
    /// If OUTPUT does not fit INPUT or what exists there, or would be read as INPUT.
    pub(crate) async fn find(text: &str, inputs: &Inputs, overwrite: bool) -> Result<Self> {
        let output = Location::parse(text)?;
        let Some(kind) = OutputKind::of(text) else {
            if output.file_size_bytes().await?.is_some() {
                bail!(
                    "OUTPUT {output} is a file; name a directory, or a file that ends in .parquet, .arrow, .feather or .arrows"
                );
            }
            return Ok(Self::Directory(output));
        };
        if !inputs.is_one_file() {
            bail!("OUTPUT '{text}' is a file name; it must be a directory, because INPUT is not one file");
        }
        refuse_input(&output, inputs)?;
        if output.is_special() {
            bail!("OUTPUT {output} exists and is not a regular file; name another file");
        }
        refuse_existing(&output, overwrite).await?;
        Ok(Self::File(output, kind))
    }
}

/// # Errors
/// If a file exists that may not be replaced.
pub(crate) async fn refuse_existing(output: &Location, overwrite: bool) -> Result<()> {
    if !overwrite && output.file_size_bytes().await?.is_some() {
        bail!("OUTPUT {output} exists already; pass --overwrite to replace it");
    }
    Ok(())
}

/// # Errors
/// If the file would be an input of this run or of the next.
pub(crate) fn refuse_input(output: &Location, inputs: &Inputs) -> Result<()> {
    if inputs.take(output) {
        bail!("OUTPUT {output} would be read as INPUT too; write to another place");
    }
    Ok(())
}

/// How a file is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) kind: OutputKind,
    /// The codec of all columns.
    pub(crate) compression: Compression,
    /// The most rows in a Parquet row group.
    pub(crate) row_group_rows: usize,
}

impl Format {
    /// # Errors
    /// If the format does not support these columns or this compression.
    pub(crate) fn check(self, schema: &Schema) -> Result<()> {
        match self.kind {
            OutputKind::Parquet => {
                let is_union = |data_type: &DataType| matches!(data_type, DataType::Union(..));
                // The converter panics on unions.
                if let Some(field) = schema.fields().iter().find(|field| any_type(field.data_type(), is_union)) {
                    bail!(
                        "column '{}' is a union, which Parquet does not have; name an OUTPUT that ends in .arrow or .arrows",
                        field.name()
                    );
                }
                Ok(ArrowSchemaConverter::new().convert(schema).map(drop)?)
            }
            OutputKind::ArrowFile => arrow_output::check_file(schema, self.compression),
            OutputKind::ArrowStream => arrow_output::check_stream(self.compression),
        }
    }

    fn properties(self, schema: &SchemaRef) -> WriterProperties {
        let codec = match self.compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Compression::Snappy => Codec::SNAPPY,
            Compression::None => Codec::UNCOMPRESSED,
        };
        // Readers that do not know Arrow look for metadata (of pandas, of GeoParquet) in the footer itself.
        let metadata: Vec<KeyValue> =
            schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        WriterProperties::builder()
            .set_compression(codec)
            .set_max_row_group_row_count(Some(self.row_group_rows))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_key_value_metadata((!metadata.is_empty()).then_some(metadata))
            .build()
    }
}

/// A file being written.
///
/// Finish or abort it, do not drop it: a dropped upload leaves its parts behind.
pub(crate) struct OutputFile {
    location: Location,
    staging: Option<Location>,
    encoder: Encoder,
}

enum Encoder {
    Parquet(Box<AsyncArrowWriter<Upload>>),
    Arrow(Box<ArrowWriter>),
}

impl OutputFile {
    /// Begins a file. Nothing is created until there is a row group to write. With `staging`, rows are written there,
    /// and the file is moved once it is complete and on disk.
    pub(crate) fn create(
        location: Location,
        staging: Option<Location>,
        schema: SchemaRef,
        format: Format,
    ) -> Result<Self> {
        let upload = Upload::new(staging.as_ref().unwrap_or(&location).clone());
        let encoder = match format.kind {
            OutputKind::Parquet => {
                let properties = format.properties(&schema);
                let writer = AsyncArrowWriter::try_new(upload, schema, Some(properties));
                writer.map(|writer| Encoder::Parquet(Box::new(writer))).map_err(anyhow::Error::from)
            }
            OutputKind::ArrowFile => ArrowWriter::file(upload, &schema, format.compression).map(Encoder::arrow),
            OutputKind::ArrowStream => ArrowWriter::stream(upload, &schema, format.compression).map(Encoder::arrow),
        };
        let encoder = encoder.with_context(|| format!("cannot write {location}"))?;
        Ok(Self { location, staging, encoder })
    }

    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let written = match &mut self.encoder {
            Encoder::Parquet(writer) => writer.write(rows).await.map_err(anyhow::Error::from),
            Encoder::Arrow(writer) => writer.write(rows).await,
        };
        written.with_context(|| format!("cannot write {}", self.location))
    }

    /// Writes the rest and makes the file appear.
    pub(crate) async fn finish(mut self) -> Result<Written> {
        let context = format!("cannot write {}", self.location);
        let finished = match &mut self.encoder {
            Encoder::Parquet(writer) => writer.finish().await.map(drop).map_err(anyhow::Error::from),
            Encoder::Arrow(writer) => writer.finish().await,
        };
        if let Err(error) = finished {
            self.abort().await;
            return Err(error.context(context));
        }
        let mut written = self.encoder.into_upload().written();
        if let Some(staging) = self.staging {
            written.etag = publish(&staging, &self.location).await.context(context)?;
        }
        Ok(written)
    }

    /// Removes what was written. A failure is only logged: there is already an error to report.
    pub(crate) async fn abort(self) {
        if let Err(error) = self.encoder.into_upload().abort().await {
            tracing::warn!(file = %self.location, %error, "an unfinished file could not be removed");
        }
    }
}

impl Encoder {
    fn arrow(writer: ArrowWriter) -> Self {
        Self::Arrow(Box::new(writer))
    }

    fn into_upload(self) -> Upload {
        match self {
            Self::Parquet(writer) => writer.into_inner(),
            Self::Arrow(writer) => writer.into_upload(),
        }
    }
}

/// Moves a complete local file to its final path and returns its entity tag. The content is synced to disk before the
/// rename, so that a power failure cannot leave a name without its content.
async fn publish(staging: &Location, location: &Location) -> Result<Option<String>> {
    if let Some(path) = staging.local_path() {
        let sync = move || std::fs::File::options().write(true).open(path)?.sync_all();
        tokio::task::spawn_blocking(sync).await.context("the file was not written to disk")??;
    }
    if let Err(error) = location.store.rename(&staging.path, &location.path).await {
        drop(staging.store.delete(&staging.path).await);
        return Err(error.into());
    }
    Ok(location.store.head(&location.path).await?.e_tag)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[tokio::test]
    async fn an_output_is_a_file_or_a_directory_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at("in/deep")).unwrap();
        for file in ["in/a.parquet", "in/deep/b.parquet", "file"] {
            std::fs::write(at(file), "x").unwrap();
        }
        let inputs = Inputs::find(&at("in")).await.unwrap();
        assert!(matches!(Target::find(&at("out"), &inputs, false).await.unwrap(), Target::Directory(_)));
        let refusal = async |text: String, inputs: &Inputs, overwrite| {
            Target::find(&text, inputs, overwrite).await.unwrap_err().to_string()
        };
        assert!(refusal(at("out.parquet"), &inputs, true).await.contains("must be a directory"));
        assert!(refusal(at("file"), &inputs, true).await.contains("is a file; name a directory"));

        let one = Inputs::find(&at("in/a.parquet")).await.unwrap();
        assert!(matches!(Target::find(&at("out"), &one, false).await.unwrap(), Target::Directory(_)));
        assert!(refusal(at("in/deep/../a.parquet"), &one, true).await.contains("would be read as INPUT too"));
        assert!(refusal(at("in/deep/b.parquet"), &one, false).await.contains("exists already; pass --overwrite"));
        let target = Target::find(&at("in/deep/b.parquet"), &one, true).await.unwrap();
        assert!(
            matches!(target, Target::File(file, OutputKind::Parquet) if file.to_string().ends_with("in/deep/b.parquet"))
        );
    }

    #[tokio::test]
    async fn a_staged_file_appears_under_its_own_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Location::parse(folder.path().join(name).to_str().unwrap()).unwrap();
        let rows = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
        let format = Format { kind: OutputKind::Parquet, compression: Compression::None, row_group_rows: 10 };
        let mut file = OutputFile::create(at("out/x"), Some(at("tmp/y")), rows.schema(), format).unwrap();
        file.write(&rows).await.unwrap();
        let written = file.finish().await.unwrap();
        let meta = at("out/x").meta().await.unwrap().unwrap();
        assert_eq!(written, Written { size_bytes: meta.size, etag: meta.e_tag });
        assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);

        let empty = OutputFile::create(at("out/e"), None, rows.schema(), format).unwrap();
        let written = empty.finish().await.unwrap();
        assert_eq!(at("out/e").file_size_bytes().await.unwrap(), Some(written.size_bytes));
    }
}
