//! Columns that are not read: they are in the output as they are in the input.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, NullArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType};
use parquet::basic::{ConvertedType, LogicalType};
use parquet::bloom_filter::Sbbf;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::FixedLenByteArrayType;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use predicates::str::contains;

use crate::support::s3::{BUCKET, S3Server};
use crate::support::tables::{
    all_kinds, encode, many_pairs, numbered, pairs, read, scores, write, write_groups, write_with,
};
use crate::support::{assert_fails, data_files, files, fixture, folder, ids, output_rows, rerank, run};

/// Files of other writers, with what is easily lost.
const FILES: [&str; 4] = ["duckdb_types", "int96", "narrow_dictionaries", "page_indexes"];

fn columns(name: &str) -> PathBuf {
    fixture("columns").join(name)
}

fn metadata(path: &Path) -> ParquetMetaData {
    let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
    ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .with_metadata_options(Some(options))
        .parse_and_finish(&File::open(path).unwrap())
        .unwrap()
}

/// The encoded column chunks of a file, each with what the footer says of it but its place.
fn chunks(path: &Path, metadata: &ParquetMetaData) -> Vec<(Vec<u8>, BTreeMap<&'static str, String>)> {
    let (content, file) = (std::fs::read(path).unwrap(), File::open(path).unwrap());
    let mut found = Vec::new();
    for (index, group) in metadata.row_groups().iter().enumerate() {
        for (column, chunk) in group.columns().iter().enumerate() {
            let (start, length) = chunk.byte_range();
            let bytes = content[start as usize..(start + length) as usize].to_vec();
            let start = start as i64;
            let pages = metadata.offset_index().map(|groups| {
                let pages = groups[index][column].page_locations().iter();
                pages
                    .map(|page| (page.offset - start, page.compressed_page_size, page.first_row_index))
                    .collect::<Vec<_>>()
            });
            let bloom = Sbbf::read_from_column_chunk(chunk, &file).unwrap();
            let facts = BTreeMap::from([
                ("column", format!("{:?}", chunk.column_descr())),
                ("codec", format!("{:?} {:?}", chunk.compression_codec(), chunk.encodings_mask())),
                ("values", format!("{} {}", chunk.num_values(), chunk.uncompressed_size())),
                (
                    "places",
                    format!(
                        "{} {:?}",
                        chunk.data_page_offset() - start,
                        chunk.dictionary_page_offset().map(|at| at - start)
                    ),
                ),
                ("statistics", format!("{:?} {:?}", chunk.statistics(), chunk.geo_statistics())),
                (
                    "sizes",
                    format!("{:?}", (chunk.unencoded_byte_array_data_bytes(), chunk.definition_level_histogram())),
                ),
                ("encodings", format!("{:?}", chunk.page_encoding_stats())),
                ("column index", format!("{:?}", metadata.column_index().map(|groups| &groups[index][column]))),
                ("pages", format!("{pages:?}")),
                ("bloom filter", format!("{bloom:?}")),
            ]);
            found.push((bytes, facts));
        }
    }
    found
}

