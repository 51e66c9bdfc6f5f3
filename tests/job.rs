//! Resumable jobs: units, commits, and the state after failures.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int32Array, Int64Array, RecordBatch, RunArray, StringArray, UnionArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Schema};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::FileWriter;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;

use crate::support::tables::{all_kinds, many_pairs, numbered, pairs, read, scores, write, write_groups};
use crate::support::{
    assert_fails, broken_model, damage, data_files, files, fixture, folder, ids, input_of, job, output_rows, rerank,
    run, write_inputs,
};

/// Starts a slow job.
fn start(input: &Path, output: &Path) -> Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_rerank"))
        .arg("run")
        .args([input, output])
        .arg(format!("--model={}", fixture("tiny-xlmr-reranker").display()))
        .args(["--unit-rows=200", "--window-rows=64", "--batch-tokens=64", "--threads=1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The markers of the units that are done.
fn markers(output: &Path) -> Vec<Value> {
    let folder = output.join("_rerank/units");
    let finished = files(&folder).into_iter().filter(|name| !name.contains('#'));
    finished.map(|name| serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()).collect()
}

/// Waits until this many units are done.
fn wait_for_units(output: &Path, units: usize, child: &mut Child) {
    let start = Instant::now();
    while markers(output).len() < units {
        assert!(child.try_wait().unwrap().is_none(), "the job ended before {units} units were done");
        assert!(start.elapsed() < Duration::from_mins(1), "no {units} units in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The files of a folder, without the records, which contain times.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let names = files(folder).into_iter().filter(|name| !name.starts_with("_rerank/"));
    names.map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
}

#[track_caller]
fn assert_nothing_unfinished(output: &Path) {
    let unfinished: Vec<_> =
        files(output).into_iter().filter(|name| name.contains('#') || name.starts_with("_rerank/tmp/")).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

// Units.

#[test]
fn units_are_row_groups_and_keep_the_order() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("out")).assert().success();
    let inputs: Vec<String> = data_files(&at("out")).iter().map(|name| input_of(name)).collect();
    assert_eq!(inputs, ["a", "a", "a", "deep/b", "deep/b", "empty"]);
    let rows: Vec<usize> = data_files(&at("out")).iter().map(|name| read(&at("out").join(name)).num_rows()).collect();
    assert_eq!(rows, [200, 200, 100, 200, 100, 0]);
    assert_eq!(ids(&output_rows(&at("out"))), (0..800).collect::<Vec<_>>());

    let markers = markers(&at("out"));
    assert_eq!(markers.len(), 6);
    for marker in &markers {
        let file = at("out").join(marker["output"].as_str().unwrap());
        assert_eq!(marker["size_bytes"], std::fs::metadata(&file).unwrap().len(), "{marker}");
        assert_eq!(marker["rows"], read(&file).num_rows() as u64, "{marker}");
        assert!(marker["etag"].is_string() && marker["seconds"].is_f64() && marker["finished"].is_string());
    }
    let sum = |key: &str| markers.iter().map(|marker| marker[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("rows"), sum("pairs"), sum("truncated")), (800, 800, 0));
    assert!(sum("tokens") > 800);
    assert_nothing_unfinished(&at("out"));
}

#[test]
fn the_scores_of_a_unit_do_not_depend_on_the_others() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("out")).assert().success();
    job(&at("in/deep/b.parquet"), &at("alone")).assert().success();
    let of_b = |folder: &str| {
        let names = data_files(&at(folder)).into_iter().filter(|name| name.contains("b-0000"));
        names.map(|name| std::fs::read(at(folder).join(name)).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of_b("out").len(), 2);
    assert!(of_b("out") == of_b("alone"), "the bytes differ");
}

#[test]
fn one_file_may_be_a_job_too() {
    let (_folder, at) = folder();
    write_groups(&at("in.parquet"), &numbered(0, 500), 100);
    job(&at("in.parquet"), &at("out")).assert().success();
    assert_eq!(ids(&output_rows(&at("out"))), (0..500).collect::<Vec<_>>());
    run(at("in.parquet"), at("one.parquet")).args(["--window-rows", "100"]).assert().success();
    assert_eq!(ids(&read(&at("one.parquet"))), (0..500).collect::<Vec<_>>());
}

// Resuming.

#[test]
fn a_killed_job_goes_on_where_it_was() {
    let (_folder, at) = folder();
    write_groups(&at("in/a.parquet"), &numbered(0, 2000), 100);
    write_groups(&at("in/b.parquet"), &numbered(2000, 900), 100);
    let undisturbed = start(&at("in"), &at("undisturbed")).wait_with_output().unwrap();
    assert!(undisturbed.status.success(), "{undisturbed:?}");

    for units in [1, 4, 9] {
        let mut child = start(&at("in"), &at("out"));
        wait_for_units(&at("out"), units, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        // Files that readers see are complete at any time.
        for name in data_files(&at("out")) {
            read(&at("out").join(name));
        }
    }
    // The leftovers of a run that was killed while it was writing.
    std::fs::create_dir_all(at("out/_rerank/tmp")).unwrap();
    for name in ["_rerank/tmp/0123456789abcdef-77.parquet#1", "_rerank/units/0123456789abcdef.json#1"] {
        std::fs::write(at("out").join(name), "half").unwrap();
    }
    let modified = |name: &str| std::fs::metadata(at("out").join(name)).unwrap().modified().unwrap();
    let done: Vec<String> =
        markers(&at("out")).iter().map(|marker| marker["output"].as_str().unwrap().to_owned()).collect();
    let before: Vec<_> = done.iter().map(|name| modified(name)).collect();

    let last = start(&at("in"), &at("out")).wait_with_output().unwrap();
    assert!(last.status.success(), "{last:?}");
    let note = format!("{} of 15 units committed already", done.len());
    assert!(String::from_utf8_lossy(&last.stderr).contains(&note), "{last:?}");
    assert_eq!(done.iter().map(|name| modified(name)).collect::<Vec<_>>(), before, "a unit was done again");
    assert_eq!(ids(&output_rows(&at("out"))), (0..2900).collect::<Vec<_>>());
    assert!(content(&at("out")) == content(&at("undisturbed")), "the output is not that of an undisturbed run");
    assert_nothing_unfinished(&at("out"));
}

#[test]
#[cfg(unix)]
fn an_interrupted_job_says_how_to_go_on() {
    let (_folder, at) = folder();
    write_groups(&at("in/a.parquet"), &numbered(0, 3000), 100);
    let mut child = start(&at("in"), &at("out"));
    wait_for_units(&at("out"), 2, &mut child);
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let message = String::from_utf8(ended.stderr).unwrap();
    let done = markers(&at("out")).len();
    let expected =
        format!("error: interrupted; {done} of 15 units are committed; run the same command again to resume");
    assert_eq!(message.lines().last(), Some(expected.as_str()), "{message}");
    assert_eq!(data_files(&at("out")).len(), done);
    assert!(files(&at("out")).iter().all(|name| !name.contains("failed")), "being interrupted is no failure");
    assert_nothing_unfinished(&at("out"));
    assert!(start(&at("in"), &at("out")).wait().unwrap().success());
    assert_eq!(ids(&output_rows(&at("out"))), (0..3000).collect::<Vec<_>>());
}

#[test]
fn a_job_that_is_done_is_left_alone() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("out")).assert().success();
    let before = content(&at("out"));
    job(&at("in"), &at("out")).assert().success().stderr(contains("6 of 6 units committed already"));
    assert!(content(&at("out")) == before);

    // A unit whose file is missing or truncated is repeated, and no other.
    let names = data_files(&at("out"));
    std::fs::remove_file(at("out").join(&names[0])).unwrap();
    std::fs::write(at("out").join(&names[3]), "cut").unwrap();
    std::fs::write(at("out/_rerank/units").join(&files(&at("out/_rerank/units"))[0]), "{").unwrap();
    job(&at("in"), &at("out")).assert().success().stderr(contains("of 6 units committed already"));
    assert!(content(&at("out")) == before);
}

#[test]
fn two_processes_may_work_on_one_job() {
    let (_folder, at) = folder();
    write_groups(&at("in/a.parquet"), &numbered(0, 2000), 100);
    let children = [start(&at("in"), &at("out")), start(&at("in"), &at("out"))];
    for child in children {
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(ids(&output_rows(&at("out"))), (0..2000).collect::<Vec<_>>());
    assert_eq!(data_files(&at("out")).len(), 10);
    assert_nothing_unfinished(&at("out"));
}

// A different job.

#[test]
fn another_job_is_refused_until_it_may_start_over() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("out")).assert().success();
    let before = content(&at("out"));
    let changed = |arguments: &[&str], expected: &str| {
        let mut command = job(&at("in"), &at("out"));
        command.args(arguments);
        assert_fails(command, expected);
        assert!(content(&at("out")) == before, "{arguments:?} changed something");
    };
    let remedy = "pass --restart to delete that job's files and start over";
    changed(&["--max-length", "16"], remedy);
    changed(&["--max-length", "16"], r#"the set of model options was {} and is {"max_length":16} now"#);
    changed(&["--query", "passage", "--passage", "query"], "--query was query and is passage now");
    changed(&["--on-error", "null"], "--on-error was fail and is null now");
    changed(&["--compression", "none"], "--compression was zstd and is none now");
    changed(&["--option", "normalize=true"], "the set of model options was");
    changed(&["--overwrite", "--score", "s"], "--score was score and is s now");

    // Execution settings may change.
    job(&at("in"), &at("out")).args(["--threads", "1", "--batch-tokens", "99"]).assert().success();

    write(&at("in/c.parquet"), &numbered(900, 5));
    assert_fails(job(&at("in"), &at("out")), "the input c.parquet is new; pass --restart");
    std::fs::remove_file(at("in/c.parquet")).unwrap();
    std::fs::rename(at("in/deep/b.parquet"), at("b")).unwrap();
    assert_fails(job(&at("in"), &at("out")), "the input deep/b.parquet is gone; pass --restart");
    write_groups(&at("in/deep/b.parquet"), &numbered(600, 250), 100);
    assert_fails(job(&at("in"), &at("out")), "the input deep/b.parquet was changed (");
    assert!(content(&at("out")) == before);

    std::fs::write(at("out/mine.txt"), "kept").unwrap();
    std::fs::write(at("out/_rerank/mine.txt"), "kept").unwrap();
    job(&at("in"), &at("out")).args(["--restart", "--max-length", "16"]).assert().success();
    for name in ["mine.txt", "_rerank/mine.txt"] {
        assert_eq!(std::fs::read(at("out").join(name)).unwrap(), b"kept", "{name} is not this job's");
        std::fs::remove_file(at("out").join(name)).unwrap();
    }
    assert!(content(&at("out")).iter().all(|file| !before.contains(file)), "a file of the old job is left");
    assert_eq!(ids(&output_rows(&at("out"))), (0..500).chain(600..850).collect::<Vec<_>>());
}

#[test]
fn another_model_is_refused_and_a_copy_is_not() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("out")).assert().success();
    let with = |model: &Path| {
        let mut command = rerank();
        command.arg("run").args([at("in"), at("out")]).args(["--unit-rows", "200", "--model"]).arg(model);
        command
    };
    crate::support::copy("tiny-xlmr-reranker", &at("copy"));
    with(&at("copy")).assert().success().stderr(contains("6 of 6 units"));
    broken_model(&at("broken"));
    assert_fails(with(&at("broken")), "the model is another (m3 ");
    assert_fails(with(&fixture("tiny-gemma-reranker")), "the model is another (m3 ");
}

