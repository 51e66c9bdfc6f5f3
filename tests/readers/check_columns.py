"""Checks that `rerank run` leaves every column of a Parquet file as it is and adds a score column behind them.

    python check_columns.py --rerank target/release/rerank --work /some/empty/folder

Files are written by pyarrow, DuckDB, polars, pandas and fastparquet, with all types and encodings that these have, and
some by changing the footer of another file. Each is scored twice (as it is, and in units of a few rows), and then:

- The footer, page indexes and bloom filters of the output are compared field by field with the input's. They are
  decoded here, without a library, so that no field is missed. Only positions, and what belongs to the score, may differ.
- Each column chunk is the same bytes.
- Each library reads the same columns, types and values from both. A library that cannot read the input is skipped.
- Equal pairs have equal scores, and rows with a NULL have none.

A query (`--sql`) encodes the columns anew. There, types and values must be the same to DuckDB and pyarrow, or the error
must name the column. Needs pyarrow, duckdb, polars, pandas and fastparquet. `ORT_DYLIB_PATH` and `RERANK_CACHE` are
passed on.
"""

import argparse
import base64
import datetime as dt
import decimal
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ |= {"RUST_BACKTRACE": "0", "POLARS_IMPORT_INTERVAL_AS_STRUCT": "1"}

import duckdb
import fastparquet
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, GROUP_ROWS = 24, 8
TEXTS = ["a river in spring", "", "Zürich – 北京 🦀", "seven words that say nothing at all", "x"]
warnings.simplefilter("ignore")


# Thrift's compact protocol: a struct is a dict of field number -> (type, value), a list is (type of items, items).

BOOL, I32, I64, BINARY, LIST, STRUCT = 1, 5, 6, 8, 9, 12


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at[0]]
        at[0] += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def decode(data, at=None, kind=STRUCT):
    at = at if at is not None else [0]
    take = lambda size: data[(at.__setitem__(0, at[0] + size), at[0] - size)[1] : at[0]]
    if kind in (BOOL, 2):
        return take(1) == b"\x01"
    if kind == 3:
        return take(1)
    if kind in (4, I32, I64):
        value = varint(data, at)
        return value >> 1 ^ -(value & 1)
    if kind == 7:
        return take(8)
    if kind == BINARY:
        return take(varint(data, at))
    if kind in (LIST, 10):
        head = take(1)[0]
        count = head >> 4 if head >> 4 != 15 else varint(data, at)
        return BOOL if head & 15 == 2 else head & 15, [decode(data, at, head & 15) for _ in range(count)]
    assert kind == STRUCT, kind
    fields, number = {}, 0
    while head := take(1)[0]:
        number = number + (head >> 4) if head >> 4 else decode(data, at, I32)
        kind = head & 15
        fields[number] = (BOOL, kind == 1) if kind in (1, 2) else (kind, decode(data, at, kind))
    return fields


def encode_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def encode(value, kind=STRUCT):
    if kind in (BOOL, 2):
        return b"\x01" if value else b"\x02"
    if kind in (4, I32, I64):
        return encode_varint((value << 1 ^ value >> 63) & (1 << 64) - 1)
    if kind == BINARY:
        return encode_varint(len(value)) + value
    if kind == LIST:
        items, values = value
        return bytes([0xF0 | items]) + encode_varint(len(values)) + b"".join(encode(item, items) for item in values)
    if kind != STRUCT:
        return value
    out = b""
    for number, (kind, field) in sorted(value.items()):
        code = (1 if field else 2) if kind == BOOL else kind
        out += bytes([code]) + encode(number, I32) + (b"" if kind == BOOL else encode(field, kind))
    return out + b"\0"


class File:
    """A Parquet file with its footer."""

    def __init__(self, path):
        self.data = Path(path).read_bytes()
        self.length = struct.unpack("<I", self.data[-8:-4])[0]
        self.footer = decode(self.data, [len(self.data) - 8 - self.length])
        self.groups = self.footer[4][1][1]

    def write(self, path):
        footer = encode(self.footer)
        pages = self.data[: len(self.data) - 8 - self.length]
        Path(path).write_bytes(pages + footer + struct.pack("<I", len(footer)) + b"PAR1")


def top_level(file):
    """The schema elements of the columns of a file."""
    elements, left = field(file.footer, 2)[1][1:], []
    for element in elements:
        if not left:
            yield element
        else:
            left[-1] -= 1
        left.append(field(element, 5) or 0)
        while left and not left[-1]:
            left.pop()


def field(value, *numbers):
    for number in numbers:
        value = value.get(number, (0, None))[1] if value is not None else None
    return value


# The comparison of an output with its input.

META = {1: "type", 2: "encodings", 3: "path", 4: "codec", 5: "number of values", 6: "uncompressed size", 8: "metadata",
        7: "compressed size", 12: "statistics", 13: "encoding statistics", 16: "size statistics", 17: "geo statistics"}  # fmt: skip


# Readers that see other types from one file to the next, although it is the same but for the score.
UNSTABLE = {
    # It derives the types of nested columns from what it happens to decode.
    ("duckdb-variant", "fastparquet"),
}
# ENUM is text to a query, which writes it as such.
ENUM_IS_TEXT = "enum.parquet"


def differing(one, other, names):
    return [names.get(n, f"field {n}") for n in sorted({*one, *other}) if one.get(n) != other.get(n)]


STATISTICS = {1: "max", 2: "min", 3: "null count", 4: "distinct count", 5: "max_value", 6: "min_value", 7: "max is exact",
              8: "min is exact", 9: "NaN count"}  # fmt: skip
