//! Where a run writes, and the files it writes: each appears when it is complete, or not at all.

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::args::Compression;
use crate::input::{Inputs, is_parquet};
use crate::location::Location;

/// A row group ends when it reaches this size: it is held in memory until then.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Bytes per part of an upload; S3 allows 10,000 parts and none but the last below 5 MiB.
const PART_BYTES: usize = 16 << 20;

/// Outputs looked for at once.
const LOOKS_AT_ONCE: usize = 16;

/// One output for each input, in their order.
///
/// # Errors
/// If OUTPUT does not fit INPUT, if an output would be an input, or if one exists and may not be replaced.
pub(crate) async fn plan(text: &str, inputs: &Inputs, overwrite: bool) -> Result<Vec<Location>> {
    let output = Location::parse(text)?;
    let outputs: Vec<Location> = if inputs.is_one_file() {
        if !is_parquet(text) {
            bail!("OUTPUT '{text}' must be a file name that ends in .parquet, because INPUT is one file");
        }
        vec![output]
    } else {
        if output.file_size_bytes().await?.is_some() {
            bail!("OUTPUT '{text}' is a file; it must be a directory, because INPUT is not one file");
        }
        inputs.files.iter().map(|file| output.below(&file.name)).collect()
    };
    if let Some(output) = outputs.iter().find(|output| inputs.take(output)) {
        bail!("OUTPUT {output} would be read as INPUT too; write to another place");
    }
    if !overwrite {
        let existing = stream::iter(&outputs)
            .map(|output| async move { Ok::<_, anyhow::Error>(output.file_size_bytes().await?.map(|_| output)) })
            .buffered(LOOKS_AT_ONCE);
        if let Some(output) = existing.try_filter_map(|found| async move { Ok(found) }).boxed().try_next().await? {
            bail!("OUTPUT {output} exists already; pass --overwrite to replace it");
        }
    }
    Ok(outputs)
}

/// How Parquet is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// The codec of all columns.
    pub(crate) compression: Compression,
    /// Most rows of a row group.
    pub(crate) row_group_rows: usize,
}

impl Format {
    fn properties(self, schema: &SchemaRef) -> WriterProperties {
        let codec = match self.compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Compression::Snappy => Codec::SNAPPY,
            Compression::None => Codec::UNCOMPRESSED,
        };
        // Readers that know nothing of Arrow look for metadata (of pandas, of GeoParquet) in the footer itself.
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

/// A Parquet file being written.
///
/// It must be finished or aborted, not dropped: a dropped upload leaves its parts behind.
pub(crate) struct OutputFile {
    location: Location,
    writer: AsyncArrowWriter<Upload>,
}

impl OutputFile {
    /// Begins a file. Nothing is created before there is a row group to write.
    pub(crate) fn create(location: Location, schema: SchemaRef, format: Format) -> Result<Self> {
        let properties = format.properties(&schema);
        let writer = AsyncArrowWriter::try_new(Upload::new(location.clone()), schema, Some(properties))
            .with_context(|| format!("cannot write {location}"))?;
        Ok(Self { location, writer })
    }

    /// Adds rows.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.writer.write(rows).await.with_context(|| format!("cannot write {}", self.location))
    }

    /// Writes the rest and makes the file appear.
    pub(crate) async fn finish(mut self) -> Result<()> {
        match self.writer.finish().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let context = format!("cannot write {}", self.location);
                self.abort().await;
                Err(error).context(context)
            }
        }
    }

    /// Removes what was written. A failure is logged: there is an error to report already.
    pub(crate) async fn abort(self) {
        if let Err(error) = self.writer.into_inner().abort().await {
            tracing::warn!(file = %self.location, %error, "an unfinished file could not be removed");
        }
    }
}

/// A file that appears when it is complete: one request if it is small, else a multipart upload, which on a local file
/// system is a file beside it that is renamed in the end.
///
/// Unlike [`object_store::buffered::BufWriter`] it can be aborted in every state, also after it failed to complete.
struct Upload {
    location: Location,
    parts: Option<Box<dyn MultipartUpload>>,
    parts_bytes: u64,
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
}

impl Upload {
    fn new(location: Location) -> Self {
        Self { location, parts: None, parts_bytes: 0, buffered: Vec::new(), buffered_bytes: 0 }
    }

    async fn put(&mut self, mut bytes: Bytes) -> object_store::Result<()> {
        while self.buffered_bytes + bytes.len() >= PART_BYTES {
            // Some stores want all parts but the last to be of one size.
            self.buffered.push(bytes.split_to(PART_BYTES - self.buffered_bytes));
            self.put_part().await?;
        }
        if !bytes.is_empty() {
            self.buffered_bytes += bytes.len();
            self.buffered.push(bytes);
        }
        Ok(())
    }

