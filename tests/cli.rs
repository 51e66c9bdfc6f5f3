//! The command line program, as a process.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float32Array, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Compression;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;

use crate::support::tables::{all_kinds, many_pairs, pairs, read, scores, write, write_with};
use crate::support::{
    MODEL, assert_fails, broken_model, damage, data_files, files, fixture, folder, input_of, largest_difference, lines,
    model, open, rerank, run,
};

/// Tolerance to the reference library, whose own scores vary by some 5e-6 with the batch.
const TOLERANCE: f32 = 5e-5;

/// The library's scores for a table's `query` and `passage`.
fn library_scores(table: &RecordBatch) -> Vec<f32> {
    let column = |name| Arc::clone(table.column_by_name(name).unwrap());
    open(MODEL).score(&column("query"), &column("passage")).unwrap().values().to_vec()
}

#[track_caller]
fn assert_close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (row, (a, b)) in actual.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "row {row}: {a} and {b}");
    }
}

// Columns and rows are kept.

#[test]
fn a_file_gets_its_scores_in_row_order() {
    let (_folder, at) = folder();
    let table = many_pairs(1000);
    write(&at("in.parquet"), &table);
    run(at("in.parquet"), at("out.parquet")).args(["--window-rows", "64"]).assert().success().stdout("");
    let scored = read(&at("out.parquet"));
    assert_eq!(scored.project(&[0, 1]).unwrap().columns(), table.columns());
    assert_close(&scores(&scored), &library_scores(&table));
}

#[test]
fn every_kind_of_column_passes_through() {
    let (_folder, at) = folder();
    let table = all_kinds();
    let with_metadata = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![KeyValue::new("geo".to_owned(), "{}".to_owned())]))
        .build();
    write_with(&at("in.parquet"), &table, with_metadata);
    run(at("in.parquet"), at("out.parquet")).args(["--window-rows", "2"]).assert().success();

    let (input, scored) = (read(&at("in.parquet")), read(&at("out.parquet")));
    let columns = table.num_columns();
    assert_eq!(scored.columns()[..columns], *input.columns());
    assert_eq!(scored.schema().fields()[..columns], input.schema().fields()[..]);
    assert_eq!(scored.schema().fields()[..columns], table.schema().fields()[..]);
    assert_eq!(scored.schema().metadata(), input.schema().metadata());
    let footer =
        ArrowReaderMetadata::load(&File::open(at("out.parquet")).unwrap(), ArrowReaderOptions::default()).unwrap();
    let footer = footer.metadata().file_metadata().key_value_metadata().unwrap();
    assert!(footer.iter().any(|entry| entry.key == "geo"), "{footer:?}");

    let score = scored.column_by_name("score").unwrap();
    assert_eq!(score.data_type(), &DataType::Float32);
    let is_null: Vec<bool> = (0..5).map(|row| score.is_null(row)).collect();
    assert_eq!(is_null, [false, true, true, false, false], "a NULL text has a NULL score");
}

#[test]
fn a_directory_and_a_glob_keep_their_names() {
    let (_folder, at) = folder();
    let tables = [("a.parquet", many_pairs(30)), ("deep/b.parquet", many_pairs(50)), ("empty.parquet", many_pairs(0))];
    for (name, table) in &tables {
        write(&at("in").join(name), table);
    }
    std::fs::write(at("in/_SUCCESS"), "").unwrap();
    std::fs::write(at("in/_hidden.parquet"), "not Parquet").unwrap();

    run(at("in"), at("out")).args(["--window-rows", "64"]).assert().success();
    let written = data_files(&at("out"));
    assert_eq!(written.iter().map(|name| input_of(name)).collect::<Vec<_>>(), ["a", "deep/b", "empty"]);
    for (file, (_, table)) in written.iter().zip(&tables) {
        let scored = read(&at("out").join(file));
        assert_eq!(scored.num_rows(), table.num_rows());
        assert_eq!(scored.project(&[0, 1]).unwrap().columns(), table.columns());
        if table.num_rows() > 0 {
            assert_close(&scores(&scored), &library_scores(table));
        }
    }

    run(at("in/[a-z]*.parquet"), at("globbed")).assert().success();
    let inputs = |folder: &str| data_files(&at(folder)).iter().map(|name| input_of(name)).collect::<Vec<_>>();
    assert_eq!(inputs("globbed"), ["a", "empty"]);
    run(at("in/**/b*.parquet"), at("globbed deep")).assert().success();
    assert_eq!(inputs("globbed deep"), ["deep/b"]);
}

#[test]
fn columns_can_be_named() {
    let (_folder, at) = folder();
    let table = pairs(&[("what is panda?", "hi"), ("a", "b")]);
    let renamed = Schema::new(vec![Field::new("q", DataType::Utf8, true), Field::new("score", DataType::Utf8, true)]);
    write(&at("in.parquet"), &RecordBatch::try_new(Arc::new(renamed), table.columns().to_vec()).unwrap());
    run(at("in.parquet"), at("out.parquet"))
        .args(["--query", "q", "--passage", "score", "--score", "relevance"])
        .assert()
        .success();
    let scored = read(&at("out.parquet"));
    let relevance = scored.column_by_name("relevance").unwrap().as_primitive::<Float32Type>();
    assert_close(relevance.values(), &library_scores(&table));
}