COLUMN_INDEX = {1: "null pages", 2: "min values", 3: "max values", 4: "boundary order", 5: "null counts", 6: "repetition levels",
                7: "definition levels", 8: "NaN counts"}  # fmt: skip


def changes(what, one, other, names):
    """How a struct of the footer or of a page index differs from its copy."""
    change = lambda a, b: "lost" if not b else f"added{f' ({b[1]})' if b[0] == BOOL else ''}" if not a else "changed"
    if not one or not other:
        return [f"{what} {'lost' if one else 'added'}"] if bool(one) != bool(other) else []
    numbers = [n for n in sorted({*one, *other}) if one.get(n) != other.get(n)]
    return [f"{what}: {names.get(n, n)} {change(one.get(n), other.get(n))}" for n in numbers]


def start(meta):
    dictionary, data = field(meta, 11), field(meta, 9)
    return dictionary if dictionary and (dictionary < data or not data) else data


def column_differences(before, after, chunk, copy):
    """How a column chunk differs from its copy."""
    meta, new = field(chunk, 3), field(copy, 3)
    places = {9, 10, 11, 14, 15}
    # The order of encodings has no meaning.
    rest = lambda meta: {n: v if n != 2 else set(v[1][1]) for n, v in meta.items() if n not in places}
    found = [name for name in differing(rest(meta), rest(new), META) if name != "statistics"]
    found += changes("statistics", field(meta, 12), field(new, 12), STATISTICS)
    read = lambda file, meta: file.data[start(meta) : start(meta) + field(meta, 7)]
    if read(before, meta) != read(after, new):
        found.append("BYTES")
    if field(meta, 11) and field(meta, 9) and field(meta, 9) - start(meta) != field(new, 9) - start(new):
        found.append("position of the dictionary page")
    index = lambda file, chunk, n: file.data[field(chunk, n) :][: field(chunk, n + 1)] if field(chunk, n) else None
    one, other = (part and decode(part) for part in (index(before, chunk, 6), index(after, copy, 6)))
    found += changes("column index", one, other, COLUMN_INDEX)
    one, other = index(before, chunk, 4), index(after, copy, 4)
    if one and other:
        pages = lambda data, meta: [(field(p, 1) - start(meta), field(p, 2), field(p, 3)) for p in field(decode(data), 1)[1]]
        if pages(one, meta) != pages(other, new) or field(decode(one), 2) != field(decode(other), 2):
            found.append("offset index (changed)")
    elif one or other:
        found.append(f"offset index ({'lost' if one else 'added'})")
    if field(meta, 14):
        bloom = lambda file, meta: file.data[field(meta, 14) :]
        head = [field(meta, 14)]
        size = field(decode(before.data, head), 1) + head[0] - field(meta, 14)
        if not field(new, 14) or bloom(before, meta)[:size] != bloom(after, new)[:size]:
            found.append("bloom filter (changed or lost)")
    elif field(new, 14):
        found.append("bloom filter (added)")
    return found


def footer_differences(before, afters):
    """How the footers of the outputs of a file differ from its own, apart from the score column."""
    found = []
    for after in afters:
        one, other = dict(before.footer), dict(after.footer)
        old, new = [list(footer.pop(2)[1][1]) for footer in (one, other)]
        score = new.pop()
        if (field(score, 4), field(score, 1), field(score, 3)) != (b"score", 4, 1):
            found.append(f"the last column is {score}, not the score")
        roots = [{n: v for n, v in schema[0].items() if n != 5} for schema in (old, new)]
        names = {1: "type", 2: "length", 3: "repetition", 4: "name", 6: "converted type", 9: "field id", 10: "logical type"}
        if roots[0] != roots[1]:
            found.append(f"schema root: {', '.join(differing(*roots, names))}")
        for was, now in zip(old[1:], new[1:], strict=True):
            if was != now:
                found.append(f"schema of {field(was, 4)}: {', '.join(differing(was, now, names))}")
        for entries in (one, other):
            entries[5] = (LIST, [(field(e, 1), e.get(2)) for e in (field(entries, 5) or (0, []))[1]])
        hint = lambda e: [v for v in e[5][1] if v[0] != b"ARROW:schema"]
        if hint(one) != hint(other):
            found.append(f"metadata: {hint(one)} / {hint(other)}"[:300])
        arrow = [[v[1][1] for v in e[5][1] if v[0] == b"ARROW:schema"] for e in (one, other)]
        if arrow[0]:
            was, now = [pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text[0]))) for text in arrow]
            if not was.equals(now.remove(len(now) - 1), check_metadata=True) or now[-1] != pa.field("score", pa.float32()):
                found.append("ARROW:schema")
        elif arrow[1]:
            found.append("ARROW:schema was added")
        if 7 in one and 7 in other and one[7][1][1] != other[7][1][1][:-1]:
            found.append("column orders")
        elif (7 in one) != (7 in other):
            found.append(f"column orders ({'lost' if 7 in one else 'added'})")
        for n, name in ((1, "format version"), (6, "created_by"), (8, "encryption")):
            if one.get(n) != other.get(n):
                found.append(f"{name}: {field(one, n)} / {field(other, n)}")
    copies = [(after, group) for after in afters for group in after.groups]
    if len(before.groups) != len(copies):
        return found + [f"{len(copies)} row groups, not {len(before.groups)}"]
    for index, (group, (after, copy)) in enumerate(zip(before.groups, copies)):
        if field(group, 3) != field(copy, 3):
            found.append(f"rows of row group {index}")
        if group.get(4) != copy.get(4):
            found.append(f"sorting columns of row group {index}: {field(group, 4)} / {field(copy, 4)}")
        *chunks, score = field(copy, 1)[1]
        for chunk, new in zip(field(group, 1)[1], chunks, strict=True):
            path = ".".join(part.decode() for part in field(chunk, 3, 3)[1])
            for difference in column_differences(before, after, chunk, new):
                found.append(f"{path}\0{difference}")
    if sum(field(after.footer, 3) for after in afters) != field(before.footer, 3):
        found.append("number of rows")
    return list(dict.fromkeys(found))


