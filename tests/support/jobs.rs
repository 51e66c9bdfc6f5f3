//! Jobs with three input files.

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use assert_cmd::Command;

use super::folders::data_files;
use super::program::run;
use super::tables::{numbered, read, write_groups};

/// Three files of 500, 300 and 0 rows in groups of 100.
pub(crate) fn write_inputs(folder: &Path) {
    write_groups(&folder.join("a.parquet"), &numbered(0, 500), 100);
    write_groups(&folder.join("deep/b.parquet"), &numbered(500, 300), 100);
    write_groups(&folder.join("empty.parquet"), &numbered(0, 0), 100);
}

/// A job in units of 200 rows: 3, 2 and 1 units for the inputs of [`write_inputs`].
pub(crate) fn job(input: &Path, output: &Path) -> Command {
    let mut command = run(input, output);
    command.args(["--unit-rows", "200", "--window-rows", "64"]);
    command
}

/// The rows of all data files, in the order of inputs and units.
pub(crate) fn output_rows(output: &Path) -> RecordBatch {
    let mut names = data_files(output);
    names.sort_by_key(|name| {
        let mut parts = name.rsplitn(3, '-').skip(1);
        let number = parts.next().unwrap().to_owned();
        (parts.next().unwrap().to_owned(), number)
    });
    let tables: Vec<_> = names.iter().map(|name| read(&output.join(name))).collect();
    concat_batches(&tables[0].schema(), &tables).unwrap()
}

pub(crate) fn ids(table: &RecordBatch) -> Vec<i64> {
    table.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
}