#[test]
fn several_cutoff_layers_give_lists() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &pairs(&[("what is panda?", "hi"), ("a", "b")]));
    let score = |output: &str, layers: &str| {
        rerank()
            .arg("run")
            .arg(at("in.parquet"))
            .arg(at(output))
            .args([&model("tiny-minicpm-layerwise-reranker"), "--cutoff-layers", layers])
            .assert()
            .success();
        Arc::clone(read(&at(output)).column_by_name("score").unwrap())
    };
    let both = score("both.parquet", "5,8");
    for (position, layer) in ["5", "8"].into_iter().enumerate() {
        let alone = score(&format!("{layer}.parquet"), layer);
        let of_both: Vec<f32> = both
            .as_list::<i32>()
            .iter()
            .map(|list| list.unwrap().as_primitive::<Float32Type>().value(position))
            .collect();
        assert_close(alone.as_primitive::<Float32Type>().values(), &of_both);
    }
}

#[test]
fn flags_and_named_options_do_the_same() {
    let (_folder, at) = folder();
    let table = many_pairs(20);
    write(&at("in.parquet"), &table);
    let score = |output: &str, options: &[&str]| {
        run(at("in.parquet"), at(output)).args(options).assert().success();
        scores(&read(&at(output)))
    };
    let plain = score("plain.parquet", &[]);
    let flags = score("flags.parquet", &["--max-length", "16", "--normalize", "--query-instruction", "find: "]);
    let named = score(
        "named.parquet",
        &["--option", "max_length=16", "--option", "normalize=true", "--option", "query_instruction=find: "],
    );
    assert_eq!(flags, named);
    assert!(flags.iter().all(|score| (0.0..=1.0).contains(score)), "{flags:?}");
    let sigmoid: Vec<f32> = plain.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect();
    assert!(flags.iter().zip(&sigmoid).any(|(a, b)| (a - b).abs() > 1e-3), "the other flags changed nothing");
}

#[test]
fn the_output_is_written_as_asked() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &many_pairs(100));
    let footer = |output: &Path| {
        let file = File::open(output).unwrap();
        Arc::clone(ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).unwrap().metadata())
    };
    for (name, codec) in [("zstd", "ZSTD"), ("snappy", "SNAPPY"), ("none", "UNCOMPRESSED")] {
        // An encoded output is compressed as a whole.
        let output = at(&format!("{name}.parquet"));
        run(at("in.parquet"), &output)
            .args(["--compression", name, "--row-group-rows", "30"])
            .args(["--sql", "SELECT *, rerank(query, passage) AS score FROM input"])
            .assert()
            .success();
        let footer_of_all = footer(&output);
        let groups = footer_of_all.row_groups();
        assert_eq!(groups.iter().map(RowGroupMetaData::num_rows).collect::<Vec<_>>(), [30, 30, 30, 10]);
        assert!(groups[0].column(0).compression().to_string().starts_with(codec));

        // In a copy, only the score is.
        let output = at(&format!("copy-{name}.parquet"));
        run(at("in.parquet"), &output).args(["--compression", name]).assert().success();
        let (copy, input) = (footer(&output), footer(&at("in.parquet")));
        let (columns, own) = (copy.row_group(0).columns(), input.row_group(0).columns());
        assert_eq!(copy.num_row_groups(), 1);
        assert_eq!(columns[0].compression(), own[0].compression());
        assert!(columns.last().unwrap().compression().to_string().starts_with(codec));
    }
    let mut pointless = run(at("in.parquet"), at("out.parquet"));
    pointless.args(["--row-group-rows", "30"]);
    assert_fails(pointless, "--row-group-rows is for outputs that are encoded; those of Parquet files keep");
    // With an Arrow file it has a purpose, and with a directory of both.
    run(at("in.parquet"), at("in.arrow")).assert().success();
    run(at("in.arrow"), at("out.parquet")).args(["--score=again", "--row-group-rows=30"]).assert().success();
    assert_eq!(footer(&at("out.parquet")).num_row_groups(), 4);
}

#[test]
fn the_report_counts_what_was_done() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &pairs(&[("a", "b"), ("a", "b"), ("c", "d")]));
    run(at("in.parquet"), at("out.parquet"))
        .args(["--batch-tokens", "512", "--threads", "1", "--report"])
        .arg(at("report.json"))
        .assert()
        .success()
        .stderr(contains("scored 3 pairs").and(contains("3 rows in 1 file; 1 duplicate, 0 truncated, 0 errors")));
    let report: Value = serde_json::from_slice(&std::fs::read(at("report.json")).unwrap()).unwrap();
    for (key, expected) in [
        ("rows", 3),
        ("pairs", 3),
        ("duplicates", 1),
        ("errors", 0),
        ("files", 1),
        ("threads", 1),
        ("batch_tokens", 512),
    ] {
        assert_eq!(report[key], expected, "{key}");
    }
    assert_eq!(report["family"], "m3");
    assert!(report["wall_seconds"].as_f64().unwrap() > 0.0);
    assert!(report["tokens"].as_u64().unwrap() > 0);
}