/// Asserts that a file is a copy of some row groups of another with columns added. Returns the row groups it has.
#[track_caller]
fn assert_copy(output: &Path, input: &Path, first_group: usize, added: &[&str]) -> usize {
    let (copy, own) = (metadata(output), metadata(input));
    let name = output.display();
    let (schema, own_schema) = (copy.file_metadata().schema(), own.file_metadata().schema());
    assert_eq!(schema.name(), own_schema.name(), "{name}");
    let width = own_schema.get_fields().len();
    assert_eq!(schema.get_fields()[..width], own_schema.get_fields()[..], "{name}");
    let names: Vec<&str> = schema.get_fields()[width..].iter().map(|field| field.name()).collect();
    assert_eq!(names, added, "{name}");
    assert_eq!(copy.file_metadata().created_by(), own.file_metadata().created_by(), "{name}");
    let entries = |metadata: &ParquetMetaData| {
        let entries = metadata.file_metadata().key_value_metadata().into_iter().flatten();
        entries
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .filter(|(key, _)| key != "ARROW:schema")
            .collect::<Vec<_>>()
    };
    assert_eq!(entries(&copy), entries(&own), "{name}");

    let groups = first_group..first_group + copy.num_row_groups();
    for (group, own) in copy.row_groups().iter().zip(&own.row_groups()[groups.clone()]) {
        assert_eq!(group.num_rows(), own.num_rows(), "{name}");
        assert_eq!(group.sorting_columns(), own.sorting_columns(), "{name}");
    }
    let leaves = own.file_metadata().schema_descr().num_columns();
    let wide = copy.file_metadata().schema_descr().num_columns();
    let copied = chunks(output, &copy);
    let copied = copied.chunks(wide).flat_map(|group| &group[..leaves]);
    let own_chunks = chunks(input, &own);
    let expected = &own_chunks[groups.start * leaves..groups.end * leaves];
    for (chunk, own) in copied.zip(expected) {
        assert_eq!(chunk.1, own.1, "{name}");
        assert!(chunk.0 == own.0, "{name}: the bytes of a column chunk differ: {:?}", own.1["column"]);
    }
    groups.len()
}

#[test]
fn a_copy_has_the_column_chunks_of_its_input() {
    let (_folder, at) = folder();
    let indexed = WriterProperties::builder()
        .set_bloom_filter_enabled(true)
        .set_max_row_group_row_count(Some(2))
        .set_data_page_row_count_limit(1)
        .build();
    write_with(&at("written.parquet"), &all_kinds(), indexed);
    write(&at("empty.parquet"), &many_pairs(0));
    let inputs = FILES.map(|name| columns(&format!("{name}.parquet"))).into_iter();
    let inputs: Vec<PathBuf> = inputs.chain([at("written.parquet"), at("empty.parquet")]).collect();
    for input in &inputs {
        let output = at("out.parquet");
        run(input, &output).args(["--overwrite", "--on-error=null"]).assert().success();
        let groups = assert_copy(&output, input, 0, &["score", "score_error"]);
        assert_eq!(groups, metadata(input).num_row_groups());

        // In a directory, and with several scores.
        let output = at(&format!("job-{}", input.file_stem().unwrap().display()));
        let mut job = rerank();
        job.arg("run").args([input, &output]).args(["--unit-rows=100", "--cutoff-layers=2,3", "--score=scores"]);
        let layers = format!("--model={}", fixture("tiny-minicpm-layerwise-reranker").display());
        job.arg(layers).assert().success();
        let mut first_group = 0;
        for file in data_files(&output) {
            first_group += assert_copy(&output.join(file), input, first_group, &["scores"]);
        }
        assert_eq!(first_group, metadata(input).num_row_groups());
    }
}

#[test]
fn arrow_metadata_gains_the_score_and_loses_nothing() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &all_kinds());
    run(at("in.parquet"), at("out.parquet")).assert().success();
    let (input, output) = (read(&at("in.parquet")), read(&at("out.parquet")));
    let width = input.num_columns();
    assert_eq!(output.schema().fields()[..width], input.schema().fields()[..]);
    assert_eq!(output.schema().metadata(), input.schema().metadata());
    assert_eq!(output.schema().field(width).data_type(), &DataType::Float32);
    assert_eq!(output.columns()[..width], *input.columns());
}

