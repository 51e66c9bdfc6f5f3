//! Random SQL statements, each run twice: with calls, and with functions that look the scores up. The second run has
//! nothing of this library in its plan, so the results must be the same wherever the rules have put the calls.
//!
//! A failure names its seed and number; `FUZZ_SQL_SEED=.. FUZZ_SQL_STATEMENT=..` runs that statement alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::catalog::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_rerank::{ModelRegistry, RerankFunctions};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::support::models;
use crate::support::random::Random;
use crate::support::reduce::reduce;
use crate::support::scripts::text;
use crate::support::stand_ins::{BATCH_TOKENS, StoredScores, VARIANTS, real, stored};
use crate::support::statements::{Generator, Shape, Statement};
use crate::support::tables::write_groups;

/// Shapes that the generator leaves out, and why. A line that is deleted is tested again.
const KNOWN: &[(Shape, &str)] = &[(
    Shape::ConstantCall,
    "DataFusion moves a condition that reads no column below an aggregate without GROUP BY, which returns a row still",
)];

/// What a statement may fail with: refusals that the documentation names.
const REFUSALS: &[&str] = &["cannot read both sides of a", "cannot be used in VALUES"];

/// What DataFusion fails with on its own, depending on the plan around a call.
const FLAWS: &[&str] = &["SanityCheckPlan"];

/// What the stored statement alone fails with: flaws of DataFusion again. In a condition of a join it evaluates
/// branches of a CASE that are not taken, and it panics where `DISTINCT ON` repeats a key in its order.
const FLAWS_OF_STORED: &[&str] = &[
    "column types must match schema types",
    "Cannot concat arrays of different types",
    "Divide by zero",
    "Cast error",
    "Schema contains duplicate qualified field name",
    "assertion `left == right` failed",
    "Physical input schema should be the same as the one converted from logical input schema",
];

/// Statements of `make test`.
const STATEMENTS: usize = 300;
const SEED: u64 = 3;
/// Failures that a run reports in full.
const MOST_FAILURES: usize = 5;
/// The time to make one failing statement shorter.
const REDUCING: Duration = Duration::from_secs(30);
/// No statement runs for longer.
const LIMIT: Duration = Duration::from_mins(1);
/// Planning in a debug build needs more than the stack of a worker thread.
const STACK_BYTES: usize = 64 << 20;

/// Constructs that a run of [`STATEMENTS`] contains calls in.
const CONSTRUCTS: &[&str] = &[
    "SELECT",
    "WHERE",
    "ORDER BY",
    "LIMIT",
    "GROUP BY",
    "HAVING",
    "FILTER",
    "grouping sets",
    "aggregate",
    "ordered aggregate",
    "above an aggregate",
    "window",
    "window FILTER",
    "QUALIFY",
    "row_number() <= k",
    "DISTINCT",
    "DISTINCT ON",
    "UNION ALL",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "CTE",
    "subquery in FROM",
    "LATERAL",
    "unnest",
    "JOIN",
    "LEFT JOIN",
    "RIGHT JOIN",
    "FULL JOIN",
    "LEFT SEMI JOIN",
    "LEFT ANTI JOIN",
    "RIGHT SEMI JOIN",
    "RIGHT ANTI JOIN",
    "CROSS JOIN",
    "ON",
    "EXISTS",
    "NOT EXISTS",
    "IN subquery",
    "NOT IN subquery",
    "scalar subquery",
    "correlated scalar subquery",
    "CASE",
    "CASE in an argument",
    "guarded division",
    "guarded CAST",
    "coalesce",
    "nullif",
    "greatest",
    "make_array",
    "IN list",
    "IS NULL",
    "AND",
    "OR",
    "details",
    "list",
    "nested call",
];