#[test]
fn another_adapter_is_refused_and_a_copy_is_not() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let with = |output: &str, sql: &[&str]| {
        let mut command = rerank();
        command.arg("run").args([at("in"), at(output)]).args(["--unit-rows", "200"]);
        command.arg(format!("--model=m3={}", fixture("tiny-xlmr-reranker").display())).args(sql);
        command
    };
    let adapter = at("adapter").display().to_string();
    let query = format!("SELECT *, rerank(query, passage, 'm3', {{'adapter': '{adapter}'}}) AS s FROM input");
    let calls: [(&str, Vec<&str>); 2] = [("out", vec!["--adapter", &adapter]), ("sql", vec!["--sql", &query])];
    for name in ["m3_query_value", "m3_dora"] {
        crate::support::copy(&format!("adapters/{name}"), &at("adapter"));
        for (output, arguments) in &calls {
            if name == "m3_query_value" {
                with(output, arguments).assert().success();
                with(output, arguments).assert().success().stderr(contains("6 of 6 units"));
                if *output == "out" {
                    // The same files in another place.
                    let copy = fixture("adapters/m3_query_value").display().to_string();
                    with(output, &["--adapter", &copy]).assert().success().stderr(contains("6 of 6 units"));
                }
            } else {
                assert_fails(with(output, arguments), "the model is another (m3 ");
            }
        }
    }
}