def of_pyarrow(paths, int96=None):
    tables = [pq.read_table(path, partitioning=None, coerce_int96_timestamp_unit=int96) for path in paths]
    table = pa.concat_tables(tables)
    drop = [table.schema.get_field_index("score")] if "score" in table.column_names else []
    table = table.remove_column(drop[0]) if drop else table
    return [str(f) + str(f.metadata) for f in table.schema], table


def of_duckdb(paths, connection):
    source = f"FROM read_parquet({[str(p) for p in paths]!r}, file_row_number = true, filename = true)"
    names = [row for row in connection.sql(f"DESCRIBE {source}").fetchall() if row[0] not in ("score", "file_row_number", "filename")]
    quoted = ", ".join('"' + row[0].replace('"', '""') + '"::VARCHAR' for row in names)
    return [row[:2] for row in names], connection.sql(f"SELECT {quoted} {source} ORDER BY filename, file_row_number").fetchall()


def of_polars(paths):
    frame = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in paths])
    frame = frame.drop("score", strict=False)
    return list(frame.schema.items()), [frame.height] + [repr(column.to_list()) for column in frame]


def of_pandas(paths, engine):
    frame = pd.concat([pd.read_parquet(path, engine=engine) for path in paths])
    frame = frame.drop(columns="score", errors="ignore")
    values = [repr(frame[name].tolist()) for name in frame.columns]
    return [(str(n), str(t)) for n, t in frame.dtypes.items()], [repr(frame.index), frame.shape, *values]


READERS = {
    "pyarrow": lambda paths, _: of_pyarrow(paths),
    "DuckDB": of_duckdb,
    "polars": lambda paths, _: of_polars(paths),
    "pandas": lambda paths, _: of_pandas(paths, "pyarrow"),
    "fastparquet": lambda paths, _: of_pandas(paths, "fastparquet"),
}


def same_values(one, other):
    if isinstance(one, pa.Table):
        if one.equals(other):
            return True
        return all(a.equals(b) or repr(a.to_pylist()) == repr(b.to_pylist()) for a, b in zip(one.columns, other.columns))
    return one == other


# The inputs.


def values_of(values, rows=ROWS):
    """Values repeated, with NULLs among them and one row group that is all NULL."""
    spread = [values[i % len(values)] if i % 5 else None for i in range(rows)]
    return [None if GROUP_ROWS <= i < 2 * GROUP_ROWS else value for i, value in enumerate(spread)]


def pairs(rows=ROWS, nulls=True):
    text = lambda shift: [TEXTS[(i + shift) % 5] if not nulls or (i + shift) % 7 else None for i in range(rows)]
    return {"query": pa.array(text(0), pa.string()), "passage": pa.array(text(2), pa.string())}


def arrow_columns():
    """A column of each type that pyarrow can write."""
    day, time = dt.date(2024, 2, 29), dt.datetime(1969, 12, 31, 23, 59, 59, 999000)
    stamps, numbers = [time, dt.datetime(1700, 1, 1), dt.datetime(2261, 5, 6)], [0, 1, -1, 100, -128, 127]
    columns = {"bool": pa.array(values_of([True, False])), "null": pa.nulls(ROWS)}
    for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64()):
        columns[str(kind)] = pa.array(values_of(numbers), kind)
    for bits, kind in ((8, pa.uint8()), (16, pa.uint16()), (32, pa.uint32()), (64, pa.uint64())):
        columns[str(kind)] = pa.array(values_of([0, 1, (1 << bits) - 1]), kind)
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        columns[str(kind)] = pa.array(values_of([1.5, -0.0, 0.0, float("inf"), float("nan")]), kind)
    for kind in (pa.date32(), pa.date64()):
        columns[str(kind)] = pa.array(values_of([day, dt.date(1, 1, 1), dt.date(9999, 12, 31)]), kind)
    for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        columns[str(kind)] = pa.array(values_of([0, 1, 86399]), pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    for unit in ("s", "ms", "us", "ns"):
        columns[f"timestamp {unit}"] = pa.array(values_of(stamps), pa.timestamp(unit))
        columns[f"zoned {unit}"] = pa.array(values_of(stamps), pa.timestamp(unit, tz="Europe/Zurich"))
        columns[f"duration {unit}"] = pa.array(values_of([-1, 0, 1 << 40]), pa.duration(unit))
    for make, digits in ((pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38), (pa.decimal256, 76), (pa.decimal128, 5)):
        number = decimal.Decimal("9" * (digits - 2) + ".25".replace(".", "")).scaleb(-2, decimal.Context(prec=80))
        columns[f"decimal {digits}"] = pa.array(values_of([number, number.copy_negate(), decimal.Decimal("0.01")]), make(digits, 2))
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        columns[str(kind)] = pa.array(values_of([*TEXTS, "é" * 100]), kind)
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4)):
        columns[str(kind)] = pa.array(values_of([b"\0\xff\xfe\x01", b"abcd"]), kind)
    for index in (pa.int8(), pa.int16(), pa.uint8(), pa.int32()):
        columns[f"dictionary {index}"] = pa.array(values_of(["a", "", "ö"])).dictionary_encode().cast(pa.dictionary(index, pa.string()))
    columns["dictionary of large"] = pa.array(values_of(["a", "b"]), pa.large_string()).dictionary_encode()
    columns["dictionary of binary"] = pa.array(values_of([b"a", b"\xff"])).dictionary_encode()
    columns["dictionary of numbers"] = pa.array(values_of([1, 2])).dictionary_encode()
    columns["uuid"] = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values_of([bytes(range(16)), b"\xff" * 16]), pa.binary(16)))
    columns["json"] = pa.ExtensionArray.from_storage(pa.json_(), pa.array(values_of(['{"a": [1, null]}', "null"])))
    columns["bool8"] = pa.ExtensionArray.from_storage(pa.bool8(), pa.array(values_of([0, 1, 7]), pa.int8()))
    item = pa.field("item", pa.int32(), metadata={"PARQUET:field_id": "71", "unit": "m"})
    lists, maps = values_of([[], [None], [1, 2, None], [3]]), values_of([[], [("a", 1)], [("b", None), ("", 2)]])
    for kind in (pa.list_(item), pa.large_list(pa.int32()), pa.list_view(pa.int32())):
        columns[str(kind).split("<")[0]] = pa.array(lists, kind)
    columns["fixed list"] = pa.array(values_of([[1, 2], [3, None]]), pa.list_(pa.int16(), 2))
    columns["map"] = pa.array(maps, pa.map_(pa.string(), pa.int64()))
    columns["lists of lists"] = pa.array(values_of([[], [[]], [["a"], None, []]]), pa.list_(pa.list_(pa.string())))
    columns["list of dictionary"] = pa.array(values_of([["a"], [], ["b", "a"]]), pa.list_(pa.dictionary(pa.int8(), pa.string())))
    inside = pa.struct([pa.field("x.y", pa.int8(), nullable=False), pa.field("list", pa.list_(pa.struct([("d", pa.date32())]))),
                        pa.field("when", pa.timestamp("ns", "UTC")), pa.field("m", pa.map_(pa.int8(), pa.decimal128(20, 3)))])  # fmt: skip
    deep = {"x.y": 1, "list": [{"d": day}, None, {"d": None}], "when": None, "m": [(1, decimal.Decimal("1.125"))]}
    columns["struct"] = pa.array(values_of([deep, {**deep, "list": [], "m": []}, {**deep, "list": None, "m": None}]), inside)
    columns["a.b"], columns['say "x y"'], columns["ключ 🔑"], columns[" "] = (pa.array(range(ROWS)) for _ in range(4))
    return columns


