//! Jobs and queries on a cluster of real processes on this machine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use datafusion::prelude::SessionContext;
use datafusion_rerank::RerankFunctions;
use datafusion_rerank::cluster::RerankClusterExt;
use serde_json::Value;
use sqllogictest::Record;
use tempfile::TempDir;

use crate::support::s3::{BUCKET, Environment, S3Server};
use crate::support::scripts::{TABLES, rows, scripts};
use crate::support::tables::{encode_groups, numbered, with_noise, write_groups};
use crate::support::{CHECKPOINTS, data_files, files, fixture, models, session};

/// Units of a job, and rows per unit.
const UNITS: usize = 64;
const UNIT_ROWS: usize = 40;

/// Bytes that each row adds to the output, so that writing is interrupted too.
const ROW_BYTES: usize = 2_000;

/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(2);

/// Seconds after which the scheduler considers an executor lost.
const EXECUTOR_TIMEOUT: &str = "4";

/// Two neighbouring ports that are free now.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let first = 21_000 + (std::process::id() % 1000) as u16 * 20;
    loop {
        let port = first + NEXT.fetch_add(2, Ordering::Relaxed);
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

fn rerank() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rerank"));
    command
        .env_remove("RERANK_MODEL")
        .env_remove("RERANK_CLUSTER")
        .env_remove("RUST_LOG")
        .env("HF_HUB_CACHE", fixture("no-such-folder"));
    command
}

fn checkpoint(name: &str) -> String {
    format!("m3={}", fixture(name).display())
}

/// A process that is killed on drop.
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Executor {
    process: Process,
    port: u16,
}

/// A scheduler and its executors.
struct Cluster {
    port: u16,
    scheduler: Process,
    executors: Vec<Executor>,
    folder: TempDir,
    models: Vec<String>,
    /// Environment variables of the executors.
    environment: Environment,
}

impl Cluster {
    fn start(executors: usize) -> Self {
        let families = ["m3", "gemma", "minicpm", "gemma2"].iter().zip(CHECKPOINTS);
        let models = families.map(|(family, name)| format!("{family}={}", fixture(name).display()));
        Self::with_models(executors, models.collect())
    }

    fn with_models(executors: usize, models: Vec<String>) -> Self {
        let port = free_ports();
        let folder = tempfile::tempdir().unwrap();
        let scheduler = scheduler(port, folder.path());
        let environment = Vec::new();
        let mut cluster = Self { port, scheduler, executors: Vec::new(), folder, models, environment };
        for _ in 0..executors {
            cluster.add_executor();
        }
        cluster
    }

    fn address(&self) -> String {
        format!("df://127.0.0.1:{}", self.port)
    }

    fn add_executor(&mut self) {
        let port = free_ports();
        let work_dir = self.folder.path().join(format!("work-{port}"));
        self.add_executor_in(&work_dir, port);
    }

    fn add_executor_in(&mut self, work_dir: &Path, port: u16) {
        let mut command = rerank();
        command
            .args(["cluster", "executor", "--heartbeat", "1", "--threads", "1"])
            .args(["--scheduler", &self.address(), "--port", &port.to_string()])
            .envs(self.environment.clone())
            .arg("--work-dir")
            .arg(work_dir)
            .stderr(log(self.folder.path(), &format!("executor-{port}")));
        for model in &self.models {
            command.args(["--model", model]);
        }
        let mut process = Process(command.spawn().unwrap());
        wait_for_port(port, &mut process);
        self.executors.push(Executor { process, port });
    }

    fn kill_executor(&mut self, place: usize) {
        self.executors.remove(place).process.kill();
    }

    /// The standard error of its processes.
    fn logs(&self) -> String {
        let processes = std::iter::once("scheduler".to_owned())
            .chain(self.executors.iter().map(|executor| format!("executor-{}", executor.port)));
        processes.map(|name| std::fs::read_to_string(self.folder.path().join(name)).unwrap()).collect()
    }
}