#[test]
fn a_directory_with_other_files_is_refused() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    write(&at("out/other.parquet"), &many_pairs(3));
    assert_fails(job(&at("in"), &at("out")), "has files of something else in it (");
    assert_eq!(files(&at("out")), ["other.parquet"]);
    job(&at("in"), &at("out")).arg("--overwrite").assert().success();
    assert_eq!(read(&at("out/other.parquet")).num_rows(), 3);
    assert_eq!(data_files(&at("out")).len(), 7);
}

// Status.

#[test]
fn status_tells_how_far_a_job_is() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    std::fs::rename(at("in/deep/b.parquet"), at("good")).unwrap();
    // The pages are noise, but the footer is intact.
    std::fs::copy(at("good"), at("in/deep/b.parquet")).unwrap();
    damage(&at("in/deep/b.parquet"));
    let status = |arguments: &[&str]| {
        let mut command = rerank();
        command.arg("status").arg(at("out")).args(arguments);
        command
    };
    assert_fails(status(&[]), "holds no job");
    assert!(!at("out").exists());

    assert_fails(job(&at("in"), &at("out")), "deep/b.parquet");
    let before = files(&at("out"));
    let json = status(&["--json"]).assert().success().get_output().stdout.clone();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["units"], &json["units_failed"]), (&6.into(), &1.into()), "{json}");
    let done = json["units_done"].as_u64().unwrap();
    assert_eq!(json["units_left"], 5 - done);
    assert_eq!(json["rows"], 800);
    let reason = json["failures"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("deep/b.parquet"), "{reason}");
    status(&[]).assert().success().stdout(contains("failed\tunit ").and(contains("of 6 done")));
    assert_eq!(files(&at("out")), before, "status touched the job");

    // The size and age of an input show that it changed, unless they are made equal.
    let time = std::fs::metadata(at("in/deep/b.parquet")).unwrap().modified().unwrap();
    std::fs::copy(at("good"), at("in/deep/b.parquet")).unwrap();
    File::options().write(true).open(at("in/deep/b.parquet")).unwrap().set_modified(time).unwrap();
    job(&at("in"), &at("out")).assert().success();
    let expected = contains("6 of 6 done, 0 left, 0 failed").and(contains("rows\t800 of 800 done"));
    status(&[]).assert().success().stdout(expected);
    assert_eq!(files(&at("out/_rerank/failed")), Vec::<String>::new());
}

