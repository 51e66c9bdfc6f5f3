//! The program against a real S3-compatible server, undisturbed and with faults.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use assert_cmd::Command;
use bytes::Bytes;
use predicates::str::contains;

use crate::support::faults::{Fault, Faults};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tables::{encode, numbered, rows_by_id, with_noise, write};
use crate::support::{assert_fails, files, folder, run};

/// `rerank run` with a server's settings.
fn run_on(server: &S3Server, input: &str, output: &str) -> Command {
    let mut command = run(input, output);
    command.envs(server.environment());
    command
}

fn url(key: &str) -> String {
    format!("s3://{BUCKET}/{key}")
}

/// All rows of the Parquet objects below a key.
fn rows_on(server: &S3Server, key: &str) -> RecordBatch {
    let keys = server.list(key);
    rows_by_id(keys.iter().filter(|key| key.ends_with(".parquet")).map(|key| server.get(key).unwrap()))
}

/// All rows of the Parquet files below a folder.
fn rows_in(folder: &Path) -> RecordBatch {
    let files = files(folder).into_iter().filter(|file| file.ends_with(".parquet"));
    rows_by_id(files.map(|file| Bytes::from(std::fs::read(folder.join(file)).unwrap())))
}

#[test]
fn an_object_is_scored_like_a_file() {
    let (_folder, at) = folder();
    let server = S3Server::start();
    let table = numbered(0, 300);
    write(&at("in.parquet"), &table);
    server.put("in.parquet", encode(&table));
    run(at("in.parquet"), at("out/out.parquet")).assert().success();

    run_on(&server, &url("in.parquet"), &url("out/out.parquet")).assert().success();
    assert!(rows_on(&server, "out") == rows_in(&at("out")));

    // From one kind of store to the other.
    run_on(&server, &url("in.parquet"), at("down/out.parquet").to_str().unwrap()).assert().success();
    run_on(&server, at("in.parquet").to_str().unwrap(), &url("up/out.parquet")).assert().success();
    assert!(rows_in(&at("down")) == rows_in(&at("out")));
    assert!(rows_on(&server, "up") == rows_in(&at("out")));
}

#[test]
fn directories_and_globs_of_a_bucket() {
    let server = S3Server::start();
    for (name, first, count) in [("a.parquet", 0, 30), ("deep/b c.parquet", 30, 50), ("empty.parquet", 80, 0)] {
        server.put(&format!("in/{name}"), encode(&numbered(first, count)));
    }
    server.put("in/_SUCCESS", "");
    server.put("in/_hidden.parquet", "not Parquet");
    server.put("in.parquet", "a neighbour of the directory, not in it");

    run_on(&server, &url("in"), &url("out")).assert().success();
    assert_eq!(rows_on(&server, "out").num_rows(), 80);
    run_on(&server, &url("in/**/b*.parquet"), &url("globbed")).assert().success();
    assert_eq!(rows_on(&server, "globbed").num_rows(), 50);
}

/// A table that takes more than one part of an upload: 25 MB.
fn large_output() -> RecordBatch {
    with_noise(&numbered(0, 250), 100_000)
}

#[test]
fn a_large_output_is_uploaded_in_parts() {
    let server = S3Server::start();
    let table = large_output();
    server.put("in.parquet", encode(&table));
    server.take_requests();

    run_on(&server, &url("in.parquet"), &url("out/out.parquet")).assert().success();
    let scored = rows_on(&server, "out");
    assert_eq!(scored.column_by_name("noise"), table.column_by_name("noise"));
    assert_eq!(uploads(&server), ["POST uploads=", "PUT partNumber=1", "PUT partNumber=2", "POST uploadId"]);

    // A small file takes a single request.
    server.put("small.parquet", encode(&numbered(0, 10)));
    server.take_requests();
    run_on(&server, &url("small.parquet"), &url("out/small.parquet")).assert().success();
    assert_eq!(uploads(&server), ["PUT "]);
}