def pyarrow_files(root):
    columns = {**pairs(), **arrow_columns()}
    fields = [pa.field(name, array.type, metadata={"note": name, "PARQUET:field_id": str(i + 1)}) for i, (name, array) in enumerate(columns.items())]
    fields[-1] = fields[-1].with_nullable(False)
    metadata = {"huggingface": '{"info": {}}', "geo": '{"version": "1.1.0", "columns": {}}', "ü": "ö", "empty": ""}
    whole = pa.table(list(columns.values()), schema=pa.schema(fields, metadata=metadata))
    # Some readers and options do not have all types: the "simple" files have those that every library reads.
    odd = re.compile("null|float16|date64|duration|view|dictionary|decimal 76|bool8|struct|list|map|uuid|json|[.]|zoned|time| ns")
    simple = whole.select([name for name in whole.column_names if not odd.search(name)])

    def write(path, table=whole, **options):
        path = root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **{"row_group_size": GROUP_ROWS, **options})
        return path

    for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4"):
        for page in ("1.0", "2.0"):
            write(f"pyarrow-codecs/{codec}-{page}.parquet", compression=codec, data_page_version=page, write_page_index=codec < "m")
            write(f"pyarrow-simple/{codec}-{page}.parquet", simple, compression=codec, data_page_version=page, use_dictionary=page < "2")
    kinds = {
        "plain": {"use_dictionary": False}, "no-statistics": {"write_statistics": False}, "checksums": {"write_page_checksum": True},
        "some-statistics": {"write_statistics": ["query"], "write_page_index": True}, "one-group": {"row_group_size": 1000},
        "sorted": {"sorting_columns": [pq.SortingColumn(2, descending=True, nulls_first=True)]},
        "pages": {"max_rows_per_page": 3, "write_page_index": True, "write_batch_size": 1}, "split": {"use_content_defined_chunking": True},
        "small-dictionaries": {"dictionary_pagesize_limit": 4, "write_batch_size": 2},
        "bloom": {"bloom_filter_options": {"query": True, "int32": {"ndv": 20, "fpp": 0.01}, "string": True}, "write_page_index": True},
        "old-lists": {"use_compliant_nested_type": False},
    }  # fmt: skip
    for name, options in kinds.items():
        write(f"pyarrow-options/{name}.parquet", **options)
        write(f"pyarrow-simple/{name}.parquet", simple, **options)
    encodings = {"int32": "DELTA_BINARY_PACKED", "string": "DELTA_BYTE_ARRAY", "query": "DELTA_LENGTH_BYTE_ARRAY", "double": "BYTE_STREAM_SPLIT", "bool": "RLE"}
    write("pyarrow-simple/encodings.parquet", simple, use_dictionary=False, column_encoding=encodings)
    write("pyarrow-options/zero-rows.parquet", whole.slice(0, 0))
    pq.ParquetWriter(root / "pyarrow-options/zero-groups.parquet", whole.schema).close()
    (root / "pyarrow-groups-of-0").mkdir()
    with pq.ParquetWriter(root / "pyarrow-groups-of-0/a.parquet", whole.schema) as writer:
        for rows in (0, 8, 0, 0, 16, 0):
            writer.write_table(whole.slice(0, rows))
    (root / "pyarrow-groups-of-0-plain").mkdir()
    few = pa.table({**pairs(), "k": pa.array(values_of(["u", "v"]))})
    for name, options in (("text-plain", {"use_dictionary": ["k"]}), ("all-plain", {"use_dictionary": False})):
        with pq.ParquetWriter(root / "pyarrow-groups-of-0-plain" / f"{name}.parquet", few.schema, **options) as writer:
            for rows in (8, 0, 4):
                writer.write_table(few.slice(0, rows))
    write("pyarrow-no-arrow-schema/a.parquet", store_schema=False, write_page_index=True)
    write("pyarrow-version-1/a.parquet", version="1.0")
    write("pyarrow-decimal-integers/a.parquet", store_decimal_as_integer=True, write_time_adjusted_to_utc=True)
    ancient = [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999), dt.datetime(1969, 12, 31, 23, 59, 59)]
    times = {"old": pa.array(values_of(ancient), pa.timestamp("us")), "list": pa.array(values_of([[ancient[0], None], []]), pa.list_(pa.timestamp("us"))),
             "struct": pa.array(values_of([{"t": ancient[1]}, {"t": None}]), pa.struct([("t", pa.timestamp("us"))]))}
    for store in (True, False):
        write(f"pyarrow-int96-{store}/a.parquet", pa.table({**pairs(), **times}), use_deprecated_int96_timestamps=True, store_schema=store)
    write("pyarrow-wide/a.parquet", pa.table({**pairs(), **{f"c{i}": pa.array(range(ROWS)) for i in range(300)}}), write_page_index=True)
    for name, kind in (("dictionary", pa.dictionary(pa.int8(), pa.string())), ("large", pa.large_string()), ("view", pa.string_view()),
                       ("dictionary-large", pa.dictionary(pa.uint16(), pa.large_string()))):  # fmt: skip
        text = {n: pa.chunked_array([a.cast(pa.string()).dictionary_encode().cast(kind) if "dict" in name else a.cast(kind)]) for n, a in pairs().items()}
        write(f"pyarrow-text/{name}.parquet", pa.table({**text, "last": pa.array(range(ROWS))}))
    write("pyarrow-text/null.parquet", pa.table({"query": pa.nulls(ROWS), "passage": pairs()["passage"], "last": pa.array(range(ROWS))}))
    required = pa.schema([pa.field("query", pa.string(), False), pa.field("passage", pa.string(), False), pa.field("last", pa.int64(), False)])
    write("pyarrow-text/required.parquet", pa.table([*pairs(nulls=False).values(), pa.array(range(ROWS))], schema=required))
    # Narrow dictionary keys, with other values in each row group.
    for name, key, count in (("int8", pa.int8(), 100), ("int16", pa.int16(), 20000)):
        path = root / f"pyarrow-keys/{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        with pq.ParquetWriter(path, pa.schema([("query", pa.string()), ("passage", pa.string()), ("key", pa.dictionary(key, pa.string()))])) as writer:
            for part in range(3):
                words = pa.DictionaryArray.from_arrays(pa.array(range(count), key), pa.array([f"{part} {i}" for i in range(count)]))
                writer.write_table(pa.table({**{n: pa.array(["" if count > 100 else "few"] * count) for n in ("query", "passage")}, "key": words}))
    return write("pyarrow-footer/base.parquet", simple.append_column("bytes12", pa.array(values_of([bytes(range(12)), b"\1" * 12]), pa.binary(12))),
                 write_page_index=True, bloom_filter_options={"query": True})  # fmt: skip