// Input and output formats.

/// An Arrow IPC file with batches of this many rows.
fn write_arrow(path: &Path, table: &RecordBatch, rows: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = FileWriter::try_new(File::create(path).unwrap(), &table.schema()).unwrap();
    for start in (0..table.num_rows()).step_by(rows) {
        writer.write(&table.slice(start, rows.min(table.num_rows() - start))).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn arrow_files_are_read_like_parquet() {
    let (_folder, at) = folder();
    write_arrow(&at("in/a.arrow"), &numbered(0, 500), 100);
    write_arrow(&at("in/b.feather"), &numbered(500, 150), 150);
    write_groups(&at("in/c.parquet"), &numbered(650, 100), 100);
    job(&at("in"), &at("out")).assert().success();
    assert_eq!(ids(&output_rows(&at("out"))), (0..750).collect::<Vec<_>>());
    let rows: Vec<usize> = data_files(&at("out")).iter().map(|name| read(&at("out").join(name)).num_rows()).collect();
    assert_eq!(rows, [200, 200, 100, 150, 100]);

    // Equal windows have equal scores.
    write_groups(&at("same.parquet"), &numbered(0, 500), 100);
    job(&at("same.parquet"), &at("same")).assert().success();
    let of_a: Vec<_> = data_files(&at("out")).into_iter().filter(|name| name.starts_with("a-")).collect();
    for (arrow, parquet) in of_a.iter().zip(data_files(&at("same"))) {
        assert_eq!(scores(&read(&at("out").join(arrow))), scores(&read(&at("same").join(parquet))));
    }
    write_arrow(&at("kinds.arrow"), &all_kinds(), 5);
    run(at("kinds.arrow"), at("kinds")).assert().success();
    let (table, scored) = (all_kinds(), output_rows(&at("kinds")));
    assert_eq!(scored.columns()[..table.num_columns()], *table.columns());
    assert_eq!(scored.schema().fields()[..table.num_columns()], table.schema().fields()[..]);
    assert_eq!(scored.schema().metadata(), table.schema().metadata());

    std::fs::write(at("stream.arrow"), "this is no Arrow file, nor anything else").unwrap();
    assert_fails(run(at("stream.arrow"), at("x.parquet")), "stream.arrow as an Arrow IPC file");
}

#[test]
fn every_kind_of_column_passes_through_a_job() {
    let (_folder, at) = folder();
    let table = all_kinds();
    write_groups(&at("in.parquet"), &table, 2);
    run(at("in.parquet"), at("out")).args(["--unit-rows", "2", "--window-rows", "1"]).assert().success();
    let (input, scored) = (read(&at("in.parquet")), output_rows(&at("out")));
    assert_eq!(data_files(&at("out")).len(), 3);
    assert_eq!(scored.columns()[..table.num_columns()], *input.columns());
    assert_eq!(scored.schema().fields()[..table.num_columns()], table.schema().fields()[..]);
    assert_eq!(scored.schema().metadata(), input.schema().metadata());
}

#[test]
fn files_with_other_columns_are_refused_before_any_work() {
    let (_folder, at) = folder();
    write(&at("in/a.parquet"), &numbered(0, 10));
    let other = numbered(0, 10);
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["x"; 10]));
    let columns = [("id", ids), ("query", Arc::clone(other.column(1))), ("passage", Arc::clone(other.column(2)))];
    write(&at("in/b.parquet"), &RecordBatch::try_from_iter(columns).unwrap());
    assert_fails(job(&at("in"), &at("out")), "in/a.parquet: column 'id' is of type Utf8 here and Int64 there");
    write(&at("in/b.parquet"), &many_pairs(10));
    assert_fails(job(&at("in"), &at("out")), "in/a.parquet: column 'id' is missing here");
    assert!(!at("out").exists());
}

