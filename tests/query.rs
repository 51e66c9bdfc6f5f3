//! Jobs with a query around the score.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;

use crate::support::tables::{numbered, read, write, write_groups};
use crate::support::{
    CHECKPOINTS, assert_fails, broken_model, data_files, files, fixture, folder, ids, job, output_rows, rerank, run,
    write_inputs,
};

/// `languages.parquet`: `number` and `name` of three languages.
fn write_languages(folder: &Path) -> String {
    let table = RecordBatch::try_from_iter([
        ("number", Arc::new(Int64Array::from(vec![0, 1, 2])) as ArrayRef),
        ("name", Arc::new(StringArray::from(vec!["English", "German", "French"]))),
    ]);
    let file = folder.join("languages.parquet");
    write(&file, &table.unwrap());
    file.display().to_string()
}

/// Asserts that two tables have the same rows, except for the rounding of scores in the last column, which depends on
/// the rows that are scored together.
#[track_caller]
fn assert_same_rows(one: &RecordBatch, other: &RecordBatch) {
    let last = one.num_columns() - 1;
    let others: Vec<usize> = (0..last).collect();
    assert_eq!(one.project(&others).unwrap(), other.project(&others).unwrap());
    let [one, other] = [one, other].map(|table| table.column(last).as_primitive::<Float32Type>());
    assert!(one.values().iter().zip(other.values()).all(|(one, other)| (one - other).abs() < 1e-4));
}

/// Runs a job with a query over the inputs of [`write_inputs`], and returns its rows.
fn rows_of(at: &impl Fn(&str) -> std::path::PathBuf, output: &str, sql: &str) -> RecordBatch {
    job(&at("in"), &at(output)).args(["--sql", sql]).assert().success();
    output_rows(&at(output))
}

#[test]
fn the_query_that_says_what_a_run_does_gives_the_same() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    job(&at("in"), &at("plain")).assert().success();
    let with_query = rows_of(&at, "query", "SELECT *, rerank(query, passage) AS score FROM input");
    assert_eq!(with_query, output_rows(&at("plain")));
    // A single file as output, too.
    let sql = "SELECT *, rerank(query, passage) AS score FROM input";
    run(at("in/a.parquet"), at("one.parquet")).args(["--window-rows=64", "--sql", sql]).assert().success();
    assert_same_rows(&read(&at("one.parquet")), &with_query.slice(0, 500));
}

#[test]
fn filters_and_joins_keep_the_order_whatever_the_units() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let languages = write_languages(&at("."));
    let sql = format!(
        "SELECT i.id, l.name, rerank(i.query, i.passage) AS s
         FROM input AS i JOIN '{languages}' AS l ON i.id % 3 = l.number
         WHERE i.id % 2 = 0 AND rerank(i.query, i.passage) > 1"
    );
    let turned =
        sql.replace(&format!("input AS i JOIN '{languages}' AS l"), &format!("'{languages}' AS l JOIN input AS i"));
    let rows = rows_of(&at, "out", &sql);
    let scores = rows_of(&at, "scores", "SELECT id, rerank(query, passage) AS s FROM input");
    let values = scores.column(1).as_primitive::<Float32Type>();
    let expected: Vec<i64> = ids(&scores)
        .into_iter()
        .zip(values.values())
        .filter(|(id, s)| id % 2 == 0 && **s > 1.0)
        .map(|(id, _)| id)
        .collect();
    assert!(expected.len() > 20, "{}", expected.len());
    assert_eq!(ids(&rows), expected);
    let names = ["English", "German", "French"];
    let name = |row: usize| rows.column(1).as_string_view().value(row).to_owned();
    assert!((0..rows.num_rows()).all(|row| name(row) == names[expected[row] as usize % 3]));

    assert_eq!(rows_of(&at, "turned", &turned), rows);
    let mut large = run(at("in"), at("large"));
    large.args(["--window-rows=64", "--sql", &sql]).assert().success();
    assert_eq!(data_files(&at("large")).len(), 3);
    assert_same_rows(&output_rows(&at("large")), &rows);
}

