//! Where a run writes, and the files that it writes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::arrow_output;
use super::arrow_output::ArrowWriter;
use super::format::{Compression, OutputKind};
use super::input::{InputFile, Inputs};
use super::interval::{INTERVAL, IntervalEncoder};
use super::layout::any_type;
use super::splice::Splice;
use crate::storage::{Location, Replaces, Upload, Written};

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
                let has_interval = |field: &&FieldRef| {
                    *field.data_type() != INTERVAL && any_type(field.data_type(), |data_type| *data_type == INTERVAL)
                };
                if let Some(field) = schema.fields().iter().find(has_interval) {
                    bail!("column '{}' has intervals inside, which cannot be written to Parquet", field.name());
                }
                Ok(ArrowSchemaConverter::new().convert(schema).map(drop)?)
            }
            OutputKind::ArrowFile => arrow_output::check_file(schema, self.compression),
            OutputKind::ArrowStream => arrow_output::check_stream(self.compression),
        }
    }

    fn properties(self, schema: &SchemaRef) -> WriterProperties {
        // Readers that do not know Arrow look for metadata (of pandas, of GeoParquet) in the footer itself.
        let metadata: Vec<KeyValue> =
            schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        WriterProperties::builder()
            .set_compression(codec(self.compression))
            .set_max_row_group_row_count(Some(self.row_group_rows))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_key_value_metadata((!metadata.is_empty()).then_some(metadata))
            .build()
    }
}

/// The codec of Parquet pages.
pub(super) fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
        Compression::Snappy => Codec::SNAPPY,
        Compression::None => Codec::UNCOMPRESSED,
    }
}

/// Where a file is written.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) location: Location,
    /// The path to write to until the file is complete, if it differs.
    pub(crate) staging: Option<Location>,
    pub(crate) replaces: Replaces,
}

impl Destination {
    fn upload(&self) -> Upload {
        match &self.staging {
            Some(staging) => Upload::new(staging.clone()),
            None => Upload::new(self.location.clone()).replacing(self.replaces),
        }
    }
}

/// A file being written.
///
/// Finish or abort it, do not drop it: a dropped upload leaves its parts behind.
pub(crate) struct OutputFile {
    destination: Destination,
    encoder: Encoder,
}

enum Encoder {
    Parquet(Box<AsyncArrowWriter<Upload>>, Option<IntervalEncoder>),
    Spliced(Box<Splice>),
    Arrow(Box<ArrowWriter>),
}

impl OutputFile {
    /// Begins a file of rows. Nothing is created until there is a row group to write. With a staging path, rows are
    /// written there, and the file is moved once it is complete and on disk.
    pub(crate) fn create(destination: Destination, schema: SchemaRef, format: Format) -> Result<Self> {
        let upload = destination.upload();
        let encoder = match format.kind {
            OutputKind::Parquet => parquet_encoder(upload, schema, format),
            OutputKind::ArrowFile => ArrowWriter::file(upload, &schema, format.compression).map(Encoder::arrow),
            OutputKind::ArrowStream => ArrowWriter::stream(upload, &schema, format.compression).map(Encoder::arrow),
        };
        let encoder = encoder.with_context(|| format!("cannot write {}", destination.location))?;
        Ok(Self { destination, encoder })
    }

    /// Begins a copy of some row groups of a Parquet file with added columns; the rows that are written have only
    /// these. Once `stopped` is true, writing ends with an error at the next opportunity.
    pub(crate) async fn splice(
        destination: Destination,
        input: InputFile,
        groups: Range<usize>,
        added: SchemaRef,
        compression: Compression,
        stopped: Arc<AtomicBool>,
    ) -> Result<Self> {
        let context = format!("cannot add columns to {}", input.location);
        let splice = Splice::begin(input, groups, added, compression, destination.upload(), stopped);
        let splice = splice.await.context(context)?;
        Ok(Self { destination, encoder: Encoder::Spliced(Box::new(splice)) })
    }

    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let written = match &mut self.encoder {
            Encoder::Parquet(writer, None) => writer.write(rows).await.map_err(anyhow::Error::from),
            Encoder::Parquet(writer, Some(intervals)) => match intervals.encode(rows) {
                Ok(rows) => writer.write(&rows).await.map_err(anyhow::Error::from),
                Err(error) => Err(error),
            },
            Encoder::Spliced(splice) => splice.write(rows).await,
            Encoder::Arrow(writer) => writer.write(rows).await,
        };
        written.with_context(|| format!("cannot write {}", self.destination.location))
    }

    /// Writes the rest and makes the file appear.
    pub(crate) async fn finish(mut self) -> Result<Written> {
        let context = format!("cannot write {}", self.destination.location);
        let finished = match &mut self.encoder {
            Encoder::Parquet(writer, _) => writer.finish().await.map(drop).map_err(anyhow::Error::from),
            Encoder::Spliced(splice) => splice.finish().await,
            Encoder::Arrow(writer) => writer.finish().await,
        };
        if let Err(error) = finished {
            self.abort().await;
            return Err(error.context(context));
        }
        let Destination { location, staging, replaces } = self.destination;
        let upload = self.encoder.into_upload().await.with_context(|| context.clone())?;
        let mut written = upload.written();
        if let Some(staging) = staging {
            written.etag = publish(&staging, &location, replaces, written.size_bytes).await.context(context)?;
        }
        Ok(written)
    }

    /// Removes what was written. A failure is only logged: there is already an error to report.
    pub(crate) async fn abort(self) {
        let Some(upload) = self.encoder.into_upload().await else { return };
        if let Err(error) = upload.abort().await {
            tracing::warn!(file = %self.destination.location, %error, "an unfinished file could not be removed");
        }
    }
}