#[test]
fn columns_that_cannot_be_written_are_refused_before_any_work() {
    let (_folder, at) = folder();
    let ends = Int32Array::from(vec![2, 3]);
    let runs = RunArray::<Int32Type>::try_new(&ends, &StringArray::from(vec!["x", "y"])).unwrap();
    let union = UnionArray::try_new(
        [(0, Arc::new(Field::new("a", DataType::Int64, false)))].into_iter().collect(),
        vec![0, 0, 0].into(),
        None,
        vec![Arc::new(Int64Array::from(vec![1, 2, 3]))],
    )
    .unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let with = |column: ArrayRef| {
        let columns = [("query", Arc::clone(&text)), ("passage", Arc::clone(&text)), ("odd", column)];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    write_arrow(&at("union.arrow"), &with(Arc::new(union)), 3);
    assert_fails(run(at("union.arrow"), at("out")), "column 'odd' is a union, which Parquet does not have");
    assert!(!at("out").exists());
    // Arrow output supports all types of Arrow input.
    run(at("union.arrow"), at("scored.arrow")).assert().success();
    write_arrow(&at("runs.arrow"), &with(Arc::new(runs)), 3);
    run(at("runs.arrow"), at("runs scored.arrow")).assert().success();
    let mut reader = FileReader::try_new(File::open(at("runs scored.arrow")).unwrap(), None).unwrap();
    assert!(matches!(reader.next().unwrap().unwrap().column(2).data_type(), DataType::RunEndEncoded(..)));
}

#[test]
fn failed_rows_are_counted_by_reason() {
    let (_folder, at) = folder();
    broken_model(&at("broken"));
    write_groups(&at("in.parquet"), &pairs(&[("a", "b"), ("a", "hi"), ("c", "d"), ("b", "hi"), ("c", "hi")]), 2);
    let mut command = rerank();
    command.arg("run").args([at("in.parquet"), at("out")]).arg("--model").arg(at("broken"));
    command.args(["--unit-rows", "2", "--on-error", "null", "--report"]).arg(at("report.json"));
    command.assert().success().stderr(contains("3 errors: the score is not a number"));
    let scored = output_rows(&at("out"));
    let failed: Vec<bool> = (0..5).map(|row| scored.column_by_name("score").unwrap().is_null(row)).collect();
    assert_eq!(failed, [false, true, false, true, true]);

    let count = |value: &Value| {
        let reasons = value.as_object().unwrap();
        assert!(reasons.keys().all(|reason| reason.contains("not a number")), "{reasons:?}");
        reasons.values().map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(markers(&at("out")).iter().map(|marker| count(&marker["errors"])).sum::<u64>(), 3);
    let report: Value = serde_json::from_slice(&std::fs::read(at("report.json")).unwrap()).unwrap();
    assert_eq!((count(&report["errors_by_reason"]), &report["job"]["units"]), (3, &3.into()));
    let status = rerank().arg("status").arg(at("out")).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(status).unwrap().contains("error\t3 rows with: the score is not a number"));
}

#[test]
fn arrow_files_and_streams_are_written() {
    let (_folder, at) = folder();
    let all = all_kinds();
    let plain: Vec<usize> = (0..all.num_columns())
        .filter(|column| !matches!(all.column(*column).data_type(), DataType::Dictionary(..)))
        .collect();
    let rest = all.project(&plain).unwrap();
    let query: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"]));
    let mut fields = rest.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("query", DataType::Utf8, false)));
    let schema = Schema::new_with_metadata(fields, rest.schema().metadata().clone());
    let columns = rest.columns().iter().cloned().chain([query]).collect();
    let plain = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    write(&at("plain.parquet"), &plain);
    write(&at("all.parquet"), &all);

    let with = |input: &str, output: &str| {
        let mut command = run(at(input), at(output));
        command.args(["--window-rows", "2"]);
        command
    };
    let check = |table: &RecordBatch, scored: RecordBatch, batches: usize| {
        assert_eq!((scored.num_rows(), batches), (5, 3));
        assert_eq!(scored.columns()[..table.num_columns()], *table.columns());
        assert_eq!(scored.schema().fields()[..table.num_columns()], table.schema().fields()[..]);
        assert_eq!(scored.schema().metadata(), table.schema().metadata());
        assert_eq!(scored.column_by_name("score").unwrap().data_type(), &DataType::Float32);
    };
    for compression in ["zstd", "none"] {
        let output = at(&format!("{compression}.arrow"));
        with("plain.parquet", output.to_str().unwrap()).args(["--compression", compression]).assert().success();
        let reader = FileReader::try_new(File::open(output).unwrap(), None).unwrap();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        check(&plain, concat_batches(&batches[0].schema(), &batches).unwrap(), batches.len());
    }
    with("all.parquet", "out.arrows").assert().success();
    let reader = StreamReader::try_new(File::open(at("out.arrows")).unwrap(), None).unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    check(&all, concat_batches(&batches[0].schema(), &batches).unwrap(), batches.len());

    assert_fails(with("all.parquet", "out.arrow"), "column 'query' is dictionary-encoded");
    let mut snappy = with("plain.parquet", "out.feather");
    snappy.args(["--compression", "snappy"]);
    assert_fails(snappy, "pass --compression zstd or none");
    assert!(!at("out.feather").exists() && !at("out.arrow").exists());
}