#[test]
fn outer_joins_keep_the_rows_of_the_input() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let languages = write_languages(&at("."));
    let left = format!("SELECT i.id, l.name FROM input AS i LEFT JOIN '{languages}' AS l ON i.id % 7 = l.number");
    let right = format!("SELECT i.id, l.name FROM '{languages}' AS l RIGHT JOIN input AS i ON i.id % 7 = l.number");
    let rows = rows_of(&at, "left", &left);
    let mut found = ids(&rows);
    found.sort_unstable();
    assert_eq!(found, (0..800).collect::<Vec<_>>());
    assert_eq!(rows.column(1).null_count(), (0..800).filter(|id| id % 7 > 2).count());
    assert_eq!(rows_of(&at, "right", &right), rows);
    // Without an equality, the matches of one row are in the order of the other table.
    let crossed = format!("SELECT i.id, l.number FROM input AS i CROSS JOIN '{languages}' AS l WHERE i.id < 40");
    let rows = rows_of(&at, "crossed", &crossed);
    let mut pairs: Vec<(i64, i64)> = ids(&rows)
        .into_iter()
        .zip(rows.column(1).as_primitive::<arrow::datatypes::Int64Type>().values().iter().copied())
        .collect();
    pairs.sort_unstable();
    assert_eq!(pairs, (0..40).flat_map(|id| (0..3).map(move |number| (id, number))).collect::<Vec<_>>());
    let nested = format!("SELECT i.id FROM input AS i JOIN '{languages}' AS l ON i.id < l.number");
    let mut found = ids(&rows_of(&at, "nested", &nested));
    found.sort_unstable();
    assert_eq!(found, [0, 0, 1]);
}

#[test]
fn queries_that_need_more_than_a_row_at_a_time_are_refused() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let languages = write_languages(&at("."));
    let with_query = |sql: &str| {
        let mut command = job(&at("in"), &at("out"));
        command.args(["--sql", sql]);
        command
    };
    for (sql, reason) in [
        ("SELECT id FROM input ORDER BY id", "ORDER BY needs all rows of input at once"),
        ("SELECT id FROM input LIMIT 10", "LIMIT needs all rows of input at once"),
        ("SELECT max(id) FROM input", "an aggregate, GROUP BY or DISTINCT needs all rows"),
        ("SELECT DISTINCT id FROM input", "an aggregate, GROUP BY or DISTINCT needs all rows"),
        ("SELECT row_number() OVER () FROM input", "a window function needs all rows"),
        ("SELECT id FROM input UNION ALL SELECT number FROM $languages", "UNION needs all rows"),
        ("SELECT id FROM input UNION ALL SELECT id FROM input", "reads input 2 times"),
        ("SELECT id FROM input WHERE id > (SELECT avg(id) FROM input)", "reads input 2 times"),
        ("SELECT number FROM $languages", "reads input 0 times"),
        ("SELECT id FROM input RIGHT JOIN $languages ON id = number", "a RIGHT JOIN must keep the rows of input"),
        ("SELECT id FROM input FULL JOIN $languages ON id = number", "a FULL JOIN must keep the rows of input"),
        ("SELECT nothing FROM input", "No field named nothing"),
        ("SELECT rerank(query, id) FROM input", "passage is Int64, expected text"),
        ("SELECT rerank(query, passage, 'nobody') FROM input", "model 'nobody'"),
        ("CREATE TABLE x AS SELECT id FROM input", "DDL not supported"),
        ("COPY input TO 'x.parquet'", "DML not supported"),
        ("SELEKT 1", "SELEKT"),
    ] {
        let sql = sql.replace("$languages", &format!("'{languages}'"));
        assert_fails(with_query(&sql), reason);
    }
    assert!(!at("out").exists());
    let mut several_layers = with_query("SELECT id FROM input");
    several_layers.arg("--cutoff-layers=2,4");
    assert_fails(several_layers, "option cutoff_layers");
}

#[test]
fn a_query_is_part_of_what_a_job_is() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let sql = "SELECT id, rerank(query, passage) AS s FROM input WHERE id % 2 = 0";
    let before = rows_of(&at, "out", sql);
    job(&at("in"), &at("out"))
        .args(["--sql", sql])
        .assert()
        .success()
        .stderr(contains("6 of 6 units committed already"));
    assert_eq!(output_rows(&at("out")), before);
    let other = sql.replace("= 0", "= 1");
    let mut changed = job(&at("in"), &at("out"));
    changed.args(["--sql", &other]);
    assert_fails(changed, "--sql was SELECT id");
    assert_fails(job(&at("in"), &at("out")), "--sql was SELECT id");
    job(&at("in"), &at("out")).args(["--restart", "--sql", &other]).assert().success();
    assert_eq!(output_rows(&at("out")).num_rows(), 400);
}