fn parquet_encoder(upload: Upload, schema: SchemaRef, format: Format) -> Result<Encoder> {
    let mut options = ArrowWriterOptions::new().with_properties(format.properties(&schema));
    let mut encoded = schema;
    let intervals = IntervalEncoder::of(&encoded)?;
    if let Some(intervals) = &intervals {
        encoded = Arc::clone(intervals.schema());
        options = options.with_parquet_schema(intervals.parquet.clone());
    }
    let writer = AsyncArrowWriter::try_new_with_options(upload, encoded, options)?;
    Ok(Encoder::Parquet(Box::new(writer), intervals))
}

impl Encoder {
    fn arrow(writer: ArrowWriter) -> Self {
        Self::Arrow(Box::new(writer))
    }

    /// The upload; `None` if the thread panicked that wrote to it.
    async fn into_upload(self) -> Option<Upload> {
        match self {
            Self::Parquet(writer, _) => Some(writer.into_inner()),
            Self::Spliced(splice) => splice.into_upload().await,
            Self::Arrow(writer) => Some(writer.into_upload()),
        }
    }
}

/// Moves a complete local file to its final path and returns its entity tag. The content is synced to disk before the
/// rename, so that a power failure cannot leave a name without its content.
async fn publish(
    staging: &Location,
    location: &Location,
    replaces: Replaces,
    size_bytes: u64,
) -> Result<Option<String>> {
    if let Some(path) = staging.local_path() {
        let sync = move || std::fs::File::options().write(true).open(path)?.sync_all();
        tokio::task::spawn_blocking(sync).await.context("the file was not written to disk")??;
    }
    let moved = async {
        if replaces != Replaces::Any {
            match location.store.rename_if_not_exists(&staging.path, &location.path).await {
                Ok(()) => return Ok(()),
                // Something is there, or the file system has no hard links.
                Err(_) => replaces.check(location, size_bytes).await?,
            }
        }
        location.store.rename(&staging.path, &location.path).await
    };
    if let Err(error) = moved.await {
        drop(staging.store.delete(&staging.path).await);
        return Err(error.into());
    }
    Ok(location.store.head(&location.path).await?.e_tag)
}

#[cfg(test)]
mod tests {
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
        let destination = |name: &str, staging: Option<&str>| Destination {
            location: at(name),
            staging: staging.map(at),
            replaces: Replaces::Nothing,
        };
        let mut file = OutputFile::create(destination("out/x", Some("tmp/y")), rows.schema(), format).unwrap();
        file.write(&rows).await.unwrap();
        let written = file.finish().await.unwrap();
        let meta = at("out/x").meta().await.unwrap().unwrap();
        assert_eq!(written, Written { size_bytes: meta.size, etag: meta.e_tag });
        assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);

        let empty = OutputFile::create(destination("out/e", None), rows.schema(), format).unwrap();
        let written = empty.finish().await.unwrap();
        assert_eq!(at("out/e").file_size_bytes().await.unwrap(), Some(written.size_bytes));

        // What another process made in the meantime stays.
        for staging in [None, Some("tmp/y")] {
            std::fs::write(folder.path().join("out/z"), "another's").unwrap();
            let file = OutputFile::create(destination("out/z", staging), rows.schema(), format).unwrap();
            let error = format!("{:#}", file.finish().await.unwrap_err());
            assert!(error.contains("another process made it during the run; it was not replaced"), "{error}");
            assert_eq!(std::fs::read(folder.path().join("out/z")).unwrap(), b"another's");
            assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
        }
        let same = Destination { replaces: Replaces::Same, ..destination("out/e", Some("tmp/y")) };
        let file = OutputFile::create(same, rows.schema(), format).unwrap();
        assert_eq!(file.finish().await.unwrap().size_bytes, written.size_bytes);
    }
}
