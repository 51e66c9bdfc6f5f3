"""Times this library against FlagEmbedding and sentence-transformers: the same checkpoints, the same pairs, one machine.

    make bench-peers                                                    # everything, about half an hour on two cores
    make bench-peers BENCH_ARGS='--shapes xlmr-12x384 --pairs 32'       # a quick look
    make bench-peers BENCH_ARGS='--checkpoint DIR --family m3 --pairs-file FILE'    # a checkpoint and pairs of your own

Every contestant is a process that keeps its model loaded: loading is not timed. One call with all pairs as text is timed,
including tokenization. All have the same number of threads. The contestants take turns, one pass each, so that other load
on the machine affects them alike. A ratio is the median of the ratios within each round, with the smallest and the largest
beside it. The ratio of processor times is reported too: on a busy machine it is steadier, at least with --threads 1, since
threads that wait for each other may spin.

The other libraries run with the batch size of --batch-sizes that was fastest in a first pass over the same pairs (their own
defaults are 128 for FlagEmbedding and 32 for CrossEncoder). This library runs with its default of 512 tokens per thread.

Checkpoints have random weights, which cost as much as trained ones. The pairs are real text, spread evenly over
tests/fixtures/xquad.parquet. Pairs of your own are a JSON array of [query, passage]. The table goes to standard output, and
all results, including each pass, to --json.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
XQUAD = ROOT / "tests" / "fixtures" / "xquad.parquet"

# Dimensions for make_checkpoint.py. The vocabularies are smaller than the published ones, to save disk space: an embedding
# is only a lookup. Where the reference multiplies by the whole vocabulary (gemma), the vocabulary keeps the published
# checkpoint's proportion to the layers, a quarter.
SHAPES = {
    "xlmr-12x384": dict(
        family="m3", pairs=256, layers=12, hidden=384, heads=12, intermediate=1536, vocabulary=32768
    ),
    "xlmr-24x1024": dict(
        family="m3", pairs=24, layers=24, hidden=1024, heads=16, intermediate=4096, vocabulary=32768
    ),
    "gemma-6x512": dict(
        family="gemma", pairs=64, layers=6, hidden=512, heads=4, kv_heads=1, head_dim=128, intermediate=4096,
        vocabulary=20000,
    ),
    "minicpm-12x384": dict(
        family="minicpm", pairs=64, layers=12, hidden=384, heads=6, kv_heads=6, intermediate=960, vocabulary=16000,
        start_layer=8,
    ),
    "gemma2-12x384": dict(
        family="gemma2", pairs=64, layers=12, hidden=384, heads=4, kv_heads=2, head_dim=96, intermediate=1536,
        vocabulary=16000, start_layer=8,
    ),
}  # fmt: skip

REFERENCE = "FlagEmbedding"


class Contestant:
    """A process that scores on request."""

    def __init__(self, name, command, batch_sizes, environment):
        self.name, self.batch_sizes, self.tried = name, batch_sizes, {}
        self.passes, self.cpu_passes, self.last = [], [], None
        # Receives progress bars as well as error messages.
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
        )  # fmt: skip
        self.versions = self.answer()["versions"]
        self.batch = batch_sizes[0]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.log.seek(0)
            sys.exit(f"{self.log.read()}{self.name} ended with status {status}")
        return json.loads(line)

    def run(self, batch):
        self.process.stdin.write(f"{batch}\n")
        self.process.stdin.flush()
        return self.answer()

    def tune(self):
        """Runs a first pass with each batch size, which also warms up, and keeps the fastest size."""
        self.tried = {batch: self.run(batch)["seconds"] for batch in self.batch_sizes}
        self.batch = min(self.tried, key=self.tried.get)

    def time(self):
        before = self.cpu_seconds()
        self.last = self.run(self.batch)
        self.passes.append(self.last["seconds"])
        self.cpu_passes.append(self.cpu_seconds() - before)

    def cpu_seconds(self):
        """The processor time of all threads of the process, from the kernel."""
        after_name = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def checkpoint(folder, name, shape):
    """The checkpoint of a shape; made if it is missing."""
    out = folder / name
    if not out.exists():
        dimensions = [part for key, value in shape.items() if key not in ("family", "pairs")
                      for part in ("--" + key.replace("_", "-"), str(value))]  # fmt: skip
        unfinished = folder / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make = [sys.executable, ROOT / "benches" / "make_checkpoint.py", unfinished, "--family", shape["family"]]
        subprocess.run([*make, *dimensions], check=True, stdout=sys.stderr)
        unfinished.rename(out)
    return out


def sample(count):
    """`count` pairs spread evenly over the bundled table, and therefore over its languages."""
    import pyarrow.parquet as pq

    table = pq.read_table(XQUAD, columns=["query", "passage"])
    rows = list(zip(*(column.to_pylist() for column in table.columns)))
    if count > len(rows):
        sys.exit(f"--pairs {count}: the bundled table has {len(rows)} rows")
    return [rows[index * len(rows) // count] for index in range(count)]


def build():
    """Builds our side in release mode, without DataFusion, which is not needed here."""
    cargo = ["cargo", "build", "--release", "--package", "datafusion-rerank", "--no-default-features", "--bench", "serve"]
    built = subprocess.run([*cargo, "--message-format=json"], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    (executable,) = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "serve"]
    return executable


def machine():
    def field(command, name):
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
        return next((line.split(":", 1)[1].strip() for line in lines.splitlines() if line.startswith(name)), "unknown")

    flags = field(["lscpu"], "Flags").split()
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    onnxruntime = sorted(file.name for file in (ROOT / ".onnxruntime").glob("*onnxruntime*"))
    return {
        "cpu": field(["lscpu"], "Model name"),
        "cores": os.cpu_count(),
        "vectors": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags],
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": os.environ.get("ORT_DYLIB_PATH") or onnxruntime,
    }


def rank_correlation(a, b):
    import numpy as np

    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def measure(name, shape, args, folder):
    model = args.checkpoint or checkpoint(folder, name, shape)
    pairs = json.loads(args.pairs_file.read_text()) if args.pairs_file else sample(args.pairs or shape["pairs"])
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads), OMP_NUM_THREADS=str(args.threads))
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(pairs, file, ensure_ascii=False)
        file.flush()
        task = {"family": shape["family"], "model": str(model), "pairs": file.name, "threads": args.threads}
        contestants = []
        for library in (REFERENCE, "sentence-transformers"):
            if library == REFERENCE or shape["family"] == "m3":
                command = [sys.executable, HERE / "peer.py", json.dumps({"library": library, **task})]
                contestants.append(Contestant(library, command, args.batch_sizes, environment))
        for precision in args.precisions:
            ours = {**task, "cache": str(folder / "cache"), "options": {"precision": precision}}
            contestants.append(
                Contestant(f"datafusion-rerank {precision}", [args.serve, json.dumps(ours)], [None], environment)
            )
        for contestant in contestants:
            contestant.tune()
        loads = []
        for number in range(args.rounds):
            loads.append(os.getloadavg()[0])
            for contestant in contestants:
                contestant.time()
            taken = ", ".join(f"{c.name} {c.passes[-1]:.2f} s" for c in contestants)
            print(f"{name}, round {number + 1} of {args.rounds}: {taken}", file=sys.stderr)
        for contestant in contestants:
            contestant.close()
    return report(name, shape, pairs, contestants, loads)


def report(name, shape, pairs, contestants, loads):
    reference = contestants[0]
    rows = []
    for contestant in contestants:
        seconds = statistics.median(contestant.passes)
        ratios = [theirs / own for theirs, own in zip(reference.passes, contestant.passes)]
        scores = contestant.last["scores"]
        difference = max(abs(a - b) for a, b in zip(scores, reference.last["scores"], strict=True))
        row = {
            "name": contestant.name,
            "batch": contestant.batch,
            "first_pass_seconds_by_batch": contestant.tried,
            "seconds": contestant.passes,
            "median_seconds": seconds,
            "cpu_seconds": contestant.cpu_passes,
            "median_cpu_seconds": statistics.median(contestant.cpu_passes),
            "pairs_per_second": len(pairs) / seconds,
            "times_reference": statistics.median(ratios),
            "times_reference_least": min(ratios),
            "times_reference_most": max(ratios),
            "times_reference_by_cpu_seconds": statistics.median(
                theirs / own for theirs, own in zip(reference.cpu_passes, contestant.cpu_passes)
            ),
            "largest_difference": difference,
            "rank_correlation": rank_correlation(scores, reference.last["scores"]),
            "versions": contestant.versions,
        }
        ours = {key: value for key, value in contestant.last.items() if key not in ("seconds", "scores")}
        rows.append({**row, **ours})
    ours = rows[-1]
    return {
        "shape": name,
        "dimensions": shape,
        "pairs": len(pairs),
        "tokens_per_pair": ours["tokens"] / len(pairs),
        "reference_score_deviation": statistics.pstdev(reference.last["scores"]),
        "load_average_before_rounds": loads,
        "contestants": rows,
    }


def markdown(results):
    lines = [
        "| checkpoint | pairs, tokens a pair | contestant | batch | pairs/s | times FlagEmbedding (least to most) "
        "| by CPU seconds | largest score difference (rank correlation) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for row in result["contestants"]:
            batch = f"{row['batch']} pairs" if row["batch"] else "512 tokens a thread"
            ratio = "1" if row["name"] == REFERENCE else (
                f"**{row['times_reference']:.2f}** "
                f"({row['times_reference_least']:.2f} to {row['times_reference_most']:.2f})"
            )  # fmt: skip
            by_cpu = "1" if row["name"] == REFERENCE else f"{row['times_reference_by_cpu_seconds']:.2f}"
            difference = "" if row["name"] == REFERENCE else (
                f"{row['largest_difference']:.0e} ({row['rank_correlation']:.4f})"
            )  # fmt: skip
            lines.append(
                f"| {result['shape']} | {result['pairs']}, {result['tokens_per_pair']:.0f} | {row['name']} | {batch} "
                f"| {row['pairs_per_second']:.2f} | {ratio} | {by_cpu} | {difference} |"
            )
    return "\n".join(lines)


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help=f"some of {', '.join(SHAPES)}")
    parser.add_argument("--pairs", type=int, help="pairs, instead of each shape's own number")
    parser.add_argument("--checkpoint", type=pathlib.Path, help="a checkpoint, instead of shapes")
    parser.add_argument("--family", choices=sorted({shape["family"] for shape in SHAPES.values()}), help="its family")
    parser.add_argument("--pairs-file", type=pathlib.Path, help="pairs, instead of the bundled ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch-sizes", type=numbers, default=[8, 32, 128], help="what the others may choose from")
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "int8"], help="ours")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "target" / "bench-peers", help="for checkpoints")
    parser.add_argument("--json", type=pathlib.Path, help="default: results.json in --folder")
    parser.add_argument("--serve", help="our side, built already")
    args = parser.parse_args()
    if bool(args.checkpoint) != bool(args.family):
        sys.exit("--checkpoint and --family go together")
    shapes = {name: SHAPES.get(name) for name in args.shapes.split(",")}
    if unknown := [name for name, shape in shapes.items() if shape is None]:
        sys.exit(f"--shapes {unknown[0]}: there is no such shape; the shapes are {', '.join(SHAPES)}")
    if args.checkpoint:
        shapes = {args.checkpoint.name: {"family": args.family, "pairs": SHAPES["xlmr-12x384"]["pairs"]}}
    args.folder.mkdir(parents=True, exist_ok=True)
    args.serve = args.serve or build()
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "threads": args.threads,
        "rounds": args.rounds,
        "shapes": [],
    }
    out = args.json or args.folder / "results.json"
    for name, shape in shapes.items():
        results["shapes"].append(measure(name, shape, args, args.folder))
        # After each shape, so that an interrupted run keeps its results.
        out.write_text(json.dumps(results, indent=1))
    print(json.dumps(results["machine"]), f"{args.threads} threads, {args.rounds} rounds", sep="\n")
    print(markdown(results["shapes"]))
    print(f"\nevery pass is in {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