#[test]
fn a_dry_run_shows_the_plan_and_what_is_read() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let sql = "SELECT id, rerank(query, passage) AS s FROM input WHERE id % 2 = 0";
    let run = job(&at("in"), &at("out")).args(["--dry-run", "--sql", sql]).assert().success();
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    for part in ["units\t6 of 6 to do", "rows\t800 to do", "plan\t", "RerankExec: [rerank(query@", "StreamingTableExec"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!at("out").exists());
}

#[test]
fn all_models_that_a_query_names_are_part_of_the_job() {
    let (_folder, at) = folder();
    write_groups(&at("in.parquet"), &numbered(0, 30), 10);
    // One checkpoint of each family, and another one of the first family.
    broken_model(&at("fifth"));
    let models = CHECKPOINTS.map(fixture).into_iter().chain([at("fifth")]);
    let calls: Vec<String> = models
        .enumerate()
        .map(|(number, model)| format!("rerank(query, passage, '{}') AS s{number}", model.display()))
        .collect();
    let with_query = |sql: &str| {
        let mut command = run(at("in.parquet"), at("out"));
        command.args(["--unit-rows=10", "--sql", sql]);
        command
    };
    let sql = format!("SELECT id, {} FROM input", calls.join(", "));
    with_query(&sql).assert().success();
    let manifest: Value = serde_json::from_slice(&std::fs::read(at("out/_rerank/job.json")).unwrap()).unwrap();
    let of = |key: &str| -> Vec<String> {
        manifest["models"].as_array().unwrap().iter().map(|model| model[key].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("fingerprint").iter().collect::<BTreeSet<_>>().len(), 5, "{manifest}");
    // The model of --model is first. The others are ordered by fingerprint.
    assert!(of("location")[0].ends_with(CHECKPOINTS[0]), "{manifest}");
    assert!(of("fingerprint")[1..].is_sorted(), "{manifest}");
    with_query(&sql).assert().success().stderr(contains("3 of 3 units committed already"));

    // A model that is no longer called is no longer part of the job, unless --model names it.
    let restart = |sql: &str| {
        with_query(sql).arg("--restart").assert().success();
        let manifest: Value = serde_json::from_slice(&std::fs::read(at("out/_rerank/job.json")).unwrap()).unwrap();
        manifest["models"].as_array().unwrap().len()
    };
    assert_eq!(restart(&format!("SELECT id, {} FROM input", calls[4])), 2);
    assert_eq!(restart("SELECT id FROM input"), 1);
}

#[test]
fn rows_read_and_rows_written_are_both_told() {
    let (_folder, at) = folder();
    write_inputs(&at("in"));
    let sql = "SELECT id, rerank(query, passage) AS s FROM input WHERE id % 4 = 0";
    job(&at("in"), &at("out"))
        .args(["--sql", sql, "--report"])
        .arg(at("report.json"))
        .assert()
        .success()
        .stderr(contains("200 rows in 6 files; ").and(contains("800 rows read")));
    assert_eq!(output_rows(&at("out")).num_rows(), 200);
    let report: Value = serde_json::from_slice(&std::fs::read(at("report.json")).unwrap()).unwrap();
    let numbers = |value: &Value| (value["rows"].as_u64(), value["rows_written"].as_u64());
    assert_eq!(numbers(&report), (Some(800), Some(200)));
    assert_eq!(numbers(&report["job"]), (Some(800), Some(200)));
    let records = at("out/_rerank/units");
    let markers = files(&records)
        .into_iter()
        .map(|name| serde_json::from_slice::<Value>(&std::fs::read(records.join(name)).unwrap()).unwrap());
    let sums = markers
        .map(|marker| numbers(&marker))
        .fold((0, 0), |sum, (read, written)| (sum.0 + read.unwrap(), sum.1 + written.unwrap()));
    assert_eq!(sums, (800, 200));

    // This includes the work of earlier runs.
    std::fs::remove_file(at("out").join(&data_files(&at("out"))[0])).unwrap();
    job(&at("in"), &at("out"))
        .args(["--sql", sql])
        .assert()
        .success()
        .stderr(contains("50 rows in 1 file; ").and(contains("5 units with 150 rows had been committed before")));
    let status = rerank().arg("status").arg(at("out")).arg("--json").assert().success().get_output().stdout.clone();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!((&status["rows_done"], &status["rows_written"]), (&800.into(), &200.into()));
}