def footer_files(base):
    """Files with a footer that pyarrow does not write."""

    def change(name, edit, folder="pyarrow-footer"):
        file = File(base)
        schema = {field(s, 4): s for s in field(file.footer, 2)[1]}
        edit(file, schema, [[field(c, 3) and c for c in field(g, 1)[1]] for g in file.groups])
        path = base.parent.parent / folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        file.write(path)

    def of_meta(edit):
        return lambda file, schema, groups: [edit(field(c, 3)) for group in groups for c in group]

    def remove(*numbers, of=slice(None)):
        return lambda file, schema, groups: [c.pop(n, 0) for group in groups for c in group[of] for n in numbers]

    def annotate(kind, converted, logical, name):
        def edit(file, schema, groups):
            schema[name].pop(6, 0), schema[name].pop(10, 0)
            schema[name].update({6: (I32, converted)} if converted is not None else {})
            schema[name].update({10: (STRUCT, {logical: (STRUCT, {})})} if logical else {})
            file.footer[5] = (LIST, (STRUCT, [e for e in field(file.footer, 5)[1] if field(e, 1) != b"ARROW:schema"]))

        change(kind, edit, f"pyarrow-footer-{kind}")

    def old_statistics(meta):
        statistics = field(meta, 12)
        for new, old in ((5, 1), (6, 2)):
            if statistics and new in statistics:
                statistics[old] = statistics.pop(new)

    def sort(file, schema, groups):
        for i, group in enumerate(file.groups[:2]):
            group[4] = (LIST, (STRUCT, [{1: (I32, i), 2: (BOOL, False), 3: (BOOL, True)}]))

    def entries(file, schema, groups):
        field(file.footer, 5)[1].extend([{1: (BINARY, b"no value")}, {1: (BINARY, b"twice"), 2: (BINARY, b"1")}, {1: (BINARY, b"twice"), 2: (BINARY, b"2")}])

    change("no-author", lambda file, schema, groups: file.footer.pop(6))
    change("no-column-orders", lambda file, schema, groups: file.footer.pop(7))
    change("no-metadata", lambda file, schema, groups: file.footer.pop(5), "pyarrow-footer-no-metadata")
    change("version-1", lambda file, schema, groups: file.footer.update({1: (I32, 1)}))
    change("odd-entries", entries)
    change("sorted-differently", sort)
    change("old-statistics", of_meta(old_statistics))
    change("distinct-counts", of_meta(lambda meta: field(meta, 12) and field(meta, 12).update({4: (I64, 3)})))
    change("column-metadata", of_meta(lambda meta: meta.update({8: (LIST, (STRUCT, [{1: (BINARY, b"k"), 2: (BINARY, b"v")}]))})))
    change("no-encoding-statistics", of_meta(lambda meta: [meta.pop(13, 0), meta.pop(16, 0)]))
    change("bloom-without-length", of_meta(lambda meta: meta.pop(15, 0)))
    change("dictionary-at-0", of_meta(lambda meta: meta.update({11: (I64, 0)}) if 11 not in meta else None))
    change("no-index-of-one", remove(4, 5, 6, 7, of=slice(1, 2)))
    change("no-column-index-of-one", remove(6, 7, of=slice(1, 2)))
    change("offset-index-only", remove(6, 7))
    change("column-index-only", remove(4, 5))
    change("no-group-details", lambda file, schema, groups: [g.pop(n, 0) for g in file.groups for n in (5, 6, 7)])
    change("converted-types-only", lambda file, schema, groups: [s.pop(10, 0) for s in schema.values()], "pyarrow-footer-converted")
    change("logical-types-only", lambda file, schema, groups: [s.pop(6, 0) for s in schema.values()], "pyarrow-footer-logical")
    change("named-root", lambda file, schema, groups: field(file.footer, 2)[1][0].update({3: (I32, 0), 4: (BINARY, b"spark_schema"), 9: (I32, 5)}))
    for kind in (("enum", 4, 4, b"string"), ("json", 19, 12, b"string"), ("bson", 20, 13, b"binary"), ("interval", 21, None, b"bytes12"), ("plain", None, None, b"string")):
        annotate(*kind)