#[test]
fn a_report_replaces_nothing_that_the_run_reads_or_writes() {
    let (_folder, at) = folder();
    let refused = |input: &str, output: &str, report: &str, expected: &str| {
        let mut command = run(at(input), at(output));
        command.args(["--overwrite", "--report"]).arg(at(report));
        assert_fails(command, expected);
    };
    for name in ["in.parquet", "data.json", "in/a.parquet", "in/deep/b.parquet", "elsewhere/c.parquet"] {
        write(&at(name), &pairs(&[("a", "b")]));
    }
    std::fs::write(at("old.parquet"), "precious").unwrap();
    let before = files(&at("."));
    refused("in.parquet", "out.parquet", "in.parquet", "in.parquet, which is INPUT; name another file");
    refused("in.parquet", "out.parquet", "missing/../in.parquet", "which is INPUT; name another file");
    refused("in.parquet", "out.parquet", "out.parquet", "out.parquet, which is OUTPUT; name another file");
    refused("in.parquet", "old.parquet", "in/../old.parquet", "old.parquet, which is OUTPUT; name another file");
    // The JSON beside the page conflicts.
    refused("data.json", "out.parquet", "data.html", "data.json, which is INPUT; name another file");
    refused("in", "out", "in/deep/b.parquet", "in/deep/b.parquet, which is INPUT; name another file");
    refused("in", "out", "in", "in, which is INPUT; name another file");
    refused("in", "out", "in/c.parquet", "in/c.parquet, which would be read as INPUT too; name another file");
    refused("in/*", "out", "in/report.html", "in/report.json, which would be read as INPUT too; name another file");
    for report in ["out", "out/_rerank/job.html", "out/deep/b-00000.parquet", "x/../out/part.parquet"] {
        refused("in", "out", report, "which belongs to the job in OUTPUT; name another file");
    }
    std::fs::create_dir(at("folder.json")).unwrap();
    refused("in.parquet", "out.parquet", "folder.json", "folder.json, which is not a regular file; name another file");
    refused("in.parquet", "out.parquet", "folder.html", "folder.json, which is not a regular file; name another file");
    std::fs::remove_dir(at("folder.json")).unwrap();
    std::fs::create_dir(at("folder.parquet")).unwrap();
    let mut command = run(at("in.parquet"), at("folder.parquet"));
    command.arg("--overwrite");
    assert_fails(command, "folder.parquet exists and is not a regular file; name another file");
    std::fs::remove_dir(at("folder.parquet")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;

        symlink(at("."), at("self")).unwrap();
        let url = format!("file://{}", at("self/in.parquet").display());
        let mut command = run(at("in.parquet"), at("out.parquet"));
        command.args(["--report", &url]);
        assert_fails(command, "in.parquet, which is INPUT; name another file");
        std::fs::remove_file(at("self")).unwrap();
        symlink(at("in.parquet"), at("link.json")).unwrap();
        refused("in.parquet", "out.parquet", "link.json", "in.parquet, which is INPUT; name another file");
        std::fs::remove_file(at("link.json")).unwrap();
        symlink(at("elsewhere/c.parquet"), at("in/c.parquet")).unwrap();
        refused("in", "out", "elsewhere/c.parquet", "elsewhere/c.parquet, which is INPUT; name another file");
        std::fs::remove_file(at("in/c.parquet")).unwrap();
    }
    assert_eq!(files(&at(".")), before, "something was done before it was refused");
    assert_eq!(read(&at("in.parquet")).num_rows(), 1);

    // A report may be in the directory of a job, as long as it cannot be mistaken for data.
    run(at("in"), at("out")).arg("--report").arg(at("out/report.html")).assert().success();
    run(at("in"), at("out")).arg("--report").arg(at("out/report.html")).assert().success();
    assert!(at("out/report.json").exists());
}

#[test]
fn quiet_says_nothing_and_verbose_more() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &pairs(&[("a", "b")]));
    run(at("in.parquet"), at("out.parquet")).arg("--quiet").assert().success().stdout("").stderr("");
    run(at("in.parquet"), at("out.parquet"))
        .args(["--verbose", "--overwrite"])
        .assert()
        .success()
        .stdout("")
        .stderr(contains("loaded ONNX Runtime"));
}

// Errors are reported, and nothing is left behind.

#[test]
fn wrong_input_is_refused() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &pairs(&[("a", "b")]));
    let with = |arguments: &[&str]| {
        let mut command = run(at("in.parquet"), at("out.parquet"));
        command.args(arguments);
        command
    };
    assert_fails(
        with(&["--query", "question"]),
        "no column 'question'; name one with --query, the columns are query, passage",
    );
    assert_fails(with(&["--score", "query"]), "has a column 'query' already; name another with --score");
    assert_fails(
        with(&["--option", "depth=3"]),
        "option depth: there is no such option; the options are precision, adapter, normalize,",
    );
    assert_fails(with(&["--max-length", "0"]), "option max_length: expected a whole number of at least 1");
    assert_fails(with(&["--prompt", "?"]), "option prompt: m3 models do not have it");
    assert_fails(with(&["--max-length", "8", "--option", "max_length=9"]), "option max_length: it was given twice");
    assert_fails(with(&["--device", "cuda:99"]), "cuda:99");
    assert_fails(run(at("missing.parquet"), at("out.parquet")), "there is no such file");
    assert_fails(run(at("*.pq"), at("out")), "no file matches");
    assert_fails(run(at("."), at("in.parquet")), "it must be a directory");
    assert_fails(run(at("."), at("out")), "would be read as INPUT too");
    assert_fails(
        with(&["--restart"]),
        "--restart is for jobs, whose OUTPUT is a directory; to replace a file pass --overwrite",
    );
    assert_fails(run(at("in.parquet"), at("in.parquet")), "would be read as INPUT too");
    std::fs::write(at("text.parquet"), "this is no Parquet file").unwrap();
    assert_fails(run(at("text.parquet"), at("out.parquet")), "text.parquet as Parquet");
    write(
        &at("numbers.parquet"),
        &RecordBatch::try_from_iter([
            ("query", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
            ("passage", Arc::new(StringArray::from(vec!["a"]))),
        ])
        .unwrap(),
    );
    assert_fails(run(at("numbers.parquet"), at("out.parquet")), "column 'query' is of type Int32, expected text");
    assert_eq!(files(&at(".")), ["in.parquet", "numbers.parquet", "text.parquet"]);
}