/// With this little memory, the first batches really fail, on the CPU as they would on a GPU.
#[test]
#[cfg(target_os = "linux")]
fn batches_that_do_not_fit_are_halved() {
    const MEMORY_KIB: u64 = 1_500_000;
    let (_folder, at) = folder();
    let table = read(&fixture("xquad.parquet")).slice(0, 400);
    write(&at("in.parquet"), &table);
    run(at("in.parquet"), at("plain.parquet")).assert().success();
    let mut limited = assert_cmd::Command::new("sh");
    limited.args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_rerank"), "run"]);
    limited.args([at("in.parquet"), at("limited.parquet")]);
    limited.arg(format!("--model={}", fixture("tiny-xlmr-reranker").display()));
    limited.args(["--batch-tokens=1000000", "--threads=2"]);
    // Each thread takes address space.
    for variable in ["MALLOC_ARENA_MAX", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS"] {
        limited.env(variable, "2");
    }
    limited
        .env_remove("RUST_LOG")
        .assert()
        .success()
        .stderr(contains("the device ran out of memory; batches are halved").and(contains("scored 400 pairs")));
    let (plain, limited) = (scores(&read(&at("plain.parquet"))), scores(&read(&at("limited.parquet"))));
    for (row, (a, b)) in plain.iter().zip(&limited).enumerate() {
        assert!((a - b).abs() < 5e-5, "row {row}: {a} and {b}");
    }
}

