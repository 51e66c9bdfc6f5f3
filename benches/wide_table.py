"""What the columns cost that are not scored: the same job over a table of 2 columns and one of 200.

    python benches/wide_table.py target/release/rerank [OTHER ...] [--rows N] [--at s3://BUCKET/FOLDER] [--rounds N]

Makes both tables of the rows of tests/fixtures/xquad.parquet, with 198 columns of noise in the wide one, and scores each with
the bundled model. Prints the seconds and the peak memory of each run of each program, the median of the rounds, and the
seconds that copying the bytes takes by itself. With --at, tables and outputs are there, and the environment has the
settings of the store.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tests/fixtures/xquad.parquet"


def run(command):
    """Seconds and peak memory in MiB of a command that must succeed."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)}\n{error}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def make_table(program, file, rows, noise):
    """Repeats the source until it has so many rows. No pair is the same as another."""
    columns = "".join(f", random() AS noise_{number}" for number in range(noise))
    repeats = -(-rows // 1200)
    query = f"""COPY (SELECT query, concat(n.value, ' ', left(passage, 20)) AS passage{columns}
        FROM '{SOURCE}' CROSS JOIN generate_series(1, {repeats}) AS n LIMIT {rows})
        TO '{file}' STORED AS PARQUET OPTIONS (compression 'uncompressed')"""
    run([program, "sql", "-c", query])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at", help="a folder in a bucket")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.at or folder
        tables = {}
        for name, noise in [("2 columns", 0), ("200 columns", 198)]:
            tables[name] = f"{place}/columns-{noise + 2}.parquet"
            make_table(arguments.programs[0], tables[name], arguments.rows, noise)
        if not arguments.at:
            start = time.monotonic()
            shutil.copyfile(tables["200 columns"], f"{folder}/copy")
            size = os.path.getsize(tables["200 columns"])
            print(f"copying the wide table of {size >> 20} MiB takes {time.monotonic() - start:.2f} s")
        results = {}
        for _ in range(arguments.rounds):
            for program in arguments.programs:
                for name, table in tables.items():
                    output = f"{place}/out.parquet"
                    result = run([program, "run", table, output, "--model", "tiny", "--overwrite", "--quiet"])
                    results.setdefault((program, name), []).append(result)
        for (program, name), runs in results.items():
            seconds, memory = (statistics.median(values) for values in zip(*runs))
            every = ", ".join(f"{seconds:.1f}" for seconds, _ in runs)
            print(f"{program}, {name}: {seconds:.1f} s ({every}), peak {memory:.0f} MiB")


if __name__ == "__main__":
    main()