#[test]
fn a_wrong_model_is_refused() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &pairs(&[("a", "b")]));
    let with = |arguments: &[&str]| {
        let mut command = rerank();
        command.arg("run").arg(at("in.parquet")).arg(at("out.parquet")).args(arguments);
        command.env("HF_HUB_CACHE", at("no cache"));
        command
    };
    assert_fails(with(&[]), "no model was given: name one with --model");
    assert_fails(with(&["--model", "nothing"]), "neither a known name");
    assert_fails(with(&["--model", "m3"]), "not in the Hugging Face cache");
    assert_fails(with(&["--model", "m3=no/such/dir"]), "there is no directory no/such/dir");
    let empty = at("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_fails(with(&["--model", empty.to_str().unwrap()]), "tokenizer.json: missing");

    let named = format!("mine={}", fixture(MODEL).display());
    with(&["--model", &named]).assert().success();
    with(&["--overwrite"]).env("RERANK_MODEL", fixture(MODEL)).assert().success();
}

#[test]
fn an_existing_output_is_kept_unless_told_otherwise() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &pairs(&[("a", "b")]));
    std::fs::write(at("out.parquet"), "precious").unwrap();
    assert_fails(run(at("in.parquet"), at("out.parquet")), "exists already; pass --overwrite");
    assert_eq!(std::fs::read(at("out.parquet")).unwrap(), b"precious");
    run(at("in.parquet"), at("out.parquet")).arg("--overwrite").assert().success();
    assert_eq!(read(&at("out.parquet")).num_rows(), 1);
}

#[test]
fn usage_errors_have_a_code_of_their_own() {
    for arguments in [
        &["run"][..],
        &["run", "a", "b", "--device", "gpu"],
        &["run", "a", "b", "--window-rows", "0"],
        &["run", "a", "b", "--on-error", "ignore"],
        &["run", "a", "b", "--option", "normalize"],
        &["score", "query without passages"],
        &["unknown"],
    ] {
        rerank().args(arguments).assert().code(2).stdout("").stderr(contains("error: "));
    }
    rerank().arg("--help").assert().success().stdout(contains("rerank"));
}

#[test]
fn a_row_that_fails_fails_the_run_or_is_null() {
    let (_folder, at) = folder();
    broken_model(&at("broken"));
    write(&at("in.parquet"), &pairs(&[("a", "b"), ("c", "d"), ("a", "hi"), ("e", "f"), ("b", "hi")]));
    let with = |on_error: &str| {
        let mut command = rerank();
        command.arg("run").arg(at("in.parquet")).arg(at("out.parquet")).arg("--model").arg(at("broken"));
        command.args(["--window-rows", "2", "--on-error", on_error]);
        command
    };
    assert_fails(with("fail"), "in.parquet row 2 (the first is 0): the score is not a number");
    assert!(!at("out.parquet").exists());

    with("null").assert().success().stderr(contains("2 errors"));
    let scored = read(&at("out.parquet"));
    let failed: Vec<bool> = (0..5).map(|row| scored.column_by_name("score").unwrap().is_null(row)).collect();
    assert_eq!(failed, [false, false, true, false, true]);
    let reasons = scored.column_by_name("score_error").unwrap().as_string::<i32>();
    assert_eq!(reasons.iter().map(|reason: Option<&str>| reason.is_some()).collect::<Vec<_>>(), failed);
    assert!(reasons.value(4).contains("not a number"));
}

#[test]
fn a_failure_leaves_complete_files_only() {
    let (_folder, at) = folder();
    for name in ["a", "b", "c"] {
        write(&at(&format!("in/{name}.parquet")), &many_pairs(200));
    }
    damage(&at("in/b.parquet"));
    let mut command = run(at("in"), at("out"));
    command.args(["--window-rows", "50"]);
    assert_fails(command, "in/b.parquet");
    let complete: Vec<String> = data_files(&at("out")).iter().map(|name| input_of(name)).collect();
    assert!(complete.is_empty() || complete == ["a"], "{complete:?}");

    // Problems that a footer shows are found before anything is scored.
    std::fs::write(at("in/c.parquet"), "cut off").unwrap();
    std::fs::remove_dir_all(at("out")).ok();
    assert_fails(run(at("in"), at("out")), "in/c.parquet as Parquet");
    assert!(!at("out").exists());
}

/// A table whose first rows are large, so that its output begins early, and whose other rows are slow to score.
fn slow_table(rows: usize) -> RecordBatch {
    let table = many_pairs(rows);
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let blobs: Vec<Option<Vec<u8>>> =
        (0..rows).map(|row| (row < 300).then(|| (0..100_000).map(|_| noise()).collect())).collect();
    let blobs: BinaryArray = blobs.iter().map(|blob| blob.as_deref()).collect();
    let [query, passage] = [0, 1].map(|column| Arc::clone(table.column(column)));
    RecordBatch::try_from_iter([("query", query), ("passage", passage), ("blob", Arc::new(blobs) as ArrayRef)]).unwrap()
}