// Output for users.

#[test]
fn a_dry_run_estimates_and_writes_nothing() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let dry = |output: &str| {
        let mut command = job(&at("in"), &at(output));
        command.arg("--dry-run");
        String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
    };
    let printed = dry("out");
    assert!(!at("out").exists());
    let line = |name: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(&format!("{name}\t")));
        line.unwrap_or_else(|| panic!("no {name} in {printed}")).to_owned()
    };
    assert_eq!(line("units"), "6 of 6 to do");
    assert!(line("rows").starts_with("800 to do, "), "{printed}");
    assert!(line("tokens").ends_with("(800 rows sampled)"), "{printed}");
    assert!(line("rate").contains("rows/s") && line("time").starts_with("about "), "{printed}");

    // For an unfinished job, it reports what is left, and it refuses what the run would refuse.
    job(&at("in"), &at("out")).assert().success();
    std::fs::remove_file(at("out").join(&data_files(&at("out"))[0])).unwrap();
    let before = files(&at("out"));
    assert!(dry("out").starts_with("units\t1 of 6 to do\nrows\t200 to do"));
    let mut other = job(&at("in"), &at("out"));
    other.args(["--dry-run", "--max-length", "16"]);
    assert_fails(other, "pass --restart");
    assert_eq!(files(&at("out")), before);

    let printed = run(at("in/a.parquet"), at("a.parquet")).arg("--dry-run").assert().success().get_output().clone();
    assert!(String::from_utf8(printed.stdout).unwrap().starts_with("units\t1 of 1 to do\nrows\t500 to do"));
    assert!(!at("a.parquet").exists());
}

#[test]
fn a_report_covers_the_job_and_may_be_a_page() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("out")).assert().success();
    std::fs::remove_file(at("out").join(&data_files(&at("out"))[0])).unwrap();
    job(&at("in"), &at("out")).arg("--report").arg(at("report.html")).assert().success();
    let report: Value = serde_json::from_slice(&std::fs::read(at("report.json")).unwrap()).unwrap();
    assert_eq!((&report["files"], &report["rows"]), (&1.into(), &200.into()));
    assert_eq!(
        (&report["job"]["units"], &report["job"]["units_before"], &report["job"]["rows"]),
        (&6.into(), &5.into(), &800.into())
    );
    let sum = |histogram: &str, value: fn(&Value) -> f64| {
        report[histogram].as_array().unwrap().iter().map(value).sum::<f64>().round()
    };
    assert_eq!(sum("score_histogram", |bin| bin["count"].as_f64().unwrap()), 800.0);
    assert_eq!(sum("token_histogram", |bin| bin["count"].as_f64().unwrap()), 800.0);
    let pairs = sum("throughput", |bin| {
        let number = |key: &str| bin[key].as_f64().unwrap();
        number("pairs_per_second") * (number("end_seconds") - number("start_seconds"))
    });
    assert_eq!(pairs, 200.0);

    let page = std::fs::read_to_string(at("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3, "{page}");
    assert!(page.contains("200 rows in 1 file") && page.contains("5 units with 600 rows had been committed before"));
    assert!(!page.contains("http"), "the page refers to something else");
}

// Failures.

#[test]
fn committed_units_survive_a_damaged_input() {
    let (_folder, at) = folder();
    write_groups(&at("in/a.parquet"), &numbered(0, 2000), 100);
    write_groups(&at("in/b.parquet"), &numbered(2000, 500), 100);
    damage(&at("in/b.parquet"));
    assert_fails(job(&at("in"), &at("out")), "cannot read ");
    let done = markers(&at("out"));
    assert!(!done.is_empty() && done.iter().all(|marker| marker["input"] == "a.parquet"), "{done:?}");
    assert_eq!(data_files(&at("out")).len(), done.len());
    assert_nothing_unfinished(&at("out"));
}

#[test]
fn an_input_that_vanishes_is_one_line() {
    let (_folder, at) = folder();
    write_groups(&at("in/a.parquet"), &numbered(0, 3000), 100);
    write_groups(&at("in/b.parquet"), &numbered(3000, 500), 100);
    let mut child = start(&at("in"), &at("out"));
    wait_for_units(&at("out"), 1, &mut child);
    std::fs::rename(at("in/b.parquet"), at("b.parquet")).unwrap();
    let ended = child.wait_with_output().unwrap();
    let message = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{message}");
    let error = message.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>();
    assert!(error.len() == 1 && error[0].contains("in/b.parquet") && error[0].contains("No such file"), "{message}");
    assert!(data_files(&at("out")).len() >= 14, "the units of the other input are kept");

    assert_fails(job(&at("in"), &at("out")), "the input b.parquet is gone; pass --restart");
    std::fs::rename(at("b.parquet"), at("in/b.parquet")).unwrap();
    assert!(start(&at("in"), &at("out")).wait().unwrap().success());
    assert_eq!(ids(&output_rows(&at("out"))), (0..3500).collect::<Vec<_>>());
}

#[test]
fn what_a_killed_run_left_beside_its_file_is_deleted() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &numbered(0, 10));
    for name in ["out.parquet#1", "out.parquet#12", "out.parquet#x", "other.parquet#1"] {
        std::fs::write(at(name), "half").unwrap();
    }
    run(at("in.parquet"), at("out.parquet")).assert().success();
    assert_eq!(files(&at(".")), ["in.parquet", "other.parquet#1", "out.parquet", "out.parquet#x"]);
}

