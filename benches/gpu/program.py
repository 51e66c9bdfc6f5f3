"""The program as a user runs it, and what is written down of a measurement."""

import gc
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures"

# The largest difference from other scores of the same pairs; none for other precisions.
ALLOWED = {"fp32": 1e-4}


class Refused(Exception):
    """The program or a step failed; the message says why."""


class Results:
    """What is known so far: printed at once, and written as a whole after each row."""

    def __init__(self, path, head, end, least_seconds):
        self.path, self.rows, self.wrong = path, [], []
        self.end, self.least_seconds = end, least_seconds
        self.start = time.monotonic()
        self.add(**head)

    def add(self, **row):
        row = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}
        row["at_s"] = round(time.monotonic() - self.start, 1)
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        if self.path:
            self.path.write_text("\n".join(json.dumps(row) for row in self.rows) + "\n")

    def fail(self, **row):
        """A row that ends the run with an error, after the other stages."""
        self.add(**row)
        reason = row.get("refused") or row.get("wrong")
        self.wrong.append(" ".join(str(row.get(name, "")) for name in ("stage", "family", "golden", "precision")) + f": {reason}")

    def leaves_out(self, row):
        """Whether there is no time for what this row is of. Adds the row then; that does not fail the run."""
        if self.left() >= self.least_seconds:
            return False
        self.add(**row, left_out="no time was left")
        return True

    def left(self):
        return self.end - time.monotonic()


class Program:
    """The program, run as a user runs it."""

    def __init__(self, args, cache):
        self.binary, self.device, self.cache = str(args.binary.resolve()), args.device, cache
        import torch

        packages = pathlib.Path(torch.__file__).parent.parent
        folders = [*packages.glob("nvidia/*/lib"), packages / "torch" / "lib"]
        path = [str(folder) for folder in folders] + [os.environ.get("LD_LIBRARY_PATH", "")]
        self.env = dict(os.environ, LD_LIBRARY_PATH=":".join(path))

    def call(self, *args, limit=None, env=None):
        """Returns standard output. Raises Refused with the reason if the program fails or takes too long."""
        try:
            done = subprocess.run(
                [self.binary, *map(str, args)], env={**self.env, **(env or {})}, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"no result after {limit:.0f} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise Refused(next((line for line in lines if line.startswith("error")), lines[-1])[:600])
        return done.stdout

    def run(self, pairs, model, out, *flags, limit=None, env=None):
        """The report of a run over a file of pairs. Replaces `out`: a file, or a folder if it has no extension."""
        report = out.with_suffix(".report.json")
        replace = "--overwrite" if out.suffix else "--restart"
        self.call("--quiet", "run", pairs, out, replace, "--model", model, "--device", self.device, "--cache", self.cache,
                  "--report", report, *flags, limit=limit, env=env)  # fmt: skip
        return json.loads(report.read_text())


def synchronize(device):
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def free_memory(device):
    """Gives back what torch keeps of objects that are gone: the program needs it."""
    gc.collect()
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()


def matrix_peaks(device, size):
    """TFLOP/s of a product of two square matrices in each type; the median of ten."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    peaks = {}
    for name in ["fp32", "fp16", "bf16"]:
        seconds = product_seconds(device, size, name, lambda products, _: products == 13)
        peaks[name] = 2 * size**3 / statistics.median(seconds[3:]) / 1e12
    return peaks


def sustained_peaks(device, size=8192, seconds=2.5):
    """Like `matrix_peaks`, but the mean from the first second on; empty for the CPU."""
    peaks = {}
    for name in ["fp16", "bf16"] if device != "cpu" else []:
        taken = product_seconds(device, size, name, lambda _, elapsed: elapsed > seconds)
        late = [one for at, one in zip(itertools.accumulate(taken), taken) if at > 1]
        peaks[name] = 2 * size**3 / statistics.mean(late) / 1e12
    return peaks


def product_seconds(device, size, precision, is_enough):
    """Seconds of one product of two square matrices after the other, until there are enough of them."""
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    while not is_enough(len(seconds), sum(seconds)):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def write_pairs(path, rows, is_full):
    """Writes `rows` pairs of the bundled table. If `is_full`, joins passages so that every pair is cut at 512 tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(FIXTURES / "xquad.parquet", columns=["query", "passage"])
    queries, passages = (column.to_pylist() for column in table.columns)
    size = len(queries)
    picked = [row * size // rows if rows < size else row for row in range(rows)]
    # From the second repetition on, queries are marked so that no pair repeats.
    queries = [queries[row % size] + (f" {row // size}" if row >= size else "") for row in picked]
    if is_full:
        passages = [" ".join(passages[(row + more) % size] for more in range(8)) for row in picked]
    else:
        passages = [passages[row % size] for row in picked]
    pq.write_table(pa.table({"query": queries, "passage": passages}), path)
    return list(zip(queries, passages))


def rank_correlation(a, b):
    import numpy as np

    ranks = [np.argsort(np.argsort(np.asarray(values).ravel())) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


class MemorySampler:
    """Memory that is taken on the card meanwhile, in GB, every 100 ms."""

    def __init__(self, device):
        self.device, self.samples, self.stopping = device, [], threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def free(self):
        import torch

        return torch.cuda.mem_get_info(self.device)[0] / 1e9

    def sample(self):
        while not self.stopping.wait(0.1):
            self.samples.append(self.before - self.free())

    def most(self):
        return max(self.samples, default=None)

    def __enter__(self):
        if self.device != "cpu":
            self.before = self.free()
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        if self.device != "cpu":
            self.thread.join()