fn write_slow(path: &Path, rows: usize) {
    let uncompressed = WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).build();
    write_with(path, &slow_table(rows), uncompressed);
}

/// Starts a slow run on the table of [`write_slow`].
fn start_slowly(input: &Path, output: &Path) -> Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_rerank"))
        .arg("run")
        .args([input, output])
        .args([&model(MODEL), "--window-rows=100", "--compression=none", "--batch-tokens=1024"])
        .arg("--overwrite")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until a file in a folder contains rows.
fn wait_for_rows(folder: &Path, child: &mut Child) {
    let start = Instant::now();
    while files(folder).iter().all(|file| std::fs::metadata(folder.join(file)).map_or(0, |file| file.len()) == 0) {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it wrote");
        assert!(start.elapsed() < Duration::from_mins(1), "nothing was written in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The exit status of a run, and its standard error.
fn ended(mut child: Child) -> (ExitStatus, String) {
    let mut message = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut message).unwrap();
    (child.wait().unwrap(), message)
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
}

#[test]
#[cfg(unix)]
fn interrupted_it_leaves_nothing() {
    let (_folder, at) = folder();
    write_slow(&at("in.parquet"), 60_000);
    for (signal, code, word) in [("INT", 130, "interrupted"), ("TERM", 143, "terminated")] {
        std::fs::create_dir(at("out")).unwrap();
        let mut child = start_slowly(&at("in.parquet"), &at("out/out.parquet"));
        wait_for_rows(&at("out"), &mut child);
        assert_ne!(files(&at("out")), ["out.parquet"], "the file appeared before it was complete");
        send(signal, &child);
        let (status, message) = ended(child);
        assert_eq!(status.code(), Some(code), "{message}");
        // Nothing else: the device was in the middle of a batch, and ends without errors.
        let expected = format!("error: {word}; files that were not complete have been removed\n");
        assert_eq!(message, expected);
        assert_eq!(files(&at("out")), Vec::<String>::new());
        std::fs::remove_dir(at("out")).unwrap();
    }
}

// Two runs that write one file.

#[test]
#[cfg(unix)]
fn a_file_that_another_run_is_writing_is_left_to_it() {
    const ROWS: usize = 3_000;
    let (_folder, at) = folder();
    write_slow(&at("in.parquet"), ROWS);
    let mut first = start_slowly(&at("in.parquet"), &at("out/out.parquet"));
    wait_for_rows(&at("out"), &mut first);
    // Stop it, so that it does not finish before the others are refused.
    send("STOP", &first);
    let message = format!("another process is writing OUTPUT {}; wait", at("out/out.parquet").display());
    let begun = files(&at("out"));
    for arguments in [&[][..], &["--overwrite"]] {
        let mut second = run(at("in.parquet"), at("out/../out/out.parquet"));
        second.args(arguments);
        assert_fails(second, &message);
        assert_eq!(files(&at("out")), begun);
    }
    // Another file in the folder can be written, and readers of the folder do not see unfinished files.
    run(fixture("xquad.parquet"), at("out/other.parquet")).assert().success();
    run(at("out"), at("again")).args(["--score", "score_2"]).assert().success();
    assert_eq!(data_files(&at("again")).iter().map(|name| input_of(name)).collect::<Vec<_>>(), ["other"]);
    send("CONT", &first);
    let (status, message) = ended(first);
    assert!(status.success(), "{message}");
    assert_eq!(read(&at("out/out.parquet")).num_rows(), ROWS);
    assert_eq!(files(&at("out")), ["other.parquet", "out.parquet"]);
}

#[test]
fn runs_that_begin_together_leave_one_complete_file() {
    const ROWS: usize = 1_000;
    let (_folder, at) = folder();
    write_slow(&at("in.parquet"), ROWS);
    let runs: Vec<Child> = (0..3).map(|_| start_slowly(&at("in.parquet"), &at("out/out.parquet"))).collect();
    let mut written = 0;
    for (status, message) in runs.into_iter().map(ended) {
        assert!(status.success() || message.starts_with("error: another process is writing OUTPUT "), "{message}");
        written += usize::from(status.success());
    }
    assert!(written > 0);
    assert_eq!(read(&at("out/out.parquet")).num_rows(), ROWS);
    assert_eq!(files(&at("out")), ["out.parquet"]);
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next_on_its_file() {
    let (_folder, at) = folder();
    write_slow(&at("in.parquet"), 60_000);
    let mut killed = start_slowly(&at("in.parquet"), &at("out/out.parquet"));
    wait_for_rows(&at("out"), &mut killed);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let others = [".other.parquet.1-00000000.unfinished", ".out.parquet.notes.unfinished"];
    for other in others {
        std::fs::write(at("out").join(other), "").unwrap();
    }
    let left = files(&at("out"));
    assert!(left.len() > others.len() && !left.contains(&"out.parquet".to_owned()), "{left:?}");
    write(&at("in.parquet"), &pairs(&[("a", "b")]));
    run(at("in.parquet"), at("out/out.parquet")).assert().success();
    assert_eq!(read(&at("out/out.parquet")).num_rows(), 1);
    assert_eq!(files(&at("out")), [others[0], others[1], "out.parquet"]);
}

#[test]
fn runs_with_one_report_leave_it_whole() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &pairs(&[("a", "b")]));
    let start = |place: usize| {
        std::process::Command::new(env!("CARGO_BIN_EXE_rerank"))
            .arg("run")
            .args([at("in.parquet"), at(&format!("out-{place}.parquet"))])
            .args([&model(MODEL), "--quiet", "--report"])
            .arg(at("reports/report.json"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let runs: Vec<Child> = (0..4).map(start).collect();
    for (status, message) in runs.into_iter().map(ended) {
        assert!(status.success(), "{message}");
    }
    let report: Value = serde_json::from_slice(&std::fs::read(at("reports/report.json")).unwrap()).unwrap();
    assert_eq!(report["rows"], 1);
    assert_eq!(files(&at("reports")), ["report.json"]);
}

// Other subcommands.

/// Pairs and scores of the reference library.
fn golden() -> (Vec<(String, String)>, Vec<f32>) {
    let golden: Value = serde_json::from_slice(&std::fs::read(fixture("goldens/xlmr.json")).unwrap()).unwrap();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "default").unwrap();
    (serde_json::from_value(golden["pairs"].clone()).unwrap(), serde_json::from_value(case["scores"].clone()).unwrap())
}

#[test]
fn score_prints_the_reference_scores() {
    let (pairs, expected) = golden();
    let mut by_query: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, (query, _)) in pairs.iter().enumerate() {
        by_query.entry(query).or_default().push(index);
    }
    for query in ["what is panda?", "什么是大熊猫？", "", "  leading and trailing spaces  ", "query\nwith\nnewlines"]
    {
        let indices = &by_query[query];
        let mut command = rerank();
        command.args(["score", &model(MODEL), "--json", "--", query]);
        command.args(indices.iter().map(|index| &pairs[*index].1));
        let printed: Vec<Value> = lines(&mut command).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(printed.len(), indices.len());
        let scores: Vec<f32> = printed.iter().map(|line| line["score"].as_f64().unwrap() as f32).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
        for (line, score) in printed.iter().zip(&scores) {
            let index = indices.iter().find(|index| line["passage"] == pairs[**index].1).unwrap();
            assert!((score - expected[*index]).abs() <= TOLERANCE, "{line} and {}", expected[*index]);
        }
    }
}

#[test]
fn run_writes_the_reference_scores() {
    let (_folder, at) = folder();
    let (rows, expected) = golden();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(query, passage)| (query.as_str(), passage.as_str())).collect();
    write(&at("in.parquet"), &pairs(&rows));
    run(at("in.parquet"), at("out.parquet")).assert().success();
    assert_close(&scores(&read(&at("out.parquet"))), &expected);
}

#[test]
fn score_prints_a_line_for_each_passage() {
    let printed = lines(rerank().args(["score", &model(MODEL), "a", "one\ttwo\nthree", "b"]));
    assert_eq!(printed.len(), 2);
    let passages: Vec<&str> = printed
        .iter()
        .map(|line| {
            let (score, passage) = line.split_once('\t').unwrap();
            score.parse::<f32>().unwrap();
            passage
        })
        .collect();
    assert!(passages.contains(&r"one\ttwo\nthree") && passages.contains(&"b"), "{passages:?}");
}

#[test]
fn json_lines_come_out_as_they_were_with_the_reference_scores() {
    let (pairs, expected) = golden();
    let line = |(index, (query, passage)): (usize, &(String, String))| {
        serde_json::json!({"z": index, "query": query, "passage": passage, "big": 1e300}).to_string()
    };
    let input: Vec<String> = pairs.iter().enumerate().map(line).collect();
    let printed = lines(rerank().args(["score", &model(MODEL), "--jsonl"]).write_stdin(input.join("\n")));
    assert_eq!(printed.len(), input.len());
    for ((line, before), expected) in printed.iter().zip(&input).zip(expected) {
        assert!(line.starts_with(before.strip_suffix('}').unwrap()), "{line}");
        let score = serde_json::from_str::<Value>(line).unwrap()["score"].as_f64().unwrap() as f32;
        assert!((score - expected).abs() <= TOLERANCE, "{line} and {expected}");
    }
}

/// A program that writes a line, reads its answer, and only then writes the next.
#[test]
fn a_json_line_is_answered_while_its_writer_waits() {
    let mut command = std::process::Command::new(rerank().get_program());
    command.args(["score", &model(MODEL), "--jsonl"]).env_remove("RERANK_CONFIG");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, answers) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || output.lines().for_each(|line| sender.send(line.unwrap()).unwrap()));
    for row in 0..20 {
        let line = format!(r#"{{"query": "a", "passage": "passage {row}"}}"#);
        writeln!(input, "{line}").unwrap();
        let Ok(answer) = answers.recv_timeout(Duration::from_mins(2)) else {
            child.kill().unwrap();
            panic!("row {row} has no answer");
        };
        assert!(answer.starts_with(line.trim_end_matches('}')) && answer.contains("\"score\":"), "{answer}");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    reading.join().unwrap();
}

#[test]
fn json_lines_of_full_windows_have_the_same_scores_whatever_the_timing() {
    let input: Vec<String> =
        (0..50).map(|row| format!(r#"{{"query": "query {}", "passage": "passage {row}"}}"#, row % 7)).collect();
    let score = || {
        let mut command = rerank();
        command.args(["score", &model(MODEL), "--jsonl", "--max-delay", "off"]);
        command
    };
    let at_once = lines(score().write_stdin(input.join("\r\n")));
    assert_eq!(at_once.len(), 50);
    let (_folder, at) = folder();
    std::fs::write(at("pairs.jsonl"), input.join("\n\n")).unwrap();
    let mut command = rerank();
    let file = format!("--jsonl={}", at("pairs.jsonl").display());
    assert_eq!(lines(command.args(["score", &model(MODEL), &file, "--max-delay=off"])), at_once);
    rerank().args(["score", "a", "b", "--max-delay", "1s"]).assert().code(2).stderr(contains("cannot be used with"));
    rerank().args(["score", "--jsonl", "--max-delay", "soon"]).assert().code(2).stderr(contains(
        "invalid value 'soon' for '--max-delay <TIME>': expected a time such as 50ms or 1s, a whole number of milliseconds, or off",
    ));
}

#[test]
fn json_lines_fail_one_by_one() {
    let (_folder, at) = folder();
    broken_model(&at("broken"));
    let input = at("pairs.jsonl");
    let rows = [
        r#"{"query": "a", "passage": null}"#,
        "",
        r#"{"query": "a", "passage": "hi"}"#,
        r#"{"query": "a", "passage": "b"}"#,
        r#"{"query": "a"}"#,
        r#"{"query": "a", "passage": "never read"}"#,
    ];
    std::fs::write(&input, rows.join("\n")).unwrap();
    let mut command = rerank();
    command.args(["score", "--model"]).arg(at("broken")).arg(format!("--jsonl={}", input.display()));
    let assert = command.assert().code(1);
    let output = assert.get_output();
    let printed: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(printed.len(), 3);
    assert!(printed[0]["score"].is_null() && printed[0].get("score_error").is_none());
    assert!(printed[1]["score"].is_null() && printed[1]["score_error"].as_str().unwrap().contains("not a number"));
    assert!(printed[2]["score"].is_number());
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = "line 5: there is no passage; a line is an object with query and passage";
    assert_eq!(error, format!("error: {}: {expected}\n", input.display()));

    std::fs::write(&input, rows[..4].join("\n")).unwrap();
    command.assert().success().stderr("1 of 3 pairs could not be scored; the reasons are in score_error\n");
}

#[test]
fn half_an_emoji_fails_its_line_and_nothing_else() {
    let rows = [
        r#"{"query": "a", "passage": "cut \ud83d"}"#,
        r#"{"query": "a", "passage": "b", "note": "cut \udc3c", "n": 1.00}"#,
        r#"{"query": "a", "passage": "whole \ud83d\udc3c"}"#,
    ];
    let assert = rerank().args(["score", &model(MODEL), "--jsonl"]).write_stdin(rows.join("\n")).assert().success();
    let printed = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let printed: Vec<&str> = printed.lines().collect();
    for (line, row) in printed.iter().zip(rows) {
        assert!(line.starts_with(row.strip_suffix('}').unwrap()), "{line}");
    }
    let reason =
        r#","score":null,"score_error":"passage is no text: it holds half of a surrogate pair (\\ud800 to \\udfff)"}"#;
    assert!(printed[0].ends_with(reason), "{}", printed[0]);
    let score = |line: &str| line.rsplit_once(r#","score":"#).unwrap().1.trim_end_matches('}').parse::<f32>();
    assert!(score(printed[1]).is_ok() && score(printed[2]).is_ok() && printed.len() == 3, "{printed:?}");
}

#[test]
fn the_bundled_model_scores_where_none_is_named() {
    let printed = rerank().args(["score", "what is a panda?", "hi", "The giant panda is a bear."]).assert().success();
    let printed = printed.stderr("scored by tiny, the bundled demonstration; name a model with --model\n");
    assert_eq!(String::from_utf8_lossy(&printed.get_output().stdout).lines().count(), 2);
}

#[test]
fn nothing_is_left_in_the_home_of_whoever_scores() {
    let home = tempfile::tempdir().unwrap();
    let mut command = rerank();
    command.env("HOME", home.path()).env_remove("XDG_CACHE_HOME").env_remove("ORT_DISABLE_TELEMETRY");
    command.args(["score", "what is a panda?", "hi"]).assert().success();
    assert_eq!(files(home.path()), Vec::<String>::new());
}

#[test]
fn an_export_scores_the_same() {
    let (_folder, at) = folder();
    let table = many_pairs(50);
    write(&at("in.parquet"), &table);
    rerank().args(["model", "export"]).arg(fixture(MODEL)).arg(at("onnx")).assert().success().stdout("");
    assert!(at("onnx/model.onnx").is_file());
    rerank()
        .arg("run")
        .args([at("in.parquet"), at("out.parquet")])
        .arg(format!("--model=exported={}", at("onnx").display()))
        .assert()
        .success();
    assert_close(&scores(&read(&at("out.parquet"))), &library_scores(&table));

    let mut again = rerank();
    again.args(["model", "export"]).arg(fixture(MODEL)).arg(at("onnx"));
    assert_fails(again, "exists already");
    let mut layers = rerank();
    layers.args(["model", "export"]).arg(fixture(MODEL)).arg(at("other")).args(["--cutoff-layers", "3"]);
    assert_fails(layers, "option cutoff_layers: m3 models do not have it");
    assert!(files(&at(".")).iter().all(|file| !file.contains("unfinished")), "{:?}", files(&at(".")));
}

#[test]
fn inspect_says_what_a_checkpoint_is() {
    let printed = lines(rerank().args(["model", "inspect"]).arg(fixture("tiny-gemma-reranker")));
    assert!(printed.iter().any(|line| line.starts_with("family\tgemma\t")), "{printed:?}");
    assert!(printed.iter().any(|line| line.starts_with("file\tmodel.safetensors\t")), "{printed:?}");
    let memory =
        "memory\t0.6 GB on a GPU in 16 bits (estimate): weights 0.0, batches of 16384 tokens 0.0, the rest is CUDA's";
    assert!(printed.iter().any(|line| line == memory), "{printed:?}");
    let work = |options: &[&str]| {
        let printed =
            lines(rerank().args(["model", "inspect"]).arg(fixture("tiny-gemma2-lightweight-reranker")).args(options));
        assert!(printed.contains(&"cutoff layers\t2 to 8".to_owned()), "{printed:?}");
        assert!(printed.contains(&"layers\t8 of width 48, MLP 96, 4 heads of 16 (2 for keys and values)".to_owned()));
        printed.into_iter().find(|line| line.starts_with("work\t")).unwrap()
    };
    assert_ne!(work(&[]), work(&["--cutoff-layers", "4"]));
    let parameters = lines(rerank().args(["model", "inspect"]).arg(fixture("tiny-xlmr-reranker")));
    assert!(parameters.iter().any(|line| line.starts_with("parameters\t128209\t")));
    let mut missing = rerank();
    missing.args(["model", "inspect", "no/such/dir"]);
    assert_fails(missing, "no/such/dir");
}

#[test]
fn inspect_accounts_for_everything() {
    let mut command = rerank();
    command.args(["model", "inspect"]).arg(fixture("tiny-gemma-reranker"));
    let printed = lines(command.arg("--adapter").arg(fixture("adapters/gemma_q_v")));
    let has = |start: &str, part: &str| printed.iter().any(|line| line.starts_with(start) && line.contains(part));
    assert!(has("file\tmodel.safetensors\t", "\tused"), "{printed:#?}");
    assert!(has("file\tspecial_tokens_map.json\t94 B\tignored (", "transformers does not read it"), "{printed:#?}");
    assert!(has("adapter file\tadapter_model.safetensors\t", "\tused"), "{printed:#?}");
    assert!(has("config.json\tused\t", "rope_theta"), "{printed:#?}");
    assert!(has("config.json\tignored (training only)\t", "attention_dropout"), "{printed:#?}");
    assert!(has("model.safetensors\tused\t", "model.layers.*.mlp.up_proj.weight (4)"), "{printed:#?}");
    assert!(has("adapter_model.safetensors\tused\t", "self_attn.v_proj.lora_B.weight (4)"), "{printed:#?}");
}

#[test]
fn an_adapter_is_applied_by_every_command() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &many_pairs(20));
    let adapter = fixture("adapters/m3_query_value").display().to_string();
    let options = datafusion_rerank::ScoreOptions::default().with_adapter(&adapter);
    let reranker = open(MODEL).with_options(&options).unwrap();
    let table = read(&at("in.parquet"));
    let column = |name: &str| table.column_by_name(name).unwrap();
    let expected = reranker.score(column("query").as_ref(), column("passage").as_ref()).unwrap();
    assert!(largest_difference(expected.values(), &library_scores(&table)) > 1.0);

    run(at("in.parquet"), at("out.parquet")).args(["--adapter", &adapter]).assert().success();
    assert_close(&scores(&read(&at("out.parquet"))), expected.values());
    let cached = |arguments: &[&str]| {
        let mut command = rerank();
        command.env("RERANK_CACHE", at("cache")).args(arguments);
        command
    };
    cached(&["score", &model(MODEL), "--adapter", &adapter, "a", "b"]).assert().success();
    let removed = lines(&mut cached(&["model", "prune", "--dry-run"]));
    assert!(removed.iter().any(|line| line.contains(&format!(" with the adapter {adapter}\t"))), "{removed:?}");
    let listed: Value = serde_json::from_str(&lines(&mut cached(&["model", "list", "--json"])).concat()).unwrap();
    assert_eq!(listed["other_weights"][0]["adapter"], Value::from(adapter.as_str()), "{listed}");

    let sql = format!(
        "SELECT rerank(query, passage, 'm3', {{'adapter': '{adapter}'}}) AS score FROM '{}'",
        at("in.parquet").display()
    );
    let printed = lines(
        rerank()
            .args(["sql", "--format", "csv", "--model"])
            .arg(format!("m3={}", fixture(MODEL).display()))
            .args(["-c", &sql]),
    );
    let printed: Vec<f32> = printed[1..].iter().map(|score| score.parse().unwrap()).collect();
    assert_close(&printed, expected.values());
}

#[test]
fn the_bundled_table_is_scored() {
    let (_folder, at) = folder();
    run(fixture("xquad.parquet"), at("out.parquet")).assert().success();
    let scored = read(&at("out.parquet"));
    assert_eq!(scored.num_rows(), 1200);
    let relevant = scored.column_by_name("relevant").unwrap().as_boolean();
    assert_eq!(relevant.true_count(), 400);
    let scores: &Float32Array = scored.column_by_name("score").unwrap().as_primitive();
    assert!(scores.iter().all(|score| score.is_some_and(f32::is_finite)));
}