/// Method and first parameter of the requests that wrote Parquet files.
fn uploads(server: &S3Server) -> Vec<String> {
    let requests = server.take_requests();
    let writes = requests
        .iter()
        .filter(|request| request.contains(".parquet") && (request.starts_with("PUT") || request.starts_with("POST")));
    let short = writes.map(|request| {
        let (method, uri) = request.split_once(' ').unwrap();
        let parameter = uri.split_once('?').map_or("", |(_, query)| query.split('&').next().unwrap());
        let parameter = if parameter.starts_with("uploadId") { "uploadId" } else { parameter };
        format!("{method} {parameter}")
    });
    short.collect()
}

#[test]
fn no_request_is_lost_by_one_fault() {
    let server = S3Server::start();
    server.put("in/in.parquet", encode(&large_output()));
    run_on(&server, &url("in"), &url("out")).assert().success();
    let expected = rows_on(&server, "out");
    for fault in [Fault::InternalError, Fault::SlowDown, Fault::ResetBefore, Fault::ResetWithin] {
        let faults = Arc::new(Faults::at_first(fault));
        let environment = server.disturbed_by(Arc::clone(&faults));
        // The client mistakes a response that contains the name of an error, even in a key, for that error.
        let output = format!("out{}", fault as usize);
        let mut command = run_on(&server, &url("in"), &url(&output));
        command.envs(environment).assert().success();
        assert!(rows_on(&server, &output) == expected, "{fault:?}");
        // Listing, reading, and an upload of two parts.
        assert!(faults.injected()[&fault] >= 6, "{:?}", faults.injected());
    }
}

#[test]
fn a_listing_of_several_pages_is_read_to_its_end() {
    const OBJECTS: usize = 2000;
    let server = S3Server::start();
    // Written directly to the server's folder, which is faster than 2000 requests.
    std::fs::create_dir(server.file("in")).unwrap();
    let tiny = encode(&numbered(0, 1));
    for number in 0..OBJECTS {
        std::fs::write(server.file(&format!("in/{number:04}.parquet")), &tiny).unwrap();
    }
    assert_eq!(server.list("in").len(), OBJECTS);
    server.take_requests();

    // The glob includes the first and the last object of each page.
    run_on(&server, &url("in/[01][09][09][09].parquet"), &url("out")).assert().success();
    assert_eq!(rows_on(&server, "out").num_rows(), 16);
    let requests = server.take_requests();
    let pages = requests.iter().filter(|request| request.contains("list-type=2") && request.contains("prefix=in"));
    assert!(pages.count() >= 2, "{requests:?}");

    let all = run_on(&server, &url("in"), &url("all")).arg("--dry-run").assert().success();
    all.stdout(contains("2,000 of 2,000 to do"));
    assert_eq!(server.list("all"), Vec::<String>::new());
}

#[test]
fn what_a_store_refuses_is_said_in_a_line() {
    let server = S3Server::start();
    server.put("in.parquet", encode(&numbered(0, 1)));
    let with = |name: &str, value: &str| {
        let mut command = run_on(&server, &url("in.parquet"), &url("out/out.parquet"));
        command.env(name, value);
        command
    };
    assert_fails(with("AWS_SECRET_ACCESS_KEY", "wrong"), "s3://bucket/in.parquet");
    assert_fails(with("AWS_ACCESS_KEY_ID", "wrong"), "s3://bucket/in.parquet");
    assert_fails(run_on(&server, &url("missing.parquet"), &url("out/out.parquet")), "there is no such file");
    assert_fails(run_on(&server, &url("missing/*.parquet"), &url("out")), "no file matches");
    assert_fails(run_on(&server, "s3://nowhere/in.parquet", &url("out/out.parquet")), "s3://nowhere/in.parquet");
    assert_fails(run_on(&server, &url("in.parquet"), "s3://nowhere/out.parquet"), "s3://nowhere/out.parquet");
    server.put("text.parquet", "this is no Parquet file");
    assert_fails(run_on(&server, &url("text.parquet"), &url("out/out.parquet")), "s3://bucket/text.parquet as Parquet");
    assert_eq!(server.list("out"), Vec::<String>::new());
}
