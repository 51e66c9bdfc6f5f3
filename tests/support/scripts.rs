//! Runs `.slt` scripts. With `UPDATE_SCRIPTS=1`, writes the results into the scripts instead of comparing them.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_column_validator, default_normalizer, default_validator,
};

/// The result of a statement: no columns, or rows of text.
pub(crate) enum Output {
    Done,
    Rows { columns: usize, rows: Vec<Vec<String>> },
}

/// Something that runs statements.
#[async_trait]
pub(crate) trait Database: Send {
    async fn run(&mut self, sql: &str) -> Result<Output, DataFusionError>;
}

/// Adapts a [`Database`] to the script runner.
struct Adapter<D>(D);

#[async_trait]
impl<D: Database> AsyncDB for Adapter<D> {
    type Error = DataFusionError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, DataFusionError> {
        Ok(match self.0.run(sql).await? {
            Output::Done => DBOutput::StatementComplete(0),
            Output::Rows { columns, rows } => DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows },
        })
    }

    async fn shutdown(&mut self) {}
}

/// Runs every script of a folder of `tests/slt`, each on its own database, and panics with all failures.
pub(crate) async fn run_all<D: Database>(folder: &str, database: impl AsyncFn() -> D) {
    let mut failures = Vec::new();
    for file in scripts(folder) {
        let database = database().await;
        let mut database = Some(Adapter(database));
        let mut runner = Runner::new(move || {
            let database = database.take();
            async move { database.ok_or(DataFusionError::Internal("a script has one connection".to_owned())) }
        });
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            let updated =
                runner.update_test_file(&file, " ", default_validator, default_normalizer, default_column_validator);
            updated.await.unwrap();
            continue;
        }
        // Runs every record of every file, so that one run shows all failures.
        for record in sqllogictest::parse_file(&file).unwrap() {
            if let Err(error) = runner.run_async(record).await {
                failures.push(error.display(false).to_string());
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The scripts of a folder of `tests/slt`.
pub(crate) fn scripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|name| name == "slt")).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    files
}

/// The rows of some batches, formatted for scripts.
pub(crate) fn rows(batches: &[RecordBatch], decimals: usize) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|column| text(column, row, decimals)).collect());
        }
    }
    rows
}

/// A value formatted for scripts: floats, also in lists, with `decimals` decimals; NULL as `NULL`; an empty text as
/// `(empty)`.
pub(crate) fn text(column: &dyn Array, row: usize, decimals: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    if let Some(floats) = column.as_primitive_opt::<Float32Type>() {
        return format!("{:.decimals$}", floats.value(row));
    }
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        return format!("{:.decimals$}", floats.value(row));
    }
    if let Some(lists) = column.as_list_opt::<i32>() {
        let list = lists.value(row);
        let values: Vec<_> = (0..list.len()).map(|index| text(&list, index, decimals)).collect();
        return format!("[{}]", values.join(", "));
    }
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap();
    Some(formatter.value(row).to_string()).filter(|text| !text.is_empty()).unwrap_or("(empty)".to_owned())
}

/// `docs`: three queries with passages in three languages, a pair that occurs twice (rows 2 and 10), a NULL query, a
/// NULL passage and a NULL language. `langs`: names of languages.
pub(crate) const TABLES: &[&str] = &[
    "CREATE TABLE docs (id INT, query VARCHAR, passage VARCHAR, lang VARCHAR, views INT) AS VALUES
     (1, 'what is panda?', 'hi', 'en', 10),
     (2, 'what is panda?', 'The giant panda is a bear species endemic to China.', 'en', 80),
     (3, 'what is panda?', 'Der Große Panda ist ein Bär.', 'de', 40),
     (4, 'how tall is it?', 'The tower is 330 metres tall.', 'en', 20),
     (5, 'how tall is it?', 'La tour mesure 330 mètres.', 'fr', 90),
     (6, 'how tall is it?', 'Paris', 'fr', 5),
     (7, 'capital of France', 'Paris is the capital of France.', 'en', 70),
     (8, 'capital of France', 'Berlin ist die Hauptstadt Deutschlands.', 'de', 30),
     (9, 'capital of France', NULL, 'en', 60),
     (10, 'what is panda?', 'The giant panda is a bear species endemic to China.', 'fr', 15),
     (11, NULL, 'a passage without a query', 'en', 25),
     (12, 'capital of France', 'Rome', NULL, 50)",
    "CREATE TABLE langs (lang VARCHAR, name VARCHAR, rank INT) AS VALUES
     ('en', 'English', 1), ('de', 'German', 2), ('fr', 'French', 3)",
];