def duckdb_files(root, connection):
    texts = "[NULL, 'a river', '', 'Zürich – 北京 🦀'][1 + i % 4] AS query, ['x', 'some words', NULL][1 + i % 3] AS passage"
    values = ["i % 2 = 0", "(i % 100)::TINYINT", "(i % 200)::UTINYINT", "i::SMALLINT", "i::USMALLINT", "i::INTEGER", "i::UINTEGER", "i::BIGINT", "18446744073709551615::UBIGINT - i",
              "i::HUGEINT", "i::FLOAT", "i::DOUBLE / 7", "(i % 99)::DECIMAL(4, 1)", "i::DECIMAL(9, 2)", "i::DECIMAL(18, 3)", "-i::DECIMAL(38, 10)", "'ünï' || i", "encode('b' || i)",
              "DATE '0001-01-01' + i::INT", "DATE '9999-12-31' - i::INT", "TIME '23:59:59.999999'", "TIMETZ '01:02:03+02'", "TIME_NS '01:02:03.123456789'", "TIMESTAMP '0001-01-01 00:00:00'", "TIMESTAMPTZ '9999-01-01 00:00:00+00'",
              "TIMESTAMP_NS '2020-01-01 00:00:00.123456789'", "TIMESTAMP_MS '2020-01-01 00:00:00'", "TIMESTAMP_S '2020-01-01 00:00:00'", "INTERVAL 14 MONTH + INTERVAL 3 DAY + INTERVAL (i) SECOND",
              "md5(i::VARCHAR)::UUID", "{'a': i}::JSON", "(['sad', 'ok'][1 + i % 2])::ENUM('sad', 'ok')", "'0101'::BIT", "[i, NULL]", "[]::INT[]", "[[i], []]", "{'a': i, 'b c': [i]}",
              "MAP {'k': i}", "MAP {}::MAP(INT, INT[])", "[i, i + 1]::INT[2]", "union_value(n := i)", "[{'u': md5(i::VARCHAR)::UUID}]"]  # fmt: skip
    columns = ", ".join(f"CASE WHEN i % 5 > 0 AND i < 2048 THEN {value} END AS c{n}" for n, value in enumerate(values))
    query = f"SELECT {texts}, {columns} FROM range(2100) r(i)"
    special = {"variant": "{'a': i, 'b': [i], 'c': 'x' || i}::VARIANT", "geometry": "('POINT(' || i || ' 2)')::GEOMETRY", "list-of-intervals": "[INTERVAL (i) MONTH]"}
    small = f"SELECT {texts}, i // 2 AS k, 'v' || i % 3 AS v FROM range(2100) r(i)"
    files = {f"duckdb/{codec}-{v}": (query, f"COMPRESSION {codec}, PARQUET_VERSION {v}, ROW_GROUP_SIZE 2048")
             for codec in ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "LZ4_RAW", "BROTLI") for v in ("V1", "V2")}  # fmt: skip
    files |= {"duckdb/empty": (query + " WHERE false", ""), "duckdb-bloom/a": (small, "ROW_GROUP_SIZE 2048, BLOOM_FILTER_FALSE_POSITIVE_RATIO 0.001"),
              "duckdb-bloom/ids": (small, "FIELD_IDS {query: 7, passage: 8, k: 100, v: 0}, KV_METADATA {origin: 'a ''test'''}")}  # fmt: skip
    files |= {f"duckdb-{name}/a": (f"SELECT {texts}, {value} AS v FROM range(24) r(i)", "") for name, value in special.items()}
    for name, (select, options) in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        connection.execute(f"COPY ({select}) TO '{root / name}.parquet' (FORMAT parquet{', ' + options if options else ''})")


