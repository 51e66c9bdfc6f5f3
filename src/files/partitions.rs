//! Hive partitions: columns in the names of folders, such as `lang=en/day=2026-01-01/part.parquet`.

use arrow::datatypes::{DataType, Field};
use percent_encoding::percent_decode_str;

/// The value of NULL.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The key that marks the field of a partition column. The mark of a column stays with it as long as its values do.
const MARK: &str = "rerank:partition";

/// The field of a partition column.
pub(crate) fn partition_field(column: &str) -> Field {
    Field::new(column, DataType::Utf8, true).with_metadata([(MARK.to_owned(), column.to_owned())].into())
}

/// The partition column that this is, perhaps under another name.
pub(crate) fn partition_of(field: &Field) -> Option<&str> {
    field.metadata().get(MARK).map(String::as_str).filter(|_| *field.data_type() == DataType::Utf8)
}

/// The field without the mark.
pub(crate) fn unmarked(field: &Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(MARK);
    field.clone().with_metadata(metadata)
}

/// The partition columns that all paths have, in the order of the first path.
pub(crate) fn partition_columns<'a>(mut paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let Some(first) = paths.next() else { return Vec::new() };
    let mut columns: Vec<String> = partitions(first).map(|(column, _)| column).collect();
    for path in paths {
        columns.retain(|column| partition_value(path, column).is_some());
    }
    columns
}

/// The value of a partition column.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PartitionValue {
    Null,
    Text(String),
}

/// The value of a partition column in a path; `None` if the path does not have the column.
pub(crate) fn partition_value(path: &str, column: &str) -> Option<PartitionValue> {
    let (_, value) = partitions(path).find(|(found, _)| found == column)?;
    Some(if value == NULL { PartitionValue::Null } else { PartitionValue::Text(decoded(value)) })
}

/// The columns in a path, with their values as they stand there.
fn partitions(path: &str) -> impl Iterator<Item = (String, &str)> {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').filter_map(|folder| folder.split_once('=')).map(|(column, value)| (decoded(column), value))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let path = "lang=a%2Fb/ts=2020-01-01%2001%3A00%3A00/x=/n=__HIVE_DEFAULT_PARTITION__/odd=100%/f=g.parquet";
        let value = |column| partition_value(path, column);
        let text = |text: &str| Some(PartitionValue::Text(text.to_owned()));
        assert_eq!(value("lang"), text("a/b"));
        assert_eq!(value("ts"), text("2020-01-01 01:00:00"));
        assert_eq!((value("x"), value("n")), (text(""), Some(PartitionValue::Null)));
        assert_eq!((value("odd"), value("f")), (text("100%"), None));
    }

    #[test]
    fn columns_are_those_of_all_paths() {
        let columns = |paths: &[&str]| partition_columns(paths.iter().copied());
        assert_eq!(columns(&["a=1/b=2/x", "b=3/a=4/y"]), ["a", "b"]);
        assert_eq!(columns(&["a=1/b=2/x", "a=4/y"]), ["a"]);
        assert!(columns(&["a=1/x", "y"]).is_empty() && columns(&["a=1.parquet"]).is_empty() && columns(&[]).is_empty());
    }
}
