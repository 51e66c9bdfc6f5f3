use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use serde_json::json;

use super::super::manifest::{JobSettings, ModelIdentity};
use super::super::unit::cut;
use super::*;
use crate::files::{Group, InputIdentity};
use crate::report::Tally;

type StoreResult<T> = object_store::Result<T>;

/// A job of one unit.
fn manifest(score: &str) -> Manifest {
    let settings = JobSettings {
        options: json!({}),
        sql: None,
        query: "query".into(),
        passage: "passage".into(),
        score: score.into(),
        on_error: "fail".into(),
        unit_rows: 10,
        compression: "zstd".into(),
        row_group_rows: 100,
    };
    let model = ModelIdentity {
        location: "/m3".into(),
        family: "m3".into(),
        fingerprint: "f".into(),
        adapter: None,
        precision: "fp32".into(),
    };
    let input = InputIdentity { name: "a.parquet".into(), size_bytes: 5, version: "v".into() };
    let units = cut(0, &[Group { rows: 10, bytes: 1 }], 10, true);
    Manifest::new("in", vec![model], settings, vec![input], units).unwrap()
}

fn restart() -> Permissions {
    Permissions { restart: true, ..Permissions::default() }
}

/// The local file system, where another process tries to begin the job whenever this one deletes or writes a file.
#[derive(Debug, Clone)]
struct Meddler {
    files: Arc<LocalFileSystem>,
    output: Location,
    manifest: Arc<Manifest>,
    /// The results: of beginning it, and of starting it over.
    refusals: Arc<Mutex<Vec<[String; 2]>>>,
}

impl Meddler {
    async fn meddle(self) {
        let begin = async |permissions| {
            let begun = Ledger::new(self.output.clone()).begin(&self.manifest, permissions).await;
            begun.map_or_else(|error| error.to_string(), |_| "begun".to_owned())
        };
        // Files are deleted at once: the two results stay together.
        let refusals = [begin(Permissions::default()).await, begin(restart()).await];
        self.refusals.lock().unwrap().push(refusals);
    }
}

impl Display for Meddler {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Meddler {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.clone().meddle().await;
        self.files.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.files.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let (files, meddler) = (Arc::clone(&self.files), self.clone());
        stream::once(meddler.meddle()).flat_map(|()| stream::empty()).chain(files.delete_stream(paths)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.files.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn nobody_begins_a_job_that_is_started_over() {
    let folder = tempfile::tempdir().unwrap();
    let output = Location::parse(folder.path().join("out").to_str().unwrap()).unwrap();
    let (old, new) = (manifest("old"), manifest("new"));
    let mut first = Ledger::new(output.clone());
    first.begin(&old, Permissions::default()).await.unwrap();
    let unit = &old.units[0];
    write_small(&first.data_file(unit, "a.parquet"), b"rows".to_vec()).await.unwrap();
    let marker = Marker {
        unit: unit.id.clone(),
        input: "a.parquet".into(),
        number: 0,
        output: unit.data_name("a.parquet"),
        size_bytes: 4,
        etag: None,
        tally: Tally::default(),
        seconds: 1.0,
        executor: None,
        finished: now(),
    };
    first.commit(&marker).await.unwrap();
    let refused = Ledger::new(output.clone()).begin(&new, restart()).await.unwrap_err().to_string();
    assert!(refused.contains("another process is at work on this job; stop it before --restart"), "{refused}");
    drop(first);

    let refusals = Arc::<Mutex<Vec<[String; 2]>>>::default();
    let meddler = Meddler {
        files: Arc::new(LocalFileSystem::new()),
        output: output.clone(),
        manifest: Arc::new(old),
        refusals: Arc::clone(&refusals),
    };
    let mut meddled = output.clone();
    meddled.store = Arc::new(meddler);
    let mut second = Ledger::new(meddled);
    assert!(second.begin(&new, restart()).await.unwrap().committed.is_empty());
    let refusals = refusals.lock().unwrap().clone();
    // The data file, its marker and the old job are deleted, and the new job is written.
    assert_eq!(refusals.len(), 4, "{refusals:?}");
    for pair in refusals {
        assert!(pair[0].contains("another process is starting this job over"), "{pair:?}");
        assert!(pair[1].contains("another process is at work on this job"), "{pair:?}");
    }
    assert_eq!(Ledger::new(output.clone()).manifest().await.unwrap().unwrap().units, new.units);

    // Now others may join.
    assert!(Ledger::new(output.clone()).begin(&new, Permissions::default()).await.is_ok());
    let refused = Ledger::new(output).begin(&new, restart()).await.unwrap_err().to_string();
    assert!(refused.contains("another process is at work"), "{refused}");
}