def frame_files(root):
    """Files of polars, pandas and fastparquet."""
    for name in ("polars", "pandas", "fastparquet", "fastparquet-int96"):
        (root / name).mkdir(parents=True)
    text = {name: array.to_pylist() for name, array in pairs().items()}
    data = pl.DataFrame({**text, "category": pl.Series(values_of(["a", "b"]), dtype=pl.Categorical), "enum": pl.Series(values_of(["a", "b"]), dtype=pl.Enum(["b", "a"])),
        "decimal": pl.Series(values_of([decimal.Decimal("1.50")]), dtype=pl.Decimal(38, 2)), "duration": values_of([dt.timedelta(days=1)]), "time": values_of([dt.time(1, 2, 3)]),
        "date": values_of([dt.date(2024, 1, 1)]), "zoned": pl.Series(values_of([dt.datetime(2024, 1, 1)])).dt.replace_time_zone("Asia/Tokyo"), "list": values_of([[1], [], [None]]),
        "array": pl.Series(values_of([[1.0, 2.0]]), dtype=pl.Array(pl.Float32, 2)), "struct": values_of([{"a": 1, "b": ["x", None]}]), "binary": values_of([b"\xff"]),
        "null": [None] * ROWS, "u64": pl.Series(values_of([2**64 - 1]), dtype=pl.UInt64),
        "nan": values_of([float("nan"), 1.0])})  # fmt: skip
    for codec in ("uncompressed", "snappy", "gzip", "brotli", "zstd", "lz4"):
        data.write_parquet(root / f"polars/{codec}.parquet", compression=codec, row_group_size=GROUP_ROWS, data_page_size=64)
    data.write_parquet(root / "polars/full-statistics.parquet", statistics="full", metadata={"key": "välue"})
    data.write_parquet(root / "polars/no-statistics.parquet", statistics=False)
    data.clear().write_parquet(root / "polars/empty.parquet")
    frame = pd.DataFrame({**text, "category": pd.Categorical(values_of(["low", "high"]), ["low", "mid", "high"], ordered=True), "int": pd.array(values_of([1, 2]), "Int32"),
        "when": pd.Series(values_of([dt.datetime(2024, 1, 1)])), "zoned": pd.Series(pd.date_range("2024", periods=ROWS, tz="Europe/Paris")), "numbers": pd.Categorical([3, 1] * 12)},
        index=pd.MultiIndex.from_product([range(2), list("abcdefghijkl")], names=["n", "letter"]))  # fmt: skip
    frame.to_parquet(root / "pandas/multi-index.parquet", row_group_size=GROUP_ROWS)
    frame = frame.reset_index(drop=True)
    frame.assign(n=0, letter="").to_parquet(root / "pandas/range-index.parquet")
    for name, options in (("snappy", {"compression": "SNAPPY"}), ("plain", {"row_group_offsets": 8, "stats": True}), ("index", {"write_index": True})):
        folder = "fastparquet" if name != "index" else "fastparquet-int96"
        fastparquet.write(str(root / folder / f"{name}.parquet"), frame.astype({"query": object, "passage": object}).drop(columns="int"), times="int96" if name == "index" else "int64", **options)


# The runs.


