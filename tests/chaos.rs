//! A job that is killed at any moment, or whose store misbehaves, produces the output of an undisturbed one.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bytes::Bytes;
use tempfile::TempDir;

use crate::support::faults::{Fault, Faults};
use crate::support::s3::{BUCKET, Environment, S3Server};
use crate::support::tables::{decode, encode_groups, numbered, rows_by_id, with_noise};
use crate::support::{files, model};

/// The size of an input: units, and rows per unit.
#[derive(Clone, Copy)]
struct Size {
    units: usize,
    unit_rows: usize,
    /// Bytes that each row adds to the output. Writing them takes time, so that it is interrupted too.
    row_bytes: usize,
}

impl Size {
    /// A job long enough to be killed this many times.
    fn for_kills(kills: usize) -> Self {
        Self { units: 20.max(2 * kills), unit_rows: 60, row_bytes: 20_000 }
    }
}

/// Many requests and little work.
const MANY_REQUESTS: Size = Size { units: 80, unit_rows: 10, row_bytes: 100 };

/// How many times to kill a job: `RERANK_CHAOS_KILLS`, or as many as every test run can afford.
fn kills(affordable: usize) -> usize {
    std::env::var("RERANK_CHAOS_KILLS").map_or(affordable, |kills| kills.parse().unwrap())
}

/// A place that jobs read from and write to.
trait Place {
    /// The location of INPUT or OUTPUT with this name.
    fn location(&self, name: &str) -> String;
    fn environment(&self) -> Environment;
    /// Writes an input.
    fn put(&self, name: &str, content: Bytes);
    /// The files below this OUTPUT: relative paths, sorted.
    fn files(&self, output: &str) -> Vec<String>;
    /// The content of a file; `None` if it does not exist.
    fn read(&self, output: &str, file: &str) -> Option<Bytes>;
}

/// A local folder.
struct Local(TempDir);

impl Local {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Place for Local {
    fn location(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn environment(&self) -> Environment {
        Vec::new()
    }

    fn put(&self, name: &str, content: Bytes) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn files(&self, output: &str) -> Vec<String> {
        files(&self.path(output))
    }

    fn read(&self, output: &str, file: &str) -> Option<Bytes> {
        let content = std::fs::read(self.path(output).join(file));
        let is_missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if content.as_ref().is_err_and(is_missing) { None } else { Some(content.unwrap().into()) }
    }
}

impl Place for S3Server {
    fn location(&self, name: &str) -> String {
        format!("s3://{BUCKET}/{name}")
    }

    fn environment(&self) -> Environment {
        self.environment()
    }

    fn put(&self, name: &str, content: Bytes) {
        self.put(name, content);
    }

    fn files(&self, output: &str) -> Vec<String> {
        let directory = format!("{output}/");
        self.list(output).into_iter().map(|key| key.strip_prefix(&directory).unwrap().to_owned()).collect()
    }