/// Switches of the optimizer. Without `enable_physical_uncorrelated_scalar_subquery`, DataFusion drops a column that a
/// filter reads, so that one stays on.
const FLAGS: &[&str] = &[
    "datafusion.optimizer.prefer_hash_join",
    "datafusion.optimizer.prefer_existing_sort",
    "datafusion.optimizer.prefer_existing_union",
    "datafusion.optimizer.repartition_aggregations",
    "datafusion.optimizer.repartition_joins",
    "datafusion.optimizer.repartition_sorts",
    "datafusion.optimizer.repartition_windows",
    "datafusion.optimizer.repartition_file_scans",
    "datafusion.optimizer.filter_null_join_keys",
    "datafusion.optimizer.enable_round_robin_repartition",
    "datafusion.optimizer.enable_topk_aggregation",
    "datafusion.optimizer.enable_topk_repartition",
    "datafusion.optimizer.enable_topk_dynamic_filter_pushdown",
    "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown",
    "datafusion.optimizer.enable_window_limits",
    "datafusion.optimizer.enable_window_topn",
    "datafusion.optimizer.enable_distinct_aggregation_soft_limit",
    "datafusion.optimizer.enable_sort_pushdown",
    "datafusion.optimizer.enable_unions_to_filter",
    "datafusion.execution.parquet.pushdown_filters",
    "datafusion.execution.parquet.reorder_filters",
    "datafusion.execution.coalesce_batches",
    "datafusion.execution.collect_statistics",
    "datafusion.execution.split_file_groups_by_statistics",
];