class Checks:
    def __init__(self, rerank, work):
        self.rerank, self.work, self.connection = rerank, work, duckdb.connect()
        self.failed, self.files, self.compared, self.scores, self.notes = 0, 0, {}, {}, []

    def fail(self, name, difference):
        self.failed += 1
        print(f"FAILED {name}: {difference}", flush=True)

    def run(self, source, output, *options):
        command = [self.rerank, "run", str(source), str(output), "--model", "tiny", "--quiet", "--threads", "1", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def scored(self, folder, output):
        """The outputs of each file of a job."""
        files = sorted(folder.rglob("*.parquet"))
        of = lambda file: sorted(output.glob(f"{file.stem}-[0-9][0-9][0-9][0-9][0-9]-{'[0-9a-f]' * 16}.parquet"))
        return [(file, of(file)) for file in files]

    def check_scores(self, name, file, outputs):
        seen = 0
        for output in outputs:
            table = pq.ParquetFile(output).read(columns=["query", "passage", "score"]).to_pylist()
            seen += len(table)
            for row in table:
                pair, score = (row["query"], row["passage"]), row["score"]
                expected = self.scores.setdefault(pair, score)
                if (score is None) != (None in pair) or (score is not None and abs(score - expected) > 1e-3):
                    return self.fail(name, f"the score of {pair} is {score}, not {expected}")
        if seen != pq.ParquetFile(file).metadata.num_rows:
            self.fail(name, f"{seen} scores")

    def read_both(self, name, file, outputs, readers):
        """What each reader makes of a file and of its outputs."""
        for reader, read in readers.items():
            try:
                before = read([file], self.connection)
            except BaseException as error:  # polars panics are no Exception
                self.notes.append(f"{reader} cannot read {name}: {str(error).splitlines()[0][:90]}")
                continue
            try:
                yield reader, before, read(outputs, self.connection)
                self.compared[reader] = self.compared.get(reader, 0) + 1
            except BaseException as error:
                self.fail(name, f"{reader} cannot read the output: {str(error)[:200]}")

    def check_readers(self, name, file, outputs):
        for reader, before, after in self.read_both(name, file, outputs, READERS):
            if (file.parent.name, reader) in UNSTABLE:
                continue
            if before[0] != after[0]:
                pair = next((p for p in zip(before[0], after[0]) if p[0] != p[1]), (len(before[0]), len(after[0])))
                self.fail(name, f"{reader} reads other types: {pair[0]} / {pair[1]}")
            elif not same_values(before[1], after[1]):
                self.fail(name, f"{reader} reads other values")

    def check_folder(self, folder, output, process, options):
        what = f"{folder.name} {' '.join(options)}".strip()
        if process.returncode:
            return self.fail(what, f"the run failed: {process.stderr.strip()}")
        for file, outputs in self.scored(folder, output):
            name = f"{folder.name}/{file.name} {' '.join(options)}".strip()
            if not outputs:
                self.fail(name, "has no output")
                continue
            self.files += 1
            try:
                before, afters = File(file), [File(path) for path in outputs]
                columns = {}
                for difference in footer_differences(before, afters):
                    column, _, difference = difference.rpartition("\0")
                    columns.setdefault(difference, []).append(column)
                for difference, names in columns.items():
                    of = f" (of {len(names)} columns: {', '.join(names[:9])})" if names[0] else ""
                    self.fail(name, f"{difference}{of}")
                self.check_scores(name, file, outputs)
                if not options:
                    self.check_readers(name, file, outputs)
            except Exception as error:
                self.fail(name, f"cannot be compared: {error!r}")

    def check_query(self, file):
        """Compares the output of a query, leaving out one by one the columns that are refused."""
        name, output = f"{file.parent.name}/{file.name} --sql", self.work / "sql" / file.parent.name / file.name
        output.parent.mkdir(parents=True, exist_ok=True)
        names, refused = [field(s, 4).decode() for s in top_level(File(file))], []
        while True:
            quoted = ", ".join('"' + n.replace('"', '""') + '"' for n in names if n not in refused)
            process = self.run(file, output, "--sql", f"SELECT {quoted}, rerank(query, passage) AS score FROM input")
            if process.returncode == 0:
                break
            refusal = next((n for n in sorted(names, key=len, reverse=True) if f"'{n}'" in process.stderr), None)
            if refusal in refused:
                # The whole file is refused.
                return
            if refusal is None or refusal in ("query", "passage"):
                return self.fail(name, f"the run failed: {process.stderr.strip()[-600:]}")
            refused.append(refusal)
            self.notes.append(f"{name} refuses {refusal}: {process.stderr.strip().splitlines()[-1][:300]}")
        self.files += 1
        kept = [n for n in names if n not in refused]

        def of_duckdb_kept(paths, connection):
            types, rows = of_duckdb(paths, connection)
            keep = [i for i, (n, _) in enumerate(types) if n in kept]
            return [types[i] for i in keep], [[row[i] for row in rows] for i in keep]

        def of_pyarrow_kept(paths, _):
            table = of_pyarrow(paths, "us")[1].select(kept)
            return [(f.name, plain(f.type)) for f in table.schema], [[repr(value) for value in column.to_pylist()] for column in table.columns]

        readers = {"DuckDB": of_duckdb_kept, "pyarrow": of_pyarrow_kept}
        if file.name == ENUM_IS_TEXT:
            readers.pop("pyarrow")
        self.check_columns(name, file, output, readers)
        self.check_scores(name, file, [output])

    def check_columns(self, name, file, output, readers):
        for reader, before, after in self.read_both(name, file, [output], readers):
            for one, other, values, new in zip(before[0], after[0], before[1], after[1], strict=True):
                if one != other:
                    self.fail(name, f"{reader} reads another type: {one} / {other}")
                if values != new:
                    pair = next(((a, b) for a, b in zip(values, new) if a != b), None)
                    self.fail(name, f"{reader} reads other values of {one}: {pair}")


def plain(kind):
    """The type as such, however it is packaged: texts of any size, lists of any size, no dictionary."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if isinstance(kind, pa.ExtensionType):
        return str(kind)
    text = re.sub(r"dictionary<values=(\w+), indices=\w+, ordered=\w+>", r"\1", str(kind))
    text = re.sub(r"(large_)?(string|binary|list)(_view)?\b", r"\2", text)
    return re.sub(r"list<(element|item|array|l):", "list<:", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rerank", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--notes", action="store_true", help="print what readers and queries refuse")
    parser.add_argument("--only", default="", help="folders whose name begins with this")
    args = parser.parse_args()
    for name in ("in", "out", "sql"):
        shutil.rmtree(args.work / name, ignore_errors=True)
    root = args.work / "in"
    root.mkdir(parents=True)
    checks = Checks(args.rerank.resolve(), args.work)
    footer_files(pyarrow_files(root))
    duckdb_files(root, checks.connection)
    frame_files(root)
    folders = [folder for folder in sorted(root.iterdir()) if folder.name.startswith(args.only)]
    in_units = re.compile("duckdb-bloom|pandas|pyarrow-(footer|options|text|wide|groups-of-0)")
    jobs = [(folder, args.work / "out" / f"{folder.name}-{len(o)}", o) for folder in folders for o in ([], ["--unit-rows", "5"])
            if not o or in_units.fullmatch(folder.name)]  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        processes = pool.map(lambda job: checks.run(job[0], job[1], *job[2]), jobs)
        for (folder, output, options), process in zip(jobs, processes):
            checks.check_folder(folder, output, process, options)
    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe('{}', 'v', '{}') ORDER BY ALL"
    for file, outputs in checks.scored(root / "duckdb-bloom", args.work / "out" / "duckdb-bloom-0"):
        for value in ("v1", "nothing"):
            one, other = (checks.connection.sql(probe.format(path, value)).fetchall() for path in (file, outputs[0]))
            if one != other:
                checks.fail(file.name, f"the bloom filter answers {other}, not {one}")
    for folder in folders:
        # DuckDB takes the columns of this one for plain integers and bytes.
        if folder.name != "pyarrow-footer-logical":
            checks.check_query(sorted(folder.glob("*.parquet"))[0])
    if args.notes:
        print(*checks.notes, sep="\n")
    read = ", ".join(f"{reader} {count}" for reader, count in checks.compared.items())
    print(f"{checks.files} outputs compared; read by {read}; {checks.failed} failed checks")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