#[test]
fn wide_tables_and_large_cells_need_no_more_memory() {
    let (_folder, at) = folder();
    let table = many_pairs(200);
    // A gigabyte of cells that are all the same, which is little on disk.
    let cell = "x".repeat(5 << 20);
    let cells: ArrayRef = Arc::new(StringArray::from_iter_values((0..200).map(|_| &cell)));
    let html = ["query", "passage", "html"].into_iter().zip(table.columns().iter().cloned().chain([cells]));
    let compressed = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .build();
    write_with(&at("in.parquet"), &RecordBatch::try_from_iter(html).unwrap(), compressed);
    let mut limited = std::process::Command::new("sh");
    // Address space is limited, which is more than memory: libraries and threads take a part of it.
    limited.arg("-c").arg(r#"ulimit -d 700000; exec "$@""#).arg("sh").arg(env!("CARGO_BIN_EXE_rerank"));
    limited
        .arg("run")
        .args([at("in.parquet"), at("out.parquet")])
        .args([&crate::support::model("tiny-xlmr-reranker"), "--threads=1"]);
    let output = limited.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_copy(&at("out.parquet"), &at("in.parquet"), 0, &["score"]);
}

// Units inside of a row group.

/// A job in units of 100 rows over a file with one row group of 1,000 rows and a small one.
fn write_pieces(path: &Path) {
    let rows = numbered(0, 1_050);
    write_groups(path, &rows, 1_000);
}

fn pieces(input: &Path, output: &Path) -> assert_cmd::Command {
    let mut command = run(input, output);
    command.args(["--unit-rows=100", "--window-rows=64", "--batch-tokens=256", "--threads=1"]);
    command
}

#[test]
fn units_divide_a_large_row_group_and_its_file_is_one() {
    let (_folder, at) = folder();
    write_pieces(&at("in.parquet"));
    pieces(&at("in.parquet"), &at("out")).assert().success().stderr(contains("1,050 rows in 2 files"));
    let names = data_files(&at("out"));
    assert_eq!(names.len(), 2);
    assert_eq!(assert_copy(&at("out").join(&names[0]), &at("in.parquet"), 0, &["score"]), 1);
    assert_eq!(assert_copy(&at("out").join(&names[1]), &at("in.parquet"), 1, &["score"]), 1);
    assert_eq!(ids(&output_rows(&at("out"))), (0..1_050).collect::<Vec<_>>());
    assert_eq!(files(&at("out/_rerank/units")).len(), 11);
    assert_eq!(files(&at("out/_rerank/scores")).len(), 10);

    let mut status = rerank();
    status.arg("status").arg(at("out"));
    status.assert().success().stdout(contains("1 of 1 file of several units complete"));

    // The scores are those of a run that is not cut.
    run(at("in.parquet"), at("whole.parquet")).assert().success();
    let (cut, whole) = (scores(&output_rows(&at("out"))), scores(&read(&at("whole.parquet"))));
    assert!(cut.iter().zip(&whole).all(|(one, other)| (one - other).abs() < 1e-4));

    // A file that is lost is made of the scores again, and one without scores is scored again.
    let before = std::fs::read(at("out").join(&names[0])).unwrap();
    std::fs::remove_file(at("out").join(&names[0])).unwrap();
    pieces(&at("in.parquet"), &at("out")).assert().success().stderr(contains("11 of 11 units committed already"));
    assert!(std::fs::read(at("out").join(&names[0])).unwrap() == before);
    std::fs::remove_file(at("out").join(&names[0])).unwrap();
    std::fs::remove_file(at("out/_rerank/scores").join(&files(&at("out/_rerank/scores"))[3])).unwrap();
    pieces(&at("in.parquet"), &at("out")).assert().success().stderr(contains("10 of 11 units committed already"));
    assert!(std::fs::read(at("out").join(&names[0])).unwrap() == before);
    // Once a file is complete its scores are not needed.
    std::fs::remove_dir_all(at("out/_rerank/scores")).unwrap();
    pieces(&at("in.parquet"), &at("out")).assert().success().stderr(contains("11 of 11 units committed already"));
    pieces(&at("in.parquet"), &at("out")).args(["--restart", "--max-length=16"]).assert().success();
    assert!(data_files(&at("out")).iter().all(|name| !names.contains(name)), "a file of the old job is left");
    assert_eq!(ids(&output_rows(&at("out"))), (0..1_050).collect::<Vec<_>>());
}

#[test]
fn a_job_killed_inside_of_a_row_group_loses_no_unit() {
    let (_folder, at) = folder();
    write_pieces(&at("in.parquet"));
    pieces(&at("in.parquet"), &at("undisturbed")).assert().success();
    for units in [1, 3, 7] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rerank"))
            .arg("run")
            .args([at("in.parquet"), at("out")])
            .args(["--unit-rows=100", "--window-rows=64", "--batch-tokens=256", "--threads=1"])
            .arg(crate::support::model("tiny-xlmr-reranker"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let done = || files(&at("out/_rerank/units")).iter().filter(|name| !name.contains('#')).count();
        while done() < units && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_mins(1), "no {units} units in a minute");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What appears is complete.
        for name in data_files(&at("out")) {
            read(&at("out").join(name));
        }
    }
    pieces(&at("in.parquet"), &at("out")).assert().success();
    assert_eq!(files(&at("out")), files(&at("undisturbed")));
    for name in data_files(&at("out")) {
        let content = |folder: &str| std::fs::read(at(folder).join(&name)).unwrap();
        assert!(content("out") == content("undisturbed"), "{name} differs");
    }
}

// How texts are packaged.

#[test]
fn texts_are_read_however_they_are_packaged() {
    let (_folder, at) = folder();
    let rows: Vec<(String, String)> =
        (0..300).map(|i| (format!("question {}", i % 40), format!("{i} words"))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(query, passage)| (query.as_str(), passage.as_str())).collect();
    let plain = pairs(&rows);
    let words = |keys| DataType::Dictionary(Box::new(keys), Box::new(DataType::Utf8));
    let layouts = [
        ("a", DataType::Utf8, DataType::Utf8),
        ("b", words(DataType::Int8), DataType::LargeUtf8),
        ("c", DataType::Utf8View, words(DataType::UInt16)),
        ("d", DataType::LargeUtf8, words(DataType::Int64)),
    ];
    for (name, query, passage) in layouts {
        let columns = [cast(plain.column(0), &query).unwrap(), cast(plain.column(1), &passage).unwrap()];
        let table = RecordBatch::try_from_iter(["query", "passage"].into_iter().zip(columns)).unwrap();
        // Row groups of 100 rows have other values than the ones before.
        write_groups(&at(&format!("in/{name}.parquet")), &table, 100);
    }
    let nothing: ArrayRef = Arc::new(NullArray::new(5));
    let nulls = [("query", Arc::clone(&nothing)), ("passage", nothing)];
    write(&at("in/null.parquet"), &RecordBatch::try_from_iter(nulls).unwrap());

    run(at("in"), at("out")).assert().success();
    let outputs: Vec<RecordBatch> = data_files(&at("out")).iter().map(|name| read(&at("out").join(name))).collect();
    let expected = scores(&outputs[0]);
    for output in &outputs[1..4] {
        assert_eq!(scores(output), expected, "{}", output.schema());
    }
    assert_eq!(outputs[4].column_by_name("score").unwrap().null_count(), 5);

    // A query reads them as one table, too.
    let mut query = run(at("in"), at("queried"));
    query.args(["--sql", "SELECT query, rerank(query, passage) AS score FROM input WHERE query IS NOT NULL"]);
    query.assert().success();
    let names = data_files(&at("queried"));
    let outputs: Vec<RecordBatch> = names.iter().map(|name| read(&at("queried").join(name))).collect();
    assert!(outputs[..4].iter().all(|output| scores(output) == expected));
    assert!(outputs.iter().all(|output| output.schema() == outputs[0].schema()));

    // The same column may be both.
    run(at("in/a.parquet"), at("same.parquet")).args(["--query=passage"]).assert().success();
}

#[test]
fn files_that_cannot_be_read_name_the_column() {
    let (_folder, at) = folder();
    for (name, expected) in [
        ("two_columns_of_a_name", "it has two columns named 'passage'; rename one"),
        ("int128", "column 'wide': is of type Int128, which Arrow does not have; cast it to another"),
        ("encrypted", "its column 'passage' is encrypted; write a copy that is not"),
        ("damaged_page", "column 'passage', row group 0, page 1: Parquet error: Page CRC checksum mismatch"),
    ] {
        let input = columns(&format!("{name}.parquet"));
        assert_fails(run(&input, at("out.parquet")), expected);
        assert_eq!(files(&at("")), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn dictionaries_whose_groups_differ_have_all_their_values() {
    let (_folder, at) = folder();
    run(columns("narrow_dictionaries.parquet"), at("out.parquet")).assert().success();
    let metadata = metadata(&at("out.parquet"));
    assert_eq!(metadata.num_row_groups(), 2);
    let mut query = run(columns("narrow_dictionaries.parquet"), at("query.parquet"));
    query.args(["--sql", "SELECT *, rerank(query, passage) AS score FROM input"]).assert().success();
    let table = read(&at("query.parquet"));
    let queries = cast(table.column(0), &DataType::Utf8).unwrap();
    let distinct: std::collections::HashSet<&str> = queries.as_string::<i32>().iter().flatten().collect();
    assert_eq!(distinct.len(), 200);
}

// Queries decode and encode: what Parquet has is kept.

#[test]
fn a_query_keeps_the_types_and_values_that_parquet_has() {
    let (_folder, at) = folder();
    let query = |name: &str, sql: &str| {
        let output = at(&format!("{name}.parquet"));
        run(columns(&format!("{name}.parquet")), &output).args(["--sql", sql]).assert().success();
        output
    };
    let output = query("duckdb_types", "SELECT *, keep + INTERVAL '2 days' AS longer FROM input");
    let footer = metadata(&output);
    let schema = footer.file_metadata().schema();
    let column =
        |name: &str| schema.get_fields().iter().find(|field| field.name() == name).unwrap().get_basic_info().clone();
    assert_eq!(column("doc").logical_type_ref(), Some(&LogicalType::Uuid));
    assert_eq!(column("json").logical_type_ref(), Some(&LogicalType::Json));
    for name in ["keep", "longer"] {
        assert_eq!(column(name).converted_type(), ConvertedType::INTERVAL);
    }
    let bytes = |name: &str| interval_bytes(&output, name);
    assert_eq!(bytes("keep")[1], [14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes("longer")[1], [14, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    // As an Arrow file, an interval is one of all its parts.
    let arrow = at("types.arrow");
    run(columns("duckdb_types.parquet"), &arrow).args(["--sql", "SELECT keep FROM input"]).assert().success();
    let mut reader = arrow_ipc::reader::FileReader::try_new(File::open(arrow).unwrap(), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    let values = batch.column(0).as_primitive::<IntervalMonthDayNanoType>();
    assert_eq!(values.value(99), IntervalMonthDayNano::new(13 + 99, 99, 0));

    let output = query("int96", "SELECT load_date, CAST(load_date AS VARCHAR) AS text FROM input");
    let table = read(&output);
    let texts: Vec<Option<String>> = cast(table.column(1), &DataType::Utf8)
        .unwrap()
        .as_string::<i32>()
        .iter()
        .map(|text| text.map(str::to_owned))
        .collect();
    assert_eq!(texts[0].as_deref(), Some("9999-12-31T02:00:00"));
    assert_eq!((texts[1].as_deref(), texts[3].as_deref()), (Some("0001-01-01T00:00:00"), None));
}

/// The values of an interval column as they are stored.
fn interval_bytes(path: &Path, column: &str) -> Vec<Vec<u8>> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let leaf = schema.columns().iter().position(|leaf| leaf.name() == column).unwrap();
    let group = reader.get_row_group(0).unwrap();
    let mut values = get_typed_column_reader::<FixedLenByteArrayType>(group.get_column_reader(leaf).unwrap());
    let mut read = Vec::new();
    values.read_records(usize::MAX, Some(&mut Vec::new()), None, &mut read).unwrap();
    read.iter().map(|value| value.data().to_vec()).collect()
}

#[test]
fn intervals_inside_of_others_are_refused_by_name() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &many_pairs(2));
    let mut nested = run(at("in.parquet"), at("out.parquet"));
    nested.args(["--sql", "SELECT [INTERVAL '1 month'] AS months FROM input"]);
    assert_fails(nested, "column 'months' has intervals inside, which cannot be written to Parquet");
}

// Names.

#[test]
fn files_and_folders_keep_their_names_byte_for_byte() {
    let (_folder, at) = folder();
    let names = ["lang=a%2Fb/ts=2020-01-01%2001%3A00%3A00/x", "100% #1?/a b+c&d=e", "中文/é~(1)", "plain"];
    for (number, name) in (0..).zip(names) {
        write(&at(&format!("in/{name}.parquet")), &numbered(number, 1));
    }
    let inputs = |outputs: Vec<String>| {
        let mut names: Vec<String> = outputs.iter().map(|name| crate::support::input_of(name)).collect();
        names.sort();
        names
    };
    let mut expected = names.map(str::to_owned);
    expected.sort();
    run(at("in"), at("out")).assert().success();
    assert_eq!(inputs(data_files(&at("out"))), expected);

    // In a bucket, from a bucket to a disk, and back.
    let server = S3Server::start();
    for (number, name) in (0..).zip(names) {
        server.put(&format!("in/{name}.parquet"), encode(&numbered(number, 1)));
    }
    let url = |key: &str| format!("s3://{BUCKET}/{key}");
    let down = at("down").to_str().unwrap().to_owned();
    for (from, to) in [(url("in"), url("out")), (url("in"), down), (at("in").to_str().unwrap().to_owned(), url("up"))] {
        let mut command = run(&from, &to);
        command.envs(server.environment()).assert().success();
    }
    assert_eq!(inputs(data_files(&at("down"))), expected);
    for folder in ["out", "up"] {
        let keys =
            server.list(folder).into_iter().map(|key| key.strip_prefix(&format!("{folder}/")).unwrap().to_owned());
        assert_eq!(inputs(keys.filter(|key| !key.starts_with("_rerank/")).collect()), expected, "{folder}");
    }
}

#[test]
fn partitions_of_the_path_are_columns_of_a_query() {
    let (_folder, at) = folder();
    let mut query = run(columns("partitions"), at("out"));
    let sql = "SELECT *, lang || ' ' || ts AS both, lang AS language, rerank(query, passage) AS score FROM input";
    query.args(["--sql", sql]).assert().success();
    let mut rows: Vec<(String, String)> = Vec::new();
    for name in data_files(&at("out")) {
        let table = read(&at("out").join(&name));
        // They are in the path still, so a reader of the folder has them once.
        assert!(table.column_by_name("lang").is_none() && table.column_by_name("ts").is_none());
        let text = |column: &str| cast(table.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
        let value = |column: &str| text(column).as_string::<i32>().value(0).to_owned();
        assert!(name.starts_with("lang="), "{name}");
        rows.push((value("both"), value("language")));
    }
    rows.sort();
    let expected =
        [("a/b 2020-01-01 02:00:00", "a/b"), ("en 2020-01-01 00:00:00", "en"), ("中文 2020-01-01 01:00:00", "中文")];
    assert_eq!(rows, expected.map(|(both, language)| (both.to_owned(), language.to_owned())));

    let mut some = run(columns("partitions"), at("some"));
    some.args(["--sql", "SELECT id FROM input WHERE lang = 'a/b'"]).assert().success();
    assert_eq!(ids(&output_rows(&at("some"))), [2]);
    for (sql, expected) in [
        ("SELECT id, upper(lang) AS lang FROM input", "the column 'lang' of the result would have another value"),
        ("SELECT lang, ts FROM input", "returns only columns that are in the names of folders"),
    ] {
        let mut refused = run(columns("partitions"), at("refused"));
        refused.args(["--sql", sql]);
        assert_fails(refused, expected);
    }
}