fn scheduler(port: u16, folder: &Path) -> Process {
    let mut command = rerank();
    command
        .args(["cluster", "scheduler", "--executor-timeout", EXECUTOR_TIMEOUT, "--port", &port.to_string()])
        .stderr(log(folder, "scheduler"));
    let mut process = Process(command.spawn().unwrap());
    wait_for_port(port, &mut process);
    process
}

fn log(folder: &Path, name: &str) -> Stdio {
    std::fs::File::options().create(true).append(true).open(folder.join(name)).unwrap().into()
}

fn wait_for_port(port: u16, process: &mut Process) {
    let start = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(process.0.try_wait().unwrap().is_none(), "the process for port {port} ended");
        assert!(start.elapsed() < PATIENCE, "nobody listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A job's input, and its output without a cluster.
struct Job {
    folder: TempDir,
    undisturbed: Vec<(String, Vec<u8>)>,
}

impl Job {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = with_noise(&numbered(0, UNITS * UNIT_ROWS), ROW_BYTES);
        write_groups(&folder.path().join("in.parquet"), &input, UNIT_ROWS);
        let mut job = Self { folder, undisturbed: Vec::new() };
        let done = job.command("undisturbed").args(["--threads", "1"]).output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        job.undisturbed = job.content("undisturbed");
        assert_eq!(job.undisturbed.len(), UNITS);
        job
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, output: &str) -> Command {
        let mut command = rerank();
        command
            .arg("run")
            .args([self.at("in.parquet"), self.at(output)])
            .args(["--model", &checkpoint(CHECKPOINTS[0]), "--unit-rows", &UNIT_ROWS.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn on(&self, cluster: &Cluster, output: &str) -> Command {
        let mut command = self.command(output);
        command.args(["--cluster", &cluster.address()]);
        command
    }

    /// The data files and their content.
    fn content(&self, output: &str) -> Vec<(String, Vec<u8>)> {
        let names = data_files(&self.at(output));
        names.into_iter().map(|name| (name.clone(), std::fs::read(self.at(output).join(name)).unwrap())).collect()
    }

    #[track_caller]
    fn assert_identical(&self, output: &str) {
        assert!(self.content(output) == self.undisturbed, "the files of {output} differ");
        let records = files(&self.at(output).join("_rerank"));
        let expected = files(&self.at("undisturbed").join("_rerank"));
        assert_eq!(records, expected, "records of {output}");
    }

    fn markers(&self, output: &str) -> Vec<Value> {
        let folder = self.at(output).join("_rerank/units");
        let names = files(&folder).into_iter().filter(|name| !name.contains('#'));
        names.map(|name| serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()).collect()
    }

    /// Waits until more than this many units are done. Returns whether the process is still running.
    fn wait_for_units(&self, output: &str, units: usize, process: &mut Process) -> bool {
        let start = Instant::now();
        let folder = self.at(output).join("_rerank/units");
        while !folder.is_dir() || files(&folder).len() <= units {
            assert!(start.elapsed() < PATIENCE, "no {units} units of {output}");
            if process.0.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for the end of a process. Returns its success and its standard error.
fn finish(mut process: Process) -> (bool, String) {
    let start = Instant::now();
    loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            let mut text = String::new();
            std::io::Read::read_to_string(process.0.stderr.as_mut().unwrap(), &mut text).unwrap();
            return (status.success(), text);
        }
        assert!(start.elapsed() < PATIENCE, "the job does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn three_executors_give_what_one_process_does() {
    let cluster = Cluster::start(3);
    let job = Job::new();
    let report = job.at("report.json");
    let done = job.on(&cluster, "out").arg("--report").arg(&report).output().unwrap();
    assert!(done.status.success(), "{}\n{}", stderr(&done), cluster.logs());
    job.assert_identical("out");

    let executors: BTreeSet<String> =
        job.markers("out").iter().map(|marker| marker["executor"]["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(executors.len(), 3, "{executors:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let rows = (UNITS * UNIT_ROWS) as u64;
    assert_eq!((report["rows"].as_u64(), report["pairs"].as_u64()), (Some(rows), Some(rows)));
    for key in ["tokens", "padding_tokens", "batches", "device_seconds", "load_seconds"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}: {report}");
    }
    let status = rerank().args(["status", "--json"]).arg(job.at("out")).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["units_done"].as_u64(), Some(UNITS as u64));

    // No work is left.
    let again = job.on(&cluster, "out").output().unwrap();
    assert!(
        again.status.success() && stderr(&again).contains("64 of 64 units committed already"),
        "{}",
        stderr(&again)
    );
    // A query around the score.
    let sql = "SELECT id, rerank(query, passage) AS s FROM input WHERE id % 2 = 0";
    for (output, cluster) in [("local", None), ("cluster", Some(cluster.address()))] {
        let mut command = job.command(output);
        command.args(["--sql", sql]).args(cluster.iter().flat_map(|address| ["--cluster", address]));
        if cluster.is_none() {
            command.args(["--threads", "1"]);
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
    }
    assert!(job.content("local") == job.content("cluster") && !job.content("local").is_empty());
}

#[test]
fn a_bucket_serves_all_machines() {
    let server = S3Server::start();
    let mut cluster = Cluster::start(0);
    cluster.environment = server.environment();
    cluster.add_executor();
    cluster.add_executor();
    server.put("in.parquet", encode_groups(&numbered(0, 10 * UNIT_ROWS), UNIT_ROWS));
    let run = |output: &str, cluster: &[&str]| {
        let mut command = rerank();
        command
            .arg("run")
            .args([format!("s3://{BUCKET}/in.parquet"), format!("s3://{BUCKET}/{output}")])
            .args(["--model", &checkpoint(CHECKPOINTS[0]), "--unit-rows", &UNIT_ROWS.to_string()])
            .args(cluster)
            .envs(server.environment());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        let keys = server.list(output).into_iter().filter(|key| key.ends_with(".parquet"));
        keys.map(|key| (key[output.len()..].to_owned(), server.get(&key).unwrap())).collect::<Vec<_>>()
    };
    let one = run("one", &["--threads", "1"]);
    assert_eq!(one.len(), 10);
    assert!(one == run("many", &["--cluster", &cluster.address()]));
    assert_eq!(server.list("many").len(), server.list("one").len());
    // A query reads the bucket with the executors' own credentials.
    let query = rerank()
        .args(["sql", "--cluster", &cluster.address(), "--model", &checkpoint(CHECKPOINTS[0]), "--format", "csv"])
        .args(["-c", &format!("SELECT count(rerank(query, passage)) AS n FROM 's3://{BUCKET}/in.parquet'")])
        .envs(server.environment())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&query.stdout), format!("n\n{}\n", 10 * UNIT_ROWS), "{}", stderr(&query));
}

#[test]
fn executors_killed_at_random_moments_lose_nothing() {
    let kills = std::env::var("RERANK_CHAOS_KILLS").map_or(2, |kills| kills.parse().unwrap());
    let mut cluster = Cluster::start(3);
    let job = Job::new();
    let mut random = fastrand::Rng::with_seed(5);
    let (mut killed, mut jobs) = (0, 0);
    while killed < kills {
        let output = format!("out{jobs}");
        let start = Instant::now();
        let mut client = Process(job.on(&cluster, &output).spawn().unwrap());
        let mut done = 0;
        while killed < kills && job.wait_for_units(&output, done, &mut client) {
            std::thread::sleep(Duration::from_millis(random.u64(..300)));
            if client.0.try_wait().unwrap().is_some() {
                break;
            }
            cluster.kill_executor(random.usize(..3));
            killed += 1;
            cluster.add_executor();
            done = job.markers(&output).len() + random.usize(..UNITS / 8);
        }
        let (success, text) = finish(client);
        assert!(success, "{text}\n{}", cluster.logs());
        job.assert_identical(&output);
        println!("job {jobs}: {:.1} s, {killed} executors killed so far", start.elapsed().as_secs_f64());
        jobs += 1;
    }
}

#[test]
fn a_job_goes_on_when_its_client_was_killed() {
    let cluster = Cluster::start(2);
    let job = Job::new();
    let mut client = Process(job.on(&cluster, "out").spawn().unwrap());
    assert!(job.wait_for_units("out", 4, &mut client));
    client.kill();
    let done = job.on(&cluster, "out").output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stderr(&done).contains("units committed already"), "{}", stderr(&done));
    job.assert_identical("out");
}

#[cfg(unix)]
#[test]
fn an_interrupted_job_is_cancelled_on_the_cluster() {
    let cluster = Cluster::start(1);
    let job = Job::new();
    let mut client = Process(job.on(&cluster, "out").spawn().unwrap());
    assert!(job.wait_for_units("out", 2, &mut client));
    Command::new("kill").args(["-INT", &client.0.id().to_string()]).status().unwrap();
    let (success, text) = finish(client);
    assert!(!success && text.contains("interrupted;") && text.contains("run the same command again"), "{text}");
    // Units that were being written at the cancellation may still be committed, but no others.
    std::thread::sleep(Duration::from_secs(2));
    let units = job.markers("out").len();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(job.markers("out").len(), units);
    assert!(units < UNITS);
}

#[cfg(unix)]
#[test]
fn an_executor_removes_its_own_folder_and_what_dead_ones_left() {
    let mut cluster = Cluster::start(0);
    let shared = cluster.folder.path().join("shared");
    let write = |file: &str| {
        let file = shared.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    };
    let theirs = ["data/precious", "notes", "rerank-executor-plans/precious"];
    let dead = ["rerank-executor-dead/executor.lock", "rerank-executor-dead/work/job/rows"];
    theirs.into_iter().chain(dead).for_each(write);
    let folders = || {
        let entries = std::fs::read_dir(&shared).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let mut expected = BTreeSet::from(["data", "notes", "rerank-executor-plans"].map(str::to_owned));
    let mut own = Vec::new();
    for _ in 0..2 {
        cluster.add_executor_in(&shared, free_ports());
        let added: Vec<String> = folders().difference(&expected).cloned().collect();
        assert_eq!(added.len(), 1, "{added:?}");
        assert!(added[0].starts_with("rerank-executor-"), "{added:?}");
        expected.extend(added.iter().cloned());
        own.extend(added);
    }
    // The executors hold the rows of a query in their folders.
    let query = "SELECT column1, count(rerank(column1, 'b')) FROM (VALUES ('a'), ('b'), ('c')) GROUP BY column1";
    let query = rerank().args(["sql", "--cluster", &cluster.address(), "-c", query]).output().unwrap();
    assert!(query.status.success(), "{}\n{}", stderr(&query), cluster.logs());
    assert!(files(&shared).iter().any(|file| file.split('/').any(|part| part == "work")), "{:?}", files(&shared));
    for (folder, mut executor) in own.iter().zip(std::mem::take(&mut cluster.executors)) {
        Command::new("kill").args(["-TERM", &executor.process.0.id().to_string()]).status().unwrap();
        assert!(executor.process.0.wait().unwrap().success());
        assert!(expected.remove(folder));
        assert_eq!(folders(), expected, "the other executor lives");
    }
    assert_eq!(files(&shared), theirs);
}

#[test]
fn a_scheduler_that_is_killed_is_an_error_and_the_job_goes_on_with_the_next() {
    let mut cluster = Cluster::start(2);
    let job = Job::new();
    let mut client = Process(job.on(&cluster, "out").spawn().unwrap());
    assert!(job.wait_for_units("out", 4, &mut client));
    cluster.scheduler.kill();
    let (success, text) = finish(client);
    let address = cluster.address();
    assert!(!success && text.contains(&format!("the scheduler {address} does not answer")), "{text}");
    assert!(text.contains("of 64 units are committed") && text.contains("run the same command again"), "{text}");
    let nobody = job.on(&cluster, "out").output().unwrap();
    assert!(stderr(&nobody).contains(&format!("the scheduler {address} cannot be reached")), "{}", stderr(&nobody));

    cluster.scheduler = scheduler(cluster.port, cluster.folder.path());
    let done = job.on(&cluster, "out").output().unwrap();
    assert!(done.status.success(), "{}\n{}", stderr(&done), cluster.logs());
    job.assert_identical("out");
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_that_an_executor_lacks_names_the_executor() {
    let missing = rerank().args(["cluster", "executor", "--model", "m3=/no/such/folder"]).output().unwrap();
    let text = stderr(&missing);
    assert!(!missing.status.success());
    assert!(text.contains("executor 127.0.0.1:50051: model 'm3': there is no directory /no/such/folder"), "{text}");

    // A different checkpoint with the same name.
    let cluster = Cluster::with_models(1, vec![checkpoint(CHECKPOINTS[1])]);
    let job = Job::new();
    let executor = format!("executor 127.0.0.1:{}", cluster.executors[0].port);
    // A folder that only the client has: the executor's working directory differs.
    let here = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fixture(CHECKPOINTS[0]), here.path().join("only-here")).unwrap();
    for (name, reason) in
        [("m3", "another checkpoint"), ("mine", "nor is there the directory /proc/self/cwd/only-here")]
    {
        let model = format!("{name}=/proc/self/cwd/only-here");
        let mut run = rerank();
        run.arg("run").args([job.at("in.parquet"), job.at(name)]).args(["--unit-rows", "1000"]);
        let mut query = rerank();
        query.args(["sql", "-c", "SELECT rerank('a', 'b')"]);
        for mut command in [run, query] {
            command.args(["--model", &model, "--cluster", &cluster.address()]).current_dir(&here);
            let failed = command.output().unwrap();
            let text = stderr(&failed);
            assert!(!failed.status.success(), "{command:?}");
            assert!(text.contains(&executor) && text.contains(reason), "{text}");
        }
    }
}

/// Statements of the suite whose results differ on a cluster, by file and beginning, with the reason.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("details.slt", "SELECT rerank_details_sync(", "executors have no synchronous functions"),
    ("functions.slt", "SELECT rerank_sync(query, passage), rerank_m3_sync(", "executors have no synchronous functions"),
    (
        "settings.slt",
        "SELECT rerank(query, passage) FROM pairs",
        "rerank.device is cuda:99, but an executor has its own",
    ),
];

/// The result of a statement: its rows, sorted unless the statement orders them, or the error.
async fn outcome(ctx: &SessionContext, sql: &str) -> Result<Vec<Vec<String>>, String> {
    // The last digits depend on which rows are scored together.
    const DECIMALS: usize = 2;
    let running = async { ctx.sql(sql).await?.collect().await };
    let batches = running.await.map_err(|error| error.strip_backtrace())?;
    let mut rows = rows(&batches, DECIMALS);
    if !sql.contains("ORDER BY") {
        rows.sort();
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_give_what_they_give_in_one_process() {
    let cluster = Cluster::start(2);
    let (mut statements, mut different, mut listed) = (0, Vec::new(), BTreeSet::new());
    for file in scripts("").into_iter().chain(scripts("operator")) {
        let local = session(models());
        let models = models();
        let remote = session(models.clone());
        for ctx in [&local, &remote] {
            for table in TABLES {
                ctx.sql(table).await.unwrap().collect().await.unwrap();
            }
        }
        let remote = remote.on_cluster(&cluster.address().parse().unwrap(), &RerankFunctions::new(models)).unwrap();
        for record in sqllogictest::parse_file::<sqllogictest::DefaultColumnType>(&file).unwrap() {
            let (Record::Statement { sql, .. } | Record::Query { sql, .. }) = record else { continue };
            // Plans differ on a cluster.
            if sql.starts_with("EXPLAIN") {
                continue;
            }
            statements += 1;
            let (one, many) = (outcome(&local, &sql).await, outcome(&remote, &sql).await);
            let same = one.as_ref().ok() == many.as_ref().ok();
            let expected = DIFFERENT.iter().position(|(name, start, _)| file.ends_with(name) && sql.starts_with(start));
            listed.extend(expected.filter(|_| !same));
            if !same && expected.is_none() {
                different.push(format!("{}: {sql}\n  one process: {one:?}\n  cluster: {many:?}", file.display()));
            }
        }
    }
    println!("{statements} statements, {} of them different", listed.len());
    assert_eq!(listed.len(), DIFFERENT.len(), "{listed:?}: some of what is listed is not different any more");
    assert!(statements > 200 && different.is_empty(), "{}\n{}", different.join("\n"), cluster.logs());
}
