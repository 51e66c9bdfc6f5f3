//! Tables, and Parquet files with them.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, MapBuilder, RecordBatch,
    StringArray, StringBuilder, StringViewArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Encodes a table as a Parquet file.
pub(crate) fn encode(table: &RecordBatch) -> Bytes {
    encode_groups(table, usize::MAX)
}

/// Encodes a table as a Parquet file with at most this many rows per row group.
pub(crate) fn encode_groups(table: &RecordBatch, rows: usize) -> Bytes {
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(rows))
        .build();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    bytes.into()
}

/// Reads a Parquet file.
pub(crate) fn decode(file: Bytes) -> parquet::errors::Result<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = Arc::clone(reader.schema());
    let batches = reader.build()?.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// The rows of several files, ordered by `id`: files with the same rows compare equal, however the rows are divided.
pub(crate) fn rows_by_id(files: impl Iterator<Item = Bytes>) -> RecordBatch {
    let tables: Vec<RecordBatch> = files.map(|file| decode(file).unwrap()).collect();
    let table = concat_batches(&tables[0].schema(), &tables).unwrap();
    let order = sort_to_indices(table.column_by_name("id").unwrap(), None, None).unwrap();
    take_record_batch(&table, &order).unwrap()
}

pub(crate) fn write(path: &Path, batch: &RecordBatch) {
    write_with(path, batch, WriterProperties::default());
}

pub(crate) fn write_with(path: &Path, batch: &RecordBatch, properties: WriterProperties) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// Writes a Parquet file with this many rows per row group.
pub(crate) fn write_groups(path: &Path, table: &RecordBatch, rows: usize) {
    write_with(path, table, WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build());
}

pub(crate) fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<_> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
    concat_batches(&schema, &batches).unwrap()
}

pub(crate) fn pairs(rows: &[(&str, &str)]) -> RecordBatch {
    let queries: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(query, _)| query)));
    let passages: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, passage)| passage)));
    RecordBatch::try_from_iter([("query", queries), ("passage", passages)]).unwrap()
}

/// Pairs that are all different.
pub(crate) fn many_pairs(count: usize) -> RecordBatch {
    let queries: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|i| format!("question {}", i % 17))));
    let passages: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..count).map(|i| format!("{i} {}", "word ".repeat(i % 23)))));
    RecordBatch::try_from_iter([("query", queries), ("passage", passages)]).unwrap()
}

/// Numbered pairs that are all different.
pub(crate) fn numbered(first: i64, count: usize) -> RecordBatch {
    let ids = first..first + count as i64;
    let passages = ids.clone().map(|id| format!("{id} {}", "word ".repeat(id as usize % 23)));
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef),
        ("query", Arc::new(StringArray::from_iter_values(ids.map(|id| format!("question {}", id % 17))))),
        ("passage", Arc::new(StringArray::from_iter_values(passages))),
    ])
    .unwrap()
}

/// Adds a column of noise, which no codec makes smaller: copying it takes time.
pub(crate) fn with_noise(table: &RecordBatch, row_bytes: usize) -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(1);
    let noise = BinaryArray::from_iter_values((0..table.num_rows()).map(|_| {
        let mut bytes = vec![0; row_bytes];
        random.fill(&mut bytes);
        bytes
    }));
    let schema = table.schema();
    let columns = schema.fields().iter().map(|field| field.name().as_str()).zip(table.columns().iter().cloned());
    RecordBatch::try_from_iter(columns.chain([("noise", Arc::new(noise) as ArrayRef)])).unwrap()
}

/// A table with columns of every kind, all with NULLs, including its texts.
pub(crate) fn all_kinds() -> RecordBatch {
    let rows = 5;
    let nulls = || Some(NullBuffer::from(vec![true, false, true, true, false]));
    let item = Arc::new(Field::new(
        "element",
        DataType::Struct(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)].into()),
        true,
    ));
    let structs = StructArray::from(vec![
        (
            Arc::new(Field::new("a", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("b", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![None, Some("x"), Some("y")])) as ArrayRef,
        ),
    ]);
    let list = ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1, 0, 0]), Arc::new(structs), nulls());
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for row in 0..rows {
        map.keys().append_value(format!("key {row}"));
        map.values().append_option((row % 2 == 0).then_some("value"));
        map.append(row != 3).unwrap();
    }
    let dictionary: DictionaryArray<Int32Type> = [Some("x"), None, Some("y"), Some("x"), None].into_iter().collect();
    let query: DictionaryArray<Int32Type> = [Some("a"), Some("b"), None, Some("a"), Some("c")].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("int", Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MAX), Some(i64::MIN), None]))),
        ("float", Arc::new(Float64Array::from(vec![Some(0.5), None, Some(f64::INFINITY), Some(-0.0), None]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), None, None]))),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(12345), None, Some(-1), None, None])
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
        ),
        ("date", Arc::new(Date32Array::from(vec![Some(0), None, Some(20_000), None, None]))),
        (
            "time",
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(0), None, Some(1_700_000_000_000_000), None, None])
                    .with_timezone("Europe/Zurich"),
            ),
        ),
        ("binary", Arc::new(BinaryArray::from(vec![Some(b"\0\xff".as_ref()), None, Some(b""), None, None]))),
        (
            "fixed",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [Some([1, 2]), None, Some([3, 4]), None, None].into_iter(),
                    2,
                )
                .unwrap(),
            ),
        ),
        ("query", Arc::new(query)),
        ("large", Arc::new(LargeStringArray::from(vec![Some("l"), None, Some(""), None, None]))),
        ("passage", Arc::new(StringViewArray::from(vec![Some("p"), None, Some("q"), Some("r"), Some("s")]))),
        ("dictionary", Arc::new(dictionary)),
        ("list", Arc::new(list)),
        ("map", Arc::new(map.finish())),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| {
            Field::new(*name, array.data_type().clone(), true)
                .with_metadata(HashMap::from([("of".to_owned(), (*name).to_owned())]))
        })
        .collect();
    let schema = Schema::new_with_metadata(fields, HashMap::from([("origin".to_owned(), "here".to_owned())]));
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

pub(crate) fn scores(table: &RecordBatch) -> Vec<f32> {
    let scores = table.column_by_name("score").unwrap().as_primitive::<Float32Type>();
    assert_eq!(scores.null_count(), 0);
    scores.values().to_vec()
}
