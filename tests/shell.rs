//! `rerank sql`, as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_match};
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{MODEL, fixture, model, rerank};

fn sql() -> Command {
    let mut command = rerank();
    command.arg("sql");
    command
}

fn printed(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

#[test]
fn a_command_prints_rows_alone() {
    let query = "SELECT 1 AS one, NULL AS none";
    let table = "+-----+------+\n| one | none |\n+-----+------+\n| 1   | NULL |\n+-----+------+\n";
    assert_eq!(printed(sql().args(["-c", query])), table);
    assert_eq!(printed(sql().args(["-c", query, "--format", "csv"])), "one,none\n1,\n");
    assert_eq!(printed(sql().args(["-c", query, "--format", "json"])), "[{\"one\":1}]\n");
    assert_eq!(
        printed(sql().args(["--format", "csv"]).write_stdin("SELECT 2 AS two;\nSELECT 3 AS three")),
        "two\n2\nthree\n3\n"
    );
}

#[test]
fn the_delay_is_a_setting_of_the_session() {
    let query = "SET datafusion.catalog.information_schema = true; SHOW rerank.max_delay";
    for (delay, shown) in [("50ms", None), ("1s 500ms", Some("1500")), ("off", Some("off"))] {
        let mut command = sql();
        command.args(shown.map(|delay| ["--max-delay", delay]).into_iter().flatten());
        let printed = printed(command.args(["--format", "csv", "-c", query]));
        assert!(printed.ends_with(&format!("\nrerank.max_delay,{delay}\n")), "{printed}");
    }
}

/// As in `rerank sql ... | head -1`.
#[test]
fn a_reader_that_stops_ends_the_program_quietly() {
    // Far more than a pipe holds.
    let query = "SELECT value, repeat('x', 100) AS text FROM generate_series(1, 200000)";
    for format in ["csv", "tsv", "table", "json", "nd-json", "automatic"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rerank"));
        command.args(["sql", "--max-rows", "inf", "--format", format, "-c", query]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        if format == "json" {
            output.read_exact(&mut [0; 10]).unwrap();
        } else {
            output.read_line(&mut first).unwrap();
        }
        drop(output);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{format}");
        assert!(ended.status.success(), "{format}: {}", ended.status);
    }
}

#[test]
fn the_most_rows_of_a_table_are_no_limit_of_other_formats() {
    const ROWS: usize = 30_000;
    let query = format!("SELECT value AS v FROM generate_series(1, {ROWS})");
    let print = |arguments: &[&str]| printed(sql().args(["-c", &query]).args(arguments));
    let values = (1..=ROWS).map(|value| value.to_string()).collect::<Vec<_>>();
    for format in ["csv", "tsv"] {
        let lines = print(&["--format", format]);
        assert!(lines.lines().skip(1).eq(&values), "{} lines of {format}", lines.lines().count());
    }
    let numbers = |rows: &[Value]| rows.iter().map(|row| row["v"].to_string()).collect::<Vec<_>>();
    let rows: Vec<Value> = serde_json::from_str(&print(&["--format", "json"])).unwrap();
    assert!(numbers(&rows) == values, "{} rows of json", rows.len());
    let lines = print(&["--format", "nd-json", "--max-rows", "1"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(numbers(&rows) == values, "{} rows of nd-json", rows.len());

    // Three lines above the rows, three for the omitted ones, and one below.
    for (arguments, lines) in [
        (&[][..], 40 + 7),
        (&["--format", "table"], 40 + 7),
        (&["--max-rows", "3"], 3 + 7),
        (&["--max-rows", "inf"], ROWS + 4),
    ] {
        assert_eq!(print(arguments).lines().count(), lines, "{arguments:?}");
    }
}

#[test]
fn files_come_before_commands_and_the_first_error_ends_it() {
    let folder = tempdir().unwrap();
    let script = folder.path().join("script.sql");
    fs::write(
        &script,
        "CREATE TABLE t AS VALUES (1), (2);\n-- a comment; with a semicolon\nSELECT count(*) AS n FROM t;",
    )
    .unwrap();
    let rows = printed(sql().arg("-f").arg(&script).args(["-c", "SELECT max(column1) AS m FROM t", "--format", "csv"]));
    assert_eq!(rows, "n\n2\nm\n2\n");

    let assert = sql().args(["-c", "SELECT 1 AS a; SELECT nothing; SELECT 2 AS b", "--format", "csv"]).assert();
    let assert = assert.code(1).stdout("a\n1\n");
    assert.stderr(is_match("^error: [^\n]*nothing[^\n]*\n$").unwrap());
    sql().args(["-f", "absent.sql"]).assert().code(1).stderr(contains("error: cannot read absent.sql: "));
}

#[test]
fn models_are_known_by_name_and_the_first_is_the_default() {
    let named = format!("mine={}", fixture("tiny-minicpm-layerwise-reranker").display());
    let queries = "SHOW rerank.model; SELECT rerank('a', 'b') = rerank('a', 'b', 'tiny') AS same;
        SELECT rerank('a', 'b') <> rerank('a', 'b', 'mine') AS other";
    let bundled = printed(sql().args(["-c", queries, "--format", "csv", "--model=tiny", "--model"]).arg(&named));
    assert_eq!(bundled, "name,value\nrerank.model,tiny\nsame\ntrue\nother\ntrue\n");
    let mine = printed(
        sql()
            .args([
                "-c",
                "SHOW rerank.model; SELECT rerank('a', 'b', 'tiny') IS NULL AS n",
                "--format",
                "csv",
                "--model",
            ])
            .arg(&named),
    );
    assert_eq!(mine, "name,value\nrerank.model,mine\nn\nfalse\n");
    assert_eq!(printed(sql().args(["-c", "SHOW rerank.model", "--format", "csv"])), "name,value\nrerank.model,tiny\n");
}

#[test]
fn files_are_tables_and_options_are_defaults() {
    let table = fixture("xquad.parquet");
    let query = format!(
        "SELECT count(*) AS n, count(DISTINCT s) > 10 AS scored, min(s) >= 0 AND max(s) <= 1 AS normalized
         FROM (SELECT rerank(query, passage) AS s FROM '{}' LIMIT 20)",
        table.display()
    );
    let rows =
        printed(sql().arg(model(MODEL)).args(["--normalize", "--max-length=64", "--format", "csv", "-c", &query]));
    assert_eq!(rows, "n,scored,normalized\n20,true,true\n");
}

#[test]
fn explain_analyze_tells_what_a_query_cost() {
    let query = "EXPLAIN ANALYZE SELECT rerank(column1, 'b') FROM (VALUES ('a'), ('c'), ('a'))";
    let plan = printed(sql().args(["-c", query]));
    assert!(plan.contains("RerankExec: ") && plan.contains("model=tiny") && plan.contains("scored_pairs=2"), "{plan}");
}

#[test]
fn a_wrong_option_or_model_is_one_line() {
    let error = |arguments: &[&str], line: &str| {
        let expected = is_match(format!("^error: [^\n]*{line}[^\n]*\n$")).unwrap();
        sql().args(arguments).assert().code(1).stdout("").stderr(expected);
    };
    error(&["-c", "SELECT rerank('a', 'b', 'tiny', {'max_lenght': 1})"], "max_lenght");
    error(&["-c", "SELECT rerank('a', 'b', 'absent')"], "model 'absent'");
    error(&["-c", "SELECT 1", "--model", "mine=absent"], "model 'mine': there is no directory absent");
    error(&["-c", "SELECT 1", "--cutoff-layers", "1,2"], "--cutoff-layers takes one layer for SQL");
    sql().args(["--format", "xml"]).assert().code(2).stderr(contains("--format").and(contains("csv")));
}