#[test]
fn an_output_that_cannot_be_written_is_one_line() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    // Directories cannot be made below a file.
    std::fs::write(at("file"), "").unwrap();
    assert_fails(job(&at("in"), &at("file/out")), "file/out");
    assert_fails(job(&at("in"), &at("file")), "is a file; name a directory");
    assert_eq!(std::fs::read(at("file")).unwrap(), b"");
}

/// A file system of 1 MiB, removed on drop; `None` if this process may not mount one.
#[cfg(target_os = "linux")]
struct SmallDisk<'a>(&'a Path);

#[cfg(target_os = "linux")]
impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let mut command = std::process::Command::new("mount");
        let mounted = command.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg(self.0).status());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_one_line_and_committed_units_are_kept() {
    let (_folder, at) = folder();
    let disk = at("disk");
    let Some(_disk) = SmallDisk::mount(&disk) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let table = numbered(0, 600);
    let noise = (0..600_i64).map(|i| (i * 7_919 + 17).wrapping_mul(6_364_136_223_846_793_005));
    let noise = noise.map(|seed| {
        (0..1000_i64).map(|i| char::from(33 + (seed.wrapping_mul(i * 31 + 7) >> 32 & 63) as u8)).collect::<String>()
    });
    let columns = ["id", "query", "passage"].map(|name| (name, Arc::clone(table.column_by_name(name).unwrap())));
    let noise: ArrayRef = Arc::new(StringArray::from_iter_values(noise));
    let table = RecordBatch::try_from_iter(columns.into_iter().chain([("noise", noise)])).unwrap();
    write_groups(&at("in/a.parquet"), &table, 100);
    // The output is about as large as its 600 kB of noise, and more than half of the disk is taken.
    std::fs::write(disk.join("ballast"), vec![0; 600 << 10]).unwrap();
    let with = || {
        let mut command = job(&at("in"), &disk.join("out"));
        command.args(["--compression", "none"]);
        command
    };
    assert_fails(with(), "No space left on device");
    let done = markers(&disk.join("out")).len();
    assert_eq!(data_files(&disk.join("out")).len(), done);
    assert!((1..3).contains(&done), "{done} units fit");
    assert_nothing_unfinished(&disk.join("out"));

    std::fs::remove_file(disk.join("ballast")).unwrap();
    with().assert().success();
    assert_eq!(ids(&output_rows(&disk.join("out"))), (0..600).collect::<Vec<_>>());
}

#[test]
fn scores_are_numbers_whatever_the_units() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("out")).assert().success();
    let scored = output_rows(&at("out"));
    assert_eq!(scored.column_by_name("score").unwrap().data_type(), &DataType::Float32);
    let alone: Vec<f32> = {
        run(at("in/a.parquet"), at("a.parquet")).args(["--window-rows", "500"]).assert().success();
        scores(&read(&at("a.parquet")))
    };
    let together: &Float32Array = scored.column_by_name("score").unwrap().as_primitive::<Float32Type>();
    for (row, (a, b)) in alone.iter().zip(together.values()).enumerate() {
        assert!((a - b).abs() < 5e-5, "row {row}: {a} and {b}");
    }
}
