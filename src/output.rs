//! Where a run writes, and the files it writes: each appears when it is complete, or not at all.

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use object_store::{MultipartUpload, ObjectMeta, ObjectStoreExt, PutPayload};
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::args::Compression;
use crate::input::{FileFormat, Inputs};
use crate::location::Location;

/// A row group ends when it reaches this size: it is held in memory until then.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Bytes per part of an upload; S3 allows 10,000 parts and none but the last below 5 MiB.
const PART_BYTES: usize = 16 << 20;

/// Where a run writes.
#[derive(Debug)]
pub(crate) enum Target {
    /// One file, from one input.
    File(Location),
    /// The directory of a resumable job.
    Directory(Location),
}

impl Target {
    /// What OUTPUT stands for: a file if its name ends like one, else a directory.
    ///
    /// # Errors
    /// If that does not fit INPUT or what is there, or would be read as INPUT.
    pub(crate) async fn find(text: &str, inputs: &Inputs, overwrite: bool) -> Result<Self> {
        let output = Location::parse(text)?;
        if FileFormat::of(text).is_none() {
            if output.file_size_bytes().await?.is_some() {
                bail!("OUTPUT {output} is a file; name a directory, or a file that ends in .parquet");
            }
            return Ok(Self::Directory(output));
        }
        if !inputs.is_one_file() {
            bail!("OUTPUT '{text}' is a file name; it must be a directory, because INPUT is not one file");
        }
        refuse_input(&output, inputs)?;
        if !overwrite && output.file_size_bytes().await?.is_some() {
            bail!("OUTPUT {output} exists already; pass --overwrite to replace it");
        }
        Ok(Self::File(output))
    }
}

/// # Errors
/// If the file would be an input of this run or of the next.
pub(crate) fn refuse_input(output: &Location, inputs: &Inputs) -> Result<()> {
    if inputs.take(output) {
        bail!("OUTPUT {output} would be read as INPUT too; write to another place");
    }
    Ok(())
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

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Its size.
    pub(crate) size_bytes: u64,
    /// The store's entity tag, if it has any.
    pub(crate) etag: Option<String>,
}

/// A file being written.
///
/// It must be finished or aborted, not dropped: a dropped upload leaves its parts behind.
pub(crate) struct OutputFile {
    location: Location,
    staging: Option<Location>,
    writer: AsyncArrowWriter<Upload>,
}

impl OutputFile {
    /// Begins a file. Nothing is created before there is a row group to write. With `staging` it is written there, and
    /// moved when it is complete and on disk.
    pub(crate) fn create(
        location: Location,
        staging: Option<Location>,
        schema: SchemaRef,
        format: Format,
    ) -> Result<Self> {
        let properties = format.properties(&schema);
        let upload = Upload::new(staging.as_ref().unwrap_or(&location).clone());
        let writer = AsyncArrowWriter::try_new(upload, schema, Some(properties))
            .with_context(|| format!("cannot write {location}"))?;
        Ok(Self { location, staging, writer })
    }

    /// Adds rows.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.writer.write(rows).await.with_context(|| format!("cannot write {}", self.location))
    }

    /// Writes the rest and makes the file appear.
    pub(crate) async fn finish(mut self) -> Result<Written> {
        let context = format!("cannot write {}", self.location);
        if let Err(error) = self.writer.finish().await {
            self.abort().await;
            return Err(error).context(context);
        }
        let upload = self.writer.into_inner();
        let mut written = Written { size_bytes: upload.size_bytes, etag: upload.etag };
        if let Some(staging) = self.staging {
            written.etag = publish(&staging, &self.location).await.context(context)?;
        }
        Ok(written)
    }

    /// Removes what was written. A failure is logged: there is an error to report already.
    pub(crate) async fn abort(self) {
        if let Err(error) = self.writer.into_inner().abort().await {
            tracing::warn!(file = %self.location, %error, "an unfinished file could not be removed");
        }
    }
}

/// Moves a complete local file to where it belongs; gives its entity tag. The file is on disk before its name is, so
/// that a power failure cannot leave the one without the other.
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

/// A file that appears when it is complete: a single request if it fits one, else a multipart upload, which on a local
/// file system is a file beside it that is renamed in the end.
///
/// Unlike [`object_store::buffered::BufWriter`] it can be aborted in every state, also after it failed to complete.
struct Upload {
    location: Location,
    parts: Option<Box<dyn MultipartUpload>>,
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    size_bytes: u64,
    etag: Option<String>,
}

impl Upload {
    fn new(location: Location) -> Self {
        Self { location, parts: None, buffered: Vec::new(), buffered_bytes: 0, size_bytes: 0, etag: None }
    }

    async fn put(&mut self, mut bytes: Bytes) -> object_store::Result<()> {
        self.size_bytes += bytes.len() as u64;
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
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(self.location.store.put_multipart(&self.location.path).await?),
        };
        parts.put_part(part).await
    }

    async fn finish(&mut self) -> object_store::Result<()> {
        if self.parts.is_some() && self.buffered_bytes > 0 {
            self.put_part().await?;
        }
        self.etag = match &mut self.parts {
            Some(parts) => match parts.complete().await {
                Ok(result) => result.e_tag,
                Err(error) => complete_after_all(&self.location, self.size_bytes).await.ok_or(error)?.e_tag,
            },
            // A small file costs one request, and leaves no parts behind if the process is killed.
            None => {
                let content = PutPayload::from_iter(std::mem::take(&mut self.buffered));
                self.location.store.put(&self.location.path, content).await?.e_tag
            }
        };
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

/// The object of an upload whose completion failed, if it is there nevertheless: when the answer to a completion is lost,
/// it is asked for again, and then the store knows of no such upload any more.
async fn complete_after_all(location: &Location, size_bytes: u64) -> Option<ObjectMeta> {
    location.store.head(&location.path).await.ok().filter(|meta| meta.size == size_bytes)
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
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

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
        assert_eq!(upload.size_bytes, expected.len() as u64);
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
        assert!(matches!(target, Target::File(file) if file.to_string().ends_with("in/deep/b.parquet")));
    }

    #[tokio::test]
    async fn a_staged_file_appears_under_its_own_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Location::parse(folder.path().join(name).to_str().unwrap()).unwrap();
        let rows = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
        let format = Format { compression: Compression::None, row_group_rows: 10 };
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