    async fn put_part(&mut self) -> object_store::Result<()> {
        self.buffered_bytes = 0;
        let part = PutPayload::from_iter(std::mem::take(&mut self.buffered));
        self.parts_bytes += part.content_length() as u64;
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(self.location.store.put_multipart(&self.location.path).await?),
        };
        parts.put_part(part).await
    }

    async fn finish(&mut self) -> object_store::Result<()> {
        if self.parts.is_none() {
            let whole = PutPayload::from_iter(std::mem::take(&mut self.buffered));
            self.location.store.put(&self.location.path, whole).await?;
            return Ok(());
        }
        if self.buffered_bytes > 0 {
            self.put_part().await?;
        }
        if let Some(parts) = &mut self.parts
            && let Err(error) = parts.complete().await
            && !is_there(&self.location, self.parts_bytes).await
        {
            return Err(error);
        }
        self.parts = None;
        Ok(())
    }

    async fn abort(mut self) -> object_store::Result<()> {
        match &mut self.parts {
            Some(parts) => parts.abort().await,
            None => Ok(()),
        }
    }
}

/// Whether an upload is complete after all: if the answer that it is was lost, the store knows of no such upload when it
/// is asked again.
async fn is_there(location: &Location, size_bytes: u64) -> bool {
    location.store.head(&location.path).await.is_ok_and(|meta| meta.size == size_bytes)
}

impl AsyncFileWriter for Upload {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.put(bytes).await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.finish().await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }
}

/// Writes a small file, which appears when it is complete.
pub(crate) async fn write_small(location: &Location, content: Vec<u8>) -> Result<()> {
    let payload = PutPayload::from(content);
    location.store.put(&location.path, payload).await.with_context(|| format!("cannot write {location}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_memory() -> Location {
        Location::parse("memory:///out/file").unwrap()
    }

    async fn content(location: &Location) -> Vec<u8> {
        location.store.get(&location.path).await.unwrap().bytes().await.unwrap().to_vec()
    }

    #[tokio::test]
    async fn parts_make_up_the_file() {
        let location = in_memory();
        let mut upload = Upload::new(location.clone());
        let mut expected = Vec::new();
        for (byte, length) in [(1_u8, 5), (2, 2 * PART_BYTES), (3, 0), (4, PART_BYTES - 5), (5, 7)] {
            upload.put(vec![byte; length].into()).await.unwrap();
            expected.extend(vec![byte; length]);
            assert!(upload.buffered_bytes < PART_BYTES);
            assert_eq!(upload.buffered.iter().map(Bytes::len).sum::<usize>(), upload.buffered_bytes);
        }
        assert_eq!(location.file_size_bytes().await.unwrap(), None, "visible before it is complete");
        upload.finish().await.unwrap();
        assert_eq!(content(&location).await, expected);
        assert_eq!(upload.parts_bytes, expected.len() as u64);
    }

    #[tokio::test]
    async fn an_aborted_upload_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().join("out/file").to_str().unwrap()).unwrap();
        let mut upload = Upload::new(location.clone());
        upload.put(vec![0; PART_BYTES + 1].into()).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
        upload.abort().await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
        Upload::new(location).abort().await.unwrap();
    }

    #[tokio::test]
    async fn small_files_replace_older_ones() {
        let location = in_memory();
        for text in ["one", "two"] {
            write_small(&location, text.into()).await.unwrap();
            assert_eq!(content(&location).await, text.as_bytes());
        }
    }

    #[tokio::test]
    async fn outputs_mirror_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at("in/deep")).unwrap();
        std::fs::write(at("in/a.parquet"), "x").unwrap();
        std::fs::write(at("in/deep/b.parquet"), "x").unwrap();

        let inputs = Inputs::find(&at("in")).await.unwrap();
        let outputs = plan(&at("out"), &inputs, false).await.unwrap();
        let base = Location::parse(&at("out")).unwrap();
        let names: Vec<_> = outputs.iter().map(|output| output.relative_to(&base).unwrap()).collect();
        assert_eq!(names, ["a.parquet", "deep/b.parquet"]);

        let refusal = async |text: String, inputs: &Inputs, overwrite| {
            plan(&text, inputs, overwrite).await.unwrap_err().to_string()
        };
        assert!(refusal(at("in"), &inputs, true).await.contains("would be read as INPUT too"));
        assert!(refusal(at("in/out"), &inputs, true).await.contains("would be read as INPUT too"));
        assert!(refusal(at("in/a.parquet"), &inputs, true).await.contains("must be a directory"));

        let one = Inputs::find(&at("in/a.parquet")).await.unwrap();
        assert!(refusal(at("out"), &one, false).await.contains("must be a file name that ends in .parquet"));
        assert!(refusal(at("in/deep/../a.parquet"), &one, true).await.contains("would be read as INPUT too"));
        assert!(refusal(at("in/deep/b.parquet"), &one, false).await.contains("exists already; pass --overwrite"));
        assert_eq!(plan(&at("in/deep/b.parquet"), &one, true).await.unwrap().len(), 1);
    }
}