    fn read(&self, output: &str, file: &str) -> Option<Bytes> {
        let content = self.get(&format!("{output}/{file}"));
        if matches!(content, Err(object_store::Error::NotFound { .. })) { None } else { Some(content.unwrap()) }
    }
}

/// The command that starts a job and also resumes it.
fn job(place: &dyn Place, size: Size, output: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rerank"));
    command
        .arg("run")
        .args([place.location("in.parquet"), place.location(output), model("tiny-xlmr-reranker")])
        .args(["--unit-rows", &size.unit_rows.to_string(), "--compression", "none"])
        .env_remove("RERANK_MODEL")
        .env_remove("RUST_LOG")
        .envs(place.environment())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Waits for a job that is not killed.
fn finish(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until there are more than `done` data files, or the job has ended.
fn wait_for_a_unit(child: &mut Child, place: &dyn Place, output: &str, done: usize) {
    while data_files(place, output).len() <= done && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a job after this time. Returns `Some` if it ended before.
fn kill_after(mut child: Child, time: Duration) -> Option<ExitStatus> {
    std::thread::sleep(time);
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    ended
}

/// The Parquet files below OUTPUT.
fn data_files(place: &dyn Place, output: &str) -> Vec<String> {
    place.files(output).into_iter().filter(|file| file.ends_with(".parquet")).collect()
}

/// All rows of the data files below OUTPUT.
fn rows(place: &dyn Place, output: &str) -> RecordBatch {
    rows_by_id(data_files(place, output).iter().map(|file| place.read(output, file).unwrap()))
}

/// The output of an undisturbed job.
struct Undisturbed {
    rows: RecordBatch,
    files: Vec<String>,
    wall: Duration,
}

const UNDISTURBED: &str = "undisturbed";

fn undisturbed(place: &dyn Place, size: Size) -> Undisturbed {
    let input = with_noise(&numbered(0, size.units * size.unit_rows), size.row_bytes);
    place.put("in.parquet", encode_groups(&input, size.unit_rows));
    let start = Instant::now();
    finish(&mut job(place, size, UNDISTURBED));
    let wall = start.elapsed();
    let rows = rows(place, UNDISTURBED);
    assert_eq!(rows.num_rows(), input.num_rows());
    for (field, column) in input.schema().fields().iter().zip(input.columns()) {
        assert!(rows.column_by_name(field.name()) == Some(column), "column {} changed", field.name());
    }
    let files = place.files(UNDISTURBED);
    assert_eq!(data_files(place, UNDISTURBED).len(), size.units, "{files:?}");
    Undisturbed { rows, files, wall }
}

impl Undisturbed {
    /// Asserts the same rows with the same scores, bit for bit, in the same files, and no other file.
    #[track_caller]
    fn assert_same(&self, place: &dyn Place, output: &str) {
        assert_eq!(place.files(output), self.files);
        assert!(rows(place, output) == self.rows, "the rows of {output} differ");
    }
}

/// Continuously reads the Parquet files in OUTPUT: each when it appears, and random ones again later.
struct Reader {
    done: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Reader {
    fn start<P: Place + Send + Sync + 'static>(place: &Arc<P>, output: &str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (place, output) = (Arc::clone(place), output.to_owned());
        let thread = std::thread::spawn({
            let done = Arc::clone(&done);
            move || {
                let mut random = fastrand::Rng::with_seed(0);
                let mut seen = HashSet::new();
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut files = data_files(&*place, &output);
                    let again = random.choice(&files).cloned();
                    files.retain(|file| seen.insert(file.clone()));
                    for file in files.into_iter().chain(again) {
                        let content = place.read(&output, &file).ok_or_else(|| format!("{file} vanished")).unwrap();
                        decode(content).map_err(|error| format!("{file}: {error}")).unwrap();
                        reads += 1;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                reads
            }
        });
        Self { done, thread }
    }

    /// Returns how many files it read. Panics if one was not readable.
    fn stop(self) -> usize {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Kills jobs this many times in total, and resumes each until it ends.
fn kill_at_random<P: Place + Send + Sync + 'static>(place: P, kills: usize, seed: u64) {
    let place = Arc::new(place);
    let size = Size::for_kills(kills);
    let undisturbed = undisturbed(&*place, size);
    let unit_wall = undisturbed.wall.div_f64(size.units as f64);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut killed, mut after_units, mut jobs, mut reads) = (0, 0, 0, 0);
    while killed < kills {
        let output = format!("out{jobs}");
        let reader = Reader::start(&place, &output);
        loop {
            if killed == kills {
                finish(&mut job(&*place, size, &output));
                break;
            }
            let done = data_files(&*place, &output).len();
            let mut child = job(&*place, size, &output).stderr(Stdio::null()).spawn().unwrap();
            // Half of the kills may strike before the next unit. The others wait for one, however long it takes.
            let longest = if random.bool() {
                unit_wall * 10
            } else {
                wait_for_a_unit(&mut child, &*place, &output, done);
                unit_wall * 2
            };
            match kill_after(child, longest.mul_f64(random.f64())) {
                None => {
                    killed += 1;
                    after_units += usize::from((done + 1..size.units).contains(&data_files(&*place, &output).len()));
                }
                Some(status) => {
                    assert!(status.success(), "{status}");
                    break;
                }
            }
        }
        undisturbed.assert_same(&*place, &output);
        // No work is left.
        finish(&mut job(&*place, size, &output));
        undisturbed.assert_same(&*place, &output);
        reads += reader.stop();
        jobs += 1;
    }
    assert!(reads > 0 && after_units > 0, "{reads} files were read, {after_units} kills came after some units");
    println!(
        "{killed} kills in {jobs} jobs of {:.1} s, {after_units} of them after some units; {reads} files read meanwhile",
        undisturbed.wall.as_secs_f64(),
    );
}

#[test]
fn killed_at_random_moments_a_local_job_loses_nothing() {
    kill_at_random(Local(tempfile::tempdir().unwrap()), kills(10), 7);
}

#[test]
fn killed_at_random_moments_a_job_on_s3_loses_nothing() {
    kill_at_random(S3Server::start(), kills(5), 8);
}

#[test]
fn a_job_gets_over_the_faults_of_its_store() {
    const FAULTS: usize = 200;
    let server = S3Server::start();
    let undisturbed = undisturbed(&server, MANY_REQUESTS);
    let faults = Arc::new(Faults::new(9, 0.6, &Fault::ALL));
    let environment = server.disturbed_by(Arc::clone(&faults));
    let start = Instant::now();
    // The client's timeout for a server that does not respond.
    finish(job(&server, MANY_REQUESTS, "out").envs(environment).env("AWS_TIMEOUT", "2s"));
    undisturbed.assert_same(&server, "out");
    let injected = faults.injected();
    println!("{injected:?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(Fault::ALL.iter().all(|fault| injected.contains_key(fault)), "{injected:?}");
    assert!(injected.values().sum::<usize>() >= FAULTS, "{injected:?}");
}