/// Settings of a session.
type Settings = Vec<(&'static str, String)>;

/// The settings under which a statement runs with its calls.
fn random_settings(random: &mut Random) -> Settings {
    let mut settings = vec![
        ("datafusion.execution.target_partitions", (1 + random.below(8)).to_string()),
        ("datafusion.execution.batch_size", random.pick(&["1", "3", "16", "8192"]).to_string()),
        ("rerank.window_rows", random.pick(&["1", "7", "8192"]).to_string()),
    ];
    if random.percent(40) {
        settings.push(("datafusion.optimizer.max_passes", (1 + random.below(3)).to_string()));
    }
    for (small, usual) in [
        ("datafusion.optimizer.repartition_file_min_size", "1048576"),
        ("datafusion.optimizer.hash_join_single_partition_threshold", "1048576"),
        ("datafusion.optimizer.hash_join_single_partition_threshold_rows", "131072"),
    ] {
        let value = if random.percent(40) { "0" } else { usual };
        settings.push((small, value.to_owned()));
    }
    if random.percent(70) {
        for flag in FLAGS {
            if random.percent(30) {
                settings.push((flag, random.percent(50).to_string()));
            }
        }
    }
    // A known failure would hide others.
    if random.percent(50) {
        settings.push(("datafusion.optimizer.enable_leaf_expression_pushdown", "false".to_owned()));
    }
    settings
}

/// The tables, stored and in memory, and the scores.
struct World {
    folder: TempDir,
    tables: Vec<(&'static str, RecordBatch)>,
    scores: StoredScores,
    registry: ModelRegistry,
    levels: Vec<Vec<f32>>,
}

const QUERIES: [&str; 5] =
    ["what is panda?", "how tall is it?", "capital of France", "Who wrote it, and when?", "panda"];
const PASSAGES: [&str; 8] = [
    "hi",
    "The giant panda is a bear species endemic to China.",
    "Der Große Panda ist ein Bär.",
    "The tower is 330 metres tall.",
    "La tour mesure 330 mètres.",
    "Paris",
    "Paris is the capital of France.",
    "Berlin ist die Hauptstadt Deutschlands.",
];

/// Rows with NULLs, repeated texts and numbers as texts.
fn rows(seed: u64, rows: usize) -> RecordBatch {
    let mut random = Random::new(seed, 0);
    let ids: Vec<i64> = (1..=rows as i64).collect();
    let langs: Vec<Option<&str>> = ids
        .iter()
        .map(|_| random.pick(&[Some("en"), Some("en"), Some("de"), Some("fr"), Some("num"), None]))
        .copied()
        .collect();
    let queries: Vec<Option<&str>> =
        ids.iter().map(|_| if random.percent(10) { None } else { Some(*random.pick(&QUERIES)) }).collect();
    let passages: Vec<Option<&str>> = langs
        .iter()
        .map(|lang| match lang {
            _ if random.percent(10) => None,
            Some("num") => Some(*random.pick(&["7", "12", "330"])),
            _ => Some(*random.pick(&PASSAGES)),
        })
        .collect();
    let ints: Vec<Option<i64>> = ids
        .iter()
        .map(|_| *random.pick(&[None, Some(0), Some(0), Some(1), Some(2), Some(3), Some(5), Some(10)]))
        .collect();
    let bools: Vec<Option<bool>> = ids.iter().map(|_| *random.pick(&[None, Some(true), Some(false)])).collect();
    let links: Vec<Option<i64>> =
        ids.iter().map(|_| if random.percent(15) { None } else { Some(1 + random.below(20) as i64) }).collect();
    let columns: [(&str, ArrayRef, bool); 7] = [
        ("id", Arc::new(Int64Array::from(ids)), false),
        ("v", Arc::new(Int64Array::from(ints)), true),
        ("b", Arc::new(BooleanArray::from(bools)), true),
        ("lang", Arc::new(StringArray::from(langs)), true),
        ("q", Arc::new(StringArray::from(queries)), true),
        ("p", Arc::new(StringArray::from(passages)), true),
        ("pid", Arc::new(Int64Array::from(links)), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tables = vec![("t", rows(7, 40)), ("u", rows(8, 15))];
        for (name, table) in &tables {
            write_groups(&folder.path().join(format!("{name}.parquet")), table, 10);
        }
        let scores = StoredScores::new();
        let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        let (queries, passages) = (texts(&QUERIES), texts(&PASSAGES));
        let levels = (0..VARIANTS.len()).map(|number| scores.levels(number, &queries, &passages)).collect();
        Self { folder, tables, scores, registry: models(), levels }
    }

    /// A session with the tables.
    async fn session(&self, settings: &Settings) -> SessionContext {
        let mut config = SessionConfig::new().with_target_partitions(4);
        // Of joins this release of DataFusion pushes filters down that drop rows which are still needed.
        config.options_mut().set("datafusion.optimizer.enable_join_dynamic_filter_pushdown", "false").unwrap();
        for (key, value) in settings.iter().filter(|(key, _)| key.starts_with("datafusion.")) {
            config.options_mut().set(key, value).unwrap();
        }
        let ctx = SessionContext::new_with_config(config);
        for (name, table) in &self.tables {
            let file = self.folder.path().join(format!("{name}.parquet"));
            ctx.register_parquet(*name, file.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
            let third = table.num_rows() / 3;
            let first = vec![table.slice(0, third), table.slice(third, third)];
            let second = vec![table.slice(2 * third, table.num_rows() - 2 * third)];
            let in_memory = MemTable::try_new(table.schema(), vec![first, second]).unwrap();
            ctx.register_table(format!("{name}m"), Arc::new(in_memory)).unwrap();
        }
        ctx
    }

    async fn real(&self, settings: &Settings) -> SessionContext {
        let ctx = self.session(settings).await;
        RerankFunctions::new(self.registry.clone()).register(&ctx).unwrap();
        let mut settings = settings.clone();
        settings.push(("rerank.batch_tokens", BATCH_TOKENS.to_string()));
        for (key, value) in settings.iter().filter(|(key, _)| key.starts_with("rerank.")) {
            ctx.state_ref().write().config_mut().options_mut().set(key, value).unwrap();
        }
        ctx
    }

    /// A session whose results are expected: in one partition, and without what is known to give wrong rows in this
    /// release of DataFusion. Its physical filter pushdown confuses columns of the two sides of a join.
    async fn reference(&self) -> SessionContext {
        let ctx = self.stored(&vec![("datafusion.execution.target_partitions", "1".to_owned())]).await;
        let mut builder = SessionStateBuilder::new_from_existing(ctx.state());
        let physical = builder.physical_optimizers().get_or_insert_default();
        physical.rules.retain(|rule| !rule.name().starts_with("FilterPushdown"));
        SessionContext::new_with_state(builder.build())
    }

    async fn stored(&self, settings: &Settings) -> SessionContext {
        let mut without = settings.clone();
        without.push(("datafusion.optimizer.enable_dynamic_filter_pushdown", "false".to_owned()));
        let ctx = self.session(&without).await;
        for function in self.scores.functions() {
            ctx.register_udf(function);
        }
        ctx
    }
}

#[derive(Debug, Clone)]
enum Value {
    Number(f64),
    Text(String),
}

impl Value {
    fn is_near(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => (left - right).abs() <= 1e-4 * left.abs().max(1.0),
            (Self::Text(left), Self::Text(right)) => left == right,
            _ => false,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Without the sign of a rounded zero.
            Self::Number(number) => write!(formatter, "{:.3}", number + 0.0),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

type Row = Vec<Value>;

/// The result of a statement: its types and rows, or a message.
type Outcome = Result<(Vec<DataType>, Vec<Row>), String>;

fn values(batches: &[RecordBatch]) -> Vec<Row> {
    let value = |column: &ArrayRef, row| match column.data_type() {
        DataType::Float32 if column.is_valid(row) => {
            Value::Number(column.as_primitive::<Float32Type>().value(row).into())
        }
        DataType::Float64 if column.is_valid(row) => Value::Number(column.as_primitive::<Float64Type>().value(row)),
        _ => Value::Text(text(column, row, 3)),
    };
    let rows = |batch: &RecordBatch| {
        let columns = batch.columns().to_vec();
        (0..batch.num_rows())
            .map(move |row| columns.iter().map(|column| value(column, row)).collect())
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

/// A statement that runs on a thread of its own.
struct Running(std::thread::JoinHandle<Outcome>);

fn start(ctx: SessionContext, sql: String, runtime: &Handle) -> Running {
    let runtime = runtime.clone();
    let work = move || {
        runtime.block_on(async {
            let run = async {
                let frame = ctx.sql(&sql).await?;
                let types = frame.schema().fields().iter().map(|field| field.data_type().clone()).collect();
                Ok((types, values(&frame.collect().await?)))
            };
            match tokio::time::timeout(LIMIT, run).await {
                Ok(result) => result.map_err(|error: datafusion::error::DataFusionError| error.to_string()),
                Err(_) => Err(format!("it ran for more than {LIMIT:?}")),
            }
        })
    };
    Running(std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap())
}

impl Running {
    /// The result. A panic is a message too.
    fn outcome(self) -> Outcome {
        self.0.join().unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("panic: {}", message.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default()))
        })
    }
}

/// The rows of one result that the other has not.
fn missing<'a>(rows: &'a [Row], of: &[Row]) -> Vec<&'a Row> {
    let near = |left: &Row, right: &Row| left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.is_near(r));
    let mut rest: Vec<&Row> = of.iter().collect();
    let mut missing = Vec::new();
    for row in rows {
        match rest.iter().position(|other| near(row, other)) {
            Some(place) => drop(rest.swap_remove(place)),
            None => missing.push(row),
        }
    }
    missing
}

fn print(row: &Row) -> String {
    row.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ")
}

/// What differs between two results, or nothing.
fn difference(expected: &Outcome, actual: &Outcome, ordered: bool) -> Option<String> {
    match (expected, actual) {
        (Ok((expected_types, expected)), Ok((actual_types, actual))) => {
            if expected_types != actual_types {
                return Some(format!("types: expected {expected_types:?}, got {actual_types:?}"));
            }
            let same_place =
                expected.iter().zip(actual).all(|(left, right)| left.iter().zip(right).all(|(l, r)| l.is_near(r)));
            if same_place && expected.len() == actual.len() {
                return None;
            }
            let (lost, added) = (missing(expected, actual), missing(actual, expected));
            if lost.is_empty() && added.is_empty() {
                return ordered.then(|| "order: the rows are the same, in another order".to_owned());
            }
            let mut difference = format!("rows: expected {}, got {}", expected.len(), actual.len());
            for (title, rows) in [("missing", lost), ("not expected", added)] {
                for row in rows.iter().take(6) {
                    write!(difference, "\n  {title}: {}", print(row)).unwrap();
                }
                if rows.len() > 6 {
                    write!(difference, "\n  {title}: and {} more", rows.len() - 6).unwrap();
                }
            }
            Some(difference)
        }
        (Err(_), Err(_)) => None,
        (Ok(_), Err(error)) if REFUSALS.iter().any(|refusal| error.contains(refusal)) => None,
        (Ok((_, rows)), Err(error)) => Some(format!("fails: expected {} rows, got: {error}", rows.len())),
        (Err(error), Ok((_, rows))) => Some(format!("runs: got {} rows, expected: {error}", rows.len())),
    }
}

/// What kind of difference it is: its first word, and of an error the message without its numbers.
fn class(difference: &str) -> String {
    let line = difference.lines().next().unwrap_or_default();
    let kind: String = line.split(':').next().unwrap_or_default().to_owned();
    let message: String = line
        .split_once("got: ")
        .or(line.split_once("expected: "))
        .map_or("", |(_, message)| message)
        .chars()
        .filter(char::is_ascii_alphabetic)
        .take(30)
        .collect();
    kind + &message
}

/// How a statement went.
enum Verdict {
    Same,
    /// Neither statement can be planned or run: the message of the stored one, and of the one with calls.
    Neither(String, String),
    Refused,
    /// DataFusion alone gives several results, depending on settings.
    Upstream,
    Differs(String),
}

/// The beginning of a message on one line, without its numbers.
fn brief(error: &str) -> String {
    let text: String = error.chars().filter(|c| !c.is_ascii_digit()).take(100).collect();
    text.replace('\n', " ")
}

struct Checker<'a> {
    world: &'a World,
    stored: SessionContext,
    runtime: Handle,
}

impl Checker<'_> {
    /// Runs in place of `await`, which the threads of statements and the reducer do not have.
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| self.runtime.block_on(future))
    }

    fn verdict(&self, sql: &str, ordered: bool, settings: &Settings) -> Verdict {
        let expected = start(self.stored.clone(), stored(sql), &self.runtime);
        let actual = start(self.wait(self.world.real(settings)), real(sql), &self.runtime);
        let (expected, actual) = (expected.outcome(), actual.outcome());
        match (&expected, &actual) {
            (_, Err(error)) if REFUSALS.iter().any(|refusal| error.contains(refusal)) => return Verdict::Refused,
            (Err(_), Err(error)) if error.contains("HoistRerankCalls") && error.contains("Schema error") => {
                return Verdict::Differs(format!("fails: got: {error}"));
            }
            (Err(expected), Err(actual)) => return Verdict::Neither(brief(expected), brief(actual)),
            (Err(error), Ok(_)) if FLAWS_OF_STORED.iter().any(|flaw| error.contains(flaw)) => return Verdict::Upstream,
            (Err(error), Ok(_)) | (Ok(_), Err(error)) if FLAWS.iter().any(|flaw| error.contains(flaw)) => {
                return Verdict::Upstream;
            }
            _ => {}
        }
        match difference(&expected, &actual, ordered) {
            None => Verdict::Same,
            Some(difference) => {
                let odd = [
                    ("datafusion.execution.target_partitions", "5".to_owned()),
                    ("datafusion.execution.batch_size", "1".to_owned()),
                ];
                // DataFusion's own flaws, and what has no one result, show in the stored statement too.
                let steady = [settings.clone(), odd.to_vec()].iter().all(|settings| {
                    let again = start(self.wait(self.world.stored(settings)), stored(sql), &self.runtime).outcome();
                    self::difference(&expected, &again, ordered).is_none() && again.is_ok() == expected.is_ok()
                });
                if steady { Verdict::Differs(difference) } else { Verdict::Upstream }
            }
        }
    }

    /// The statement and its settings, as short as they fail in the same way.
    fn reduced(
        &self,
        sql: &str,
        ordered: bool,
        settings: &Settings,
        difference: &str,
        limit: Duration,
    ) -> (String, Settings) {
        let class_of = |sql: &str, settings: &Settings| match self.verdict(sql, ordered, settings) {
            Verdict::Differs(difference) => Some(class(&difference)),
            _ => None,
        };
        let class = Some(class(difference));
        let mut settings = settings.clone();
        if class_of(sql, &Vec::new()) == class {
            settings.clear();
        }
        let mut place = 0;
        while place < settings.len() {
            let mut fewer = settings.clone();
            fewer.remove(place);
            if class_of(sql, &fewer) == class {
                settings = fewer;
            } else {
                place += 1;
            }
        }
        let sql = reduce(sql, limit, |sql| {
            // DataFusion panics while it plans some of what a statement is cut down to.
            let plan = || self.wait(self.stored.state().create_logical_plan(&stored(sql)));
            let planned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(plan));
            matches!(planned, Ok(Ok(_))) && class_of(sql, &settings) == class
        });
        (sql, settings)
    }
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    let number = value.parse().ok();
    assert!(number.is_some(), "{name}={value} is not a number");
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_have_the_rows_that_stored_scores_give() {
    let start = Instant::now();
    let world = World::new();
    let off: Vec<Shape> = KNOWN.iter().map(|(shape, _)| *shape).collect();
    let seed = from_environment("FUZZ_SQL_SEED").unwrap_or(SEED);
    let statements = from_environment("FUZZ_SQL_STATEMENTS").unwrap_or(STATEMENTS);
    let numbers = match from_environment::<usize>("FUZZ_SQL_STATEMENT") {
        Some(number) => number..number + 1,
        None => 0..statements,
    };
    println!("seed {seed}, statements {numbers:?}");
    let checker = Checker { world: &world, stored: world.reference().await, runtime: Handle::current() };
    let mut constructs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut neither: BTreeMap<String, usize> = BTreeMap::new();
    let (mut ran, mut refused, mut upstream) = (0, 0, 0);
    let mut failures = Vec::new();
    let all = numbers.len();
    for number in numbers {
        let mut random = Random::new(seed, number as u64);
        let settings = random_settings(&mut random);
        let Statement { sql, ordered, constructs: with_calls } =
            Generator::new(random, &world.levels, &off).statement();
        match checker.verdict(&sql, ordered, &settings) {
            Verdict::Same => {
                ran += 1;
                for construct in with_calls {
                    *constructs.entry(construct).or_default() += 1;
                }
            }
            Verdict::Refused => refused += 1,
            Verdict::Upstream => upstream += 1,
            Verdict::Neither(expected, actual) => {
                let messages = if expected == actual { actual } else { format!("{actual} (stored: {expected})") };
                *neither.entry(messages).or_default() += 1;
            }
            Verdict::Differs(difference) => {
                ran += 1;
                let (short, few) = checker.reduced(&sql, ordered, &settings, &difference, REDUCING);
                let Verdict::Differs(short_difference) = checker.verdict(&short, ordered, &few) else {
                    failures.push(format!("{sql}\n{settings:?}\n{difference}"));
                    continue;
                };
                failures.push(format!(
                    "FUZZ_SQL_SEED={seed} FUZZ_SQL_STATEMENT={number}\n{}\nwith {settings:?}\n{difference}\nshorter, with {few:?}:\n{}\n{short_difference}",
                    real(&sql),
                    real(&short),
                ));
                println!("{}\n", failures[failures.len() - 1]);
                if failures.len() >= MOST_FAILURES {
                    break;
                }
            }
        }
    }
    println!(
        "{ran} of {all} ran in {:.1} s, {refused} were refused, {upstream} have several results, {} do not run at all",
        start.elapsed().as_secs_f64(),
        neither.values().sum::<usize>()
    );
    for (message, count) in &neither {
        println!("  {count} {message}");
    }
    println!("calls in: {constructs:?}");
    assert!(failures.is_empty(), "{} failures:\n\n{}", failures.len(), failures.join("\n\n"));
    if all >= STATEMENTS {
        assert!(ran * 100 >= all * 80, "only {ran} of {all} statements ran");
        let rare: Vec<_> =
            CONSTRUCTS.iter().filter(|construct| constructs.get(*construct).is_none_or(|count| *count < 2)).collect();
        assert!(rare.is_empty(), "too few statements with calls in {rare:?}");
    }
}
