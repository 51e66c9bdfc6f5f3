"""Measures the program on a CUDA machine within minutes: scores against the reference, rates, memory, and a peer.

    python3 benches/gpu/measure.py --binary target/release/rerank --json results.json     # on the machine with the GPU
    python3 benches/gpu/measure.py --binary target/debug/rerank --dry-run                 # the same steps, tiny, on the CPU

The machine needs no internet. It needs Python with torch, transformers, tokenizers, safetensors, numpy and pyarrow, this
repository's benches/ and tests/fixtures/, and ONNX Runtime's CUDA build where the program finds it (ORT_DYLIB_PATH). The
CUDA libraries come from torch's own packages, whose folders this script adds to LD_LIBRARY_PATH.

`--seconds` bounds the whole run. Each result is printed, and written to `--json`, as soon as it is known, so a run that is
cut short leaves what it has. The stages, in this order; `--stages` picks some:

    check     every golden case of the tiny checkpoints, in each precision, against the reference scores
    m3, gemma, minicpm, gemma2
              a checkpoint of the published shape with random weights, made on the card in the precision that it runs in:
              pairs of natural length, and pairs cut at 512 tokens; m3 and gemma through SQL and as a job of units too
    batches   m3 and gemma with token budgets from 16k to 256k
    sharing   two models in one query: do they fit together, and does memory stay flat while shapes change
    peer      transformers with torch's attention kernels on the same pairs and weights: its rate, and its scores

A rate is pairs, or tokens without padding, per second of the run after the model is loaded. The share of the peak is the
model's floating point operations on those tokens (a causal product counts half), over what torch reaches in the same
precision with a product of two 8192 x 8192 matrices. Pairs per measurement follow from the model's operations and the peak,
so that each takes about `--each` seconds.
"""

import argparse
import gc
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
sys.path.insert(0, str(ROOT / "benches"))
import make_checkpoint  # noqa: E402

FAMILIES = ["m3", "gemma", "minicpm", "gemma2"]
STAGES = ["check", *FAMILIES, "batches", "sharing", "peer"]
# Measured in more ways: through SQL, as a job of units, with several token budgets, and together in one query.
SHARED = ["m3", "gemma"]

# What the published checkpoints run in on a GPU, and the options that are measured.
PRECISION = {"m3": "fp16", "gemma": "bf16", "minicpm": "bf16", "gemma2": "bf16"}
OPTIONS = {
    "m3": [{}],
    "gemma": [{}],
    "minicpm": [{}, {"cutoff_layers": 28}],
    "gemma2": [{}, {"cutoff_layers": 28, "compress_ratio": 2, "compress_layers": [24, 40]}],
}

# Dimensions of the dry run.
TINY = {
    "m3": dict(layers=2, hidden=64, heads=4, intermediate=128, vocabulary=8000),
    "gemma": dict(layers=2, hidden=64, heads=4, kv_heads=1, head_dim=16, intermediate=128, vocabulary=1000),
    "minicpm": dict(layers=3, hidden=64, heads=4, kv_heads=4, intermediate=128, vocabulary=1000, start_layer=2),
    "gemma2": dict(layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocabulary=1000, start_layer=2),
}
TINY_OPTIONS = {
    "m3": [{}],
    "gemma": [{}],
    "minicpm": [{}, {"cutoff_layers": 2}],
    "gemma2": [{}, {"cutoff_layers": 2, "compress_ratio": 2, "compress_layers": [1]}],
}
# Pieces of m3's tokenizer: about as many tokens per text as with the published one. Training takes seconds.
PIECES = 32_000

# The largest difference from the reference in a check, and from the peer in a dry run; none for other precisions. A check
# also allows twice the difference of the reference's own fp32 scores from its float64 scores.
ALLOWED = {"fp32": 1e-4}
# The least rank correlation with the reference in a check. The tiny checkpoints react to rounding more than real ones.
LEAST_CORRELATION = {"fp32": 0.999, "fp16": 0.99, "bf16": 0.97}

# Fixture with the golden cases, tiny checkpoint, and options that the reference has no name for.
GOLDENS = [
    ("m3", "xlmr", "xlmr", {}),
    ("gemma", "gemma", "gemma", {}),
    ("minicpm", "minicpm", "minicpm-layerwise", {}),
    ("gemma2", "lightweight", "gemma2-lightweight", {}),
    ("gemma2", "lightweight_eager", "gemma2-lightweight", {"attention_softcap": True}),
]
# Options of the reference that have another name here.
RENAMED = {
    "query_instruction_for_rerank": "query_instruction",
    "passage_instruction_for_rerank": "passage_instruction",
    "compress_layer": "compress_layers",
}

PROMPTS = {
    "gemma": "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing"
             " a prediction of either 'Yes' or 'No'.",
    "gemma2": "Predict whether passage B contains an answer to query A.",
}  # fmt: skip
PROMPTS["minicpm"] = PROMPTS["gemma"]


class Refused(Exception):
    """The program or a step failed; the message is its last line."""


class Results:
    """What is known so far: printed at once, and written as a whole after each row."""

    def __init__(self, path, head, end):
        self.path, self.rows, self.wrong, self.end = path, [], [], end
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

    def leave_out(self, row):
        """A row for what there is no time for; it does not fail the run."""
        self.add(**row, left_out="no time was left")

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


def matrix_peaks(device, size):
    """TFLOP/s of a product of two square matrices in each type; the median of ten."""
    import torch

    peaks = {}
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, dtype in [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(13):
            synchronize(device)
            start = time.perf_counter()
            a @ b
            synchronize(device)
            seconds.append(time.perf_counter() - start)
        peaks[name] = 2 * size**3 / statistics.median(seconds[3:]) / 1e12
    return peaks


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


# The golden cases.


def literal(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return "NULL" if value is None else str(value)


def golden_columns(family, cases, extra):
    """Calls that make the scores of each case, by column name. Leaves out what the program refuses by design."""
    columns, expected = [], {}
    for index, case in enumerate(cases):
        if "error" in case or "scores" not in case:
            continue
        options = {}
        for name, value in {**case["init"], **case["call"]}.items():
            name = RENAMED.get(name, name)
            # The reference takes None for "no instruction", which is the empty text here.
            if value is not None or name.endswith("instruction"):
                options[name] = "" if value is None else value
        cutoffs = options.get("cutoff_layers")
        is_flat = not isinstance(case["scores"][0], list)
        if options.get("compress_layers") == []:
            continue
        if isinstance(cutoffs, list):
            # The reference sorts layers, drops repeated and impossible ones, and returns one list for one layer.
            if cutoffs != sorted(set(cutoffs)) or (is_flat and len(cutoffs) > 1):
                continue
            if len(cutoffs) == 1:
                options["cutoff_layers"] = cutoffs[0]
        options.update(extra)
        call = ", ".join(f"{literal(name)}: {literal(value)}" for name, value in options.items())
        name = f"c{index}"
        columns.append((name, f"rerank(query, passage, '{family}', {{{call}}}) AS {name}"))
        expected[name] = case.get("scores_spec_f64", case["scores"])
    return columns, expected


def reference_noise(cases):
    """The largest difference of the reference's fp32 scores from its float64 scores."""
    import numpy as np

    both = [(case["scores"], case["scores_spec_f64"]) for case in cases if "scores" in case and "scores_spec_f64" in case]
    return max((float(np.max(np.abs(np.subtract(*pair)))) for pair in both), default=0.0)


def check(program, results, folder, precisions):
    """Largest difference from the reference's scores, and least rank correlation, per family and precision."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for family, golden, checkpoint, extra in GOLDENS:
        goldens = json.loads((FIXTURES / "goldens" / f"{golden}.json").read_text())
        pairs = goldens["pairs"]
        file = folder / "golden.parquet"
        pq.write_table(pa.table({"query": [q for q, _ in pairs], "passage": [p for _, p in pairs]}), file)
        for precision in precisions:
            columns, expected = golden_columns(family, goldens["cases"], {**extra, "precision": precision})
            sql = "SELECT query, " + ", ".join(call for _, call in columns) + " FROM input"
            model = f"{family}={FIXTURES / f'tiny-{checkpoint}-reranker'}"
            row = {"stage": "check", "golden": golden, "precision": precision, "cases": len(columns)}
            out = folder / "golden-scores.parquet"
            if results.left() < 5:
                results.fail(**row, refused="no time was left")
                continue
            try:
                program.run(file, model, out, "--sql", sql, limit=results.left())
            except Refused as refused:
                # A sliding window and soft-capping have no fp32 on a GPU.
                is_by_design = "GPUs run 16 bits only" in str(refused)
                (results.add if is_by_design else results.fail)(**row, refused=str(refused))
                continue
            table, worst, ranks = pq.read_table(out), 0.0, []
            allowed = max(ALLOWED.get(precision, float("inf")), 2 * reference_noise(goldens["cases"]))
            for name, _ in columns:
                reference, own = (np.array(scores, dtype=float) for scores in (expected[name], table[name].to_pylist()))
                reference = reference.T if reference.ndim == 2 else reference
                worst = max(worst, float(np.max(np.abs(reference - own))))
                ranks.append(rank_correlation(reference, own))
            row.update(largest_difference=worst, least_rank_correlation=min(ranks))
            if not worst <= allowed:
                results.fail(**row, wrong=f"{worst:.1e} from the reference")
            elif not min(ranks) >= LEAST_CORRELATION[precision]:
                results.fail(**row, wrong=f"rank correlation {min(ranks):.4f} with the reference")
            else:
                results.add(**row)


# Checkpoints of the published shapes.


class Checkpoint:
    """A folder with random weights in the type that they run in, made by torch where it is fast."""

    def __init__(self, folder, family, is_tiny, device):
        self.family, self.folder = family, folder / family
        self.shape = {**make_checkpoint.PRESETS[family], **(TINY[family] if is_tiny else {})}
        self.options = (TINY_OPTIONS if is_tiny else OPTIONS)[family]
        self.precision = "fp32" if is_tiny else PRECISION[family]
        if not self.folder.exists():
            self.make(device, min(PIECES, self.shape["vocabulary"] - 2000))

    def make(self, device, pieces):
        import torch
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True)
        make_checkpoint.tokenizer(self.family, self.folder, pieces)
        (self.folder / "config.json").write_text(json.dumps(make_checkpoint.config(self.family, self.shape)))
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision]
        is_m3 = self.family == "m3"
        tensors = make_checkpoint.m3_tensors(self.shape) if is_m3 else make_checkpoint.decoder_tensors(self.shape, self.family)
        generator = torch.Generator(device).manual_seed(7)
        weights = {}
        for name, size in tensors:
            weight = torch.randn(size, device=device, dtype=dtype, generator=generator) * 0.02
            if re.search(r"(norm|LayerNorm)\.weight$", name) and not self.family.startswith("gemma"):
                weight += 1
            weights[name] = weight.cpu()
        save_file(weights, str(self.folder / "model.safetensors"), metadata={"format": "pt"})

    def flops(self, tokens, options):
        """Floating point operations on a pair of `tokens` tokens; attention of a decoder counts half."""
        s = self.shape
        head = s.get("head_dim") or s["hidden"] // s["heads"]
        queries, keys = s["heads"] * head, s.get("kv_heads", s["heads"]) * head
        matrices, causal = (2, 1) if self.family == "m3" else (3, 0.5)
        depth = options.get("cutoff_layers", s["layers"])
        ratio = options.get("compress_ratio", 1)
        total = 0.0
        for layer in range(depth):
            if ratio > 1 and 0 < layer < depth and layer in options["compress_layers"]:
                tokens /= ratio
            if layer + 1 == depth:
                return total + 4.0 * tokens * s["hidden"] * keys
            weights = s["hidden"] * (2 * queries + 2 * keys) + matrices * s["hidden"] * s["intermediate"]
            total += 2.0 * tokens * weights + causal * 4.0 * tokens * tokens * queries
        return total


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


class Measurement:
    """Runs of one checkpoint over pairs of natural length or pairs of 512 tokens."""

    # Guesses for the number of pairs; the rates use the tokens that were counted.
    GUESSED_TOKENS = {"m3": 190, "gemma": 520, "minicpm": 520, "gemma2": 490}

    def __init__(self, program, results, checkpoint, folder, peaks, args):
        self.program, self.results, self.checkpoint = program, results, checkpoint
        self.folder, self.peaks, self.args = folder, peaks, args

    def pairs(self, is_full, options, seconds, least_tokens):
        """A file of as many pairs as take about `seconds` at half of the peak, or have `least_tokens` tokens."""
        tokens = 512 if is_full else self.GUESSED_TOKENS[self.checkpoint.family]
        peak = self.peaks[self.checkpoint.precision] * 1e12
        rows = int(seconds * 0.5 * peak / self.checkpoint.flops(tokens, options))
        rows = max(64, min(rows, 400_000), least_tokens // tokens) if not self.args.dry_run else 48
        file = self.folder / f"pairs-{is_full}-{rows}.parquet"
        if not file.exists():
            write_pairs(file, rows, is_full)
        return file

    def run(self, stage, is_full=False, options=None, batch_tokens=None, through="job", seconds=None, least_tokens=0, env=None):
        """Runs once and adds a row. Returns whether it succeeded."""
        options, checkpoint = options or {}, self.checkpoint
        row = {"stage": stage, "family": checkpoint.family, "precision": checkpoint.precision, "options": options,
               "pairs_of": "512 tokens" if is_full else "natural length", "through": through,
               "batch_tokens": batch_tokens}  # fmt: skip
        if self.results.left() < (5 if self.args.dry_run else 15):
            self.results.leave_out(row)
            return False
        file = self.pairs(is_full, options, seconds or self.args.each, least_tokens)
        flags = [flag for name, value in options.items() for flag in ("--option", f"{name}={json.dumps(value)}")]
        flags += ["--precision", checkpoint.precision]
        if batch_tokens:
            flags += ["--batch-tokens", batch_tokens]
        if through == "sql":
            flags += ["--sql", "SELECT query, passage, rerank(query, passage) AS score FROM input"]
        if through == "units":
            # At least eight units, so that reading, committing and the next unit overlap.
            rows = int(file.stem.rsplit("-", 1)[1])
            flags += ["--unit-rows", max(1, rows // 8)]
        out = self.folder / (f"scored-{checkpoint.family}" + ("" if through == "units" else ".parquet"))
        try:
            with MemorySampler(self.args.device) as memory:
                report = self.program.run(file, checkpoint.folder, out, *flags, limit=self.results.left(), env=env)
        except Refused as refused:
            self.results.fail(**row, refused=str(refused))
            return False
        tokens = report["tokens"] / report["pairs"]
        achieved = checkpoint.flops(tokens, options) * report["pairs_per_second"] / 1e12
        on_device = achieved * report["wall_seconds"] / report["device_seconds"]
        self.results.add(
            **row,
            pairs=report["pairs"],
            tokens_per_pair=tokens,
            pairs_per_second=report["pairs_per_second"],
            tokens_per_second=report["tokens_per_second"],
            tflops=achieved,
            percent_of_peak=100 * achieved / self.peaks[checkpoint.precision],
            percent_of_peak_while_busy=100 * on_device / self.peaks[checkpoint.precision],
            device_busy_percent=report["device_busy_percent"],
            padding_percent=report["padding_percent"],
            dollars_per_million_pairs=self.args.price / 3600 / report["pairs_per_second"] * 1e6,
            memory_gb=memory.most(),
            load_seconds=report["load_seconds"],
            wall_seconds=report["wall_seconds"],
        )
        return True

    def profile(self):
        """Sums ONNX Runtime's profile of a short run by operator. Launches block, so times are the kernels' own."""
        prefix = self.folder / "profile"
        env = {"RERANK_PROFILE": str(prefix), "CUDA_LAUNCH_BLOCKING": "1"}
        batch_tokens = 512 if self.args.dry_run else 8192
        # The profile ends after 16 batches.
        if not self.run("profile", env=env, batch_tokens=batch_tokens, seconds=1, least_tokens=20 * batch_tokens):
            return
        for file in self.folder.glob("profile*.json"):
            micros, count, runs = {}, {}, 0
            for event in json.loads(file.read_text() or "[]"):
                # The first batches load kernels and allocate memory.
                runs += event["name"] == "model_run"
                if runs >= 8 and event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                    key = f"{event['args']['op_name']} {widths(event['args'])}"
                    micros[key] = micros.get(key, 0) + event["dur"]
                    count[key] = count.get(key, 0) + 1
            file.unlink()
            total = sum(micros.values())
            if not total:
                self.results.fail(stage="operator", family=self.checkpoint.family, wrong="the profile names no operator")
            for key in sorted(micros, key=micros.get, reverse=True)[:25]:
                percent = 100 * micros[key] / total
                if percent >= 0.3:
                    self.results.add(stage="operator", family=self.checkpoint.family, operator=key, percent=percent,
                                     milliseconds=micros[key] / 1e3, calls=count[key])  # fmt: skip


def widths(args):
    """Last dimension of an operator's first input and output; the others vary with the batch."""
    ends = (args.get(side) or [{}] for side in ("input_type_shape", "output_type_shape"))
    dims = (next(iter(end[0].values()), []) for end in ends)
    return " to ".join(str(one[-1]) if one else "1" for one in dims)


def measure_family(measurement):
    """Natural length and 512 tokens; for some families also through SQL, and as a job of several units."""
    for options in measurement.checkpoint.options:
        measurement.run("rate", options=options)
    measurement.run("rate", is_full=True)
    if measurement.args.profile or measurement.args.dry_run:
        measurement.profile()
    if measurement.checkpoint.family in SHARED:
        measurement.run("rate", through="sql")
        measurement.run("rate", through="units")


# Two models on one card.


def share(program, results, checkpoints, folder, args):
    """Scores with two models in one query, in at least 200 batches, and watches the card's memory."""
    first, second = checkpoints
    rows = 48 if args.dry_run else 1_500
    write_pairs(folder / "shared.parquet", rows, False)
    calls = [f"rerank(query, passage, '{one.folder}') AS {one.family}" for one in checkpoints]
    row = {"stage": "sharing", "families": [first.family, second.family]}
    try:
        with MemorySampler(args.device) as memory:
            report = program.run(
                folder / "shared.parquet", first.folder, folder / "shared-scores.parquet", "--sql",
                f"SELECT query, {', '.join(calls)} FROM input", "--batch-tokens", 4_096, limit=results.left(),
            )  # fmt: skip
    except Refused as refused:
        results.fail(**row, refused=str(refused))
        return
    # Both models are loaded, and have run their longest batches, before the second half of the samples.
    late = memory.samples[len(memory.samples) // 2 :]
    results.add(
        **row,
        batches=report["batches"],
        pairs=report["pairs"],
        memory_gb_at_half=late[0] if late else None,
        memory_gb=memory.most(),
    )


# The peer.


class Transformers:
    """The model in transformers, with torch's attention kernels, its weights those of the checkpoint.

    minicpm and gemma2 use the decoders of Llama and Gemma 2. The differences are a factor on some weights, or omitted by the
    reference library too (attention soft-capping). Only the layers of a decoder run, which is an advantage for transformers.
    """

    def __init__(self, checkpoint, device):
        import torch
        import transformers
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        self.torch, self.family, self.device = torch, checkpoint.family, device
        self.tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        bos = json.loads((checkpoint.folder / "tokenizer_config.json").read_text())["bos_token"]
        self.bos = self.tokenizer.token_to_id(bos["content"] if isinstance(bos, dict) else bos)
        config = json.loads((checkpoint.folder / "config.json").read_text())
        weights = load_file(checkpoint.folder / "model.safetensors")
        dtype = next(iter(weights.values())).dtype
        kinds = {"m3": "XLMRoberta", "gemma": "Gemma", "minicpm": "Llama", "gemma2": "Gemma2"}
        is_m3 = self.family == "m3"
        if not is_m3:
            weights = {name.removeprefix("model."): weight for name, weight in weights.items()}
            number = config["num_hidden_layers"] - config.get("start_layer", 0) if self.family == "minicpm" else 0
            # For a single exit, the reference uses the first head of gemma2, but the layer's own head of minicpm.
            if self.family == "gemma":
                yes = self.tokenizer.encode("Yes", add_special_tokens=False).ids[0]
                self.head = weights["embed_tokens.weight"][yes].to(device)
            else:
                self.head = weights[f"lm_head.{number}.linear_head.weight"][0].to(device)
            weights = {name: weight for name, weight in weights.items() if "lm_head" not in name}
        if self.family == "minicpm":
            residual = config["scale_depth"] / config["num_hidden_layers"] ** 0.5
            for name in weights:
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weights[name] = weights[name] * residual
            weights["embed_tokens.weight"] = weights["embed_tokens.weight"] * config["scale_emb"]
        self.cap = config.get("final_logit_softcapping")
        if self.family == "gemma2":
            config["attn_logit_softcapping"] = None
        config = {k: v for k, v in config.items() if k not in ("architectures", "auto_map", "model_type", "torch_dtype")}
        config = getattr(transformers, kinds[self.family] + "Config")(**config)
        if is_m3:
            config.num_labels = 1
        config._attn_implementation = "sdpa"
        usual = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                kind = kinds[self.family] + ("ForSequenceClassification" if is_m3 else "Model")
                self.model = getattr(transformers, kind)(config).eval()
        finally:
            torch.set_default_dtype(usual)
        unknown = self.model.load_state_dict(weights, strict=False)
        if unknown.missing_keys or unknown.unexpected_keys:
            raise Refused(f"weights differ: {unknown.missing_keys[:3]} {unknown.unexpected_keys[:3]}")

    def ids(self, query, passage):
        """Token ids of a pair, joined like in the reference library."""
        if self.family == "m3":
            self.tokenizer.enable_truncation(512, strategy="only_second")
            return self.tokenizer.encode(query, passage).ids
        tokens = lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids
        query, passage = tokens("A: " + query)[:384], tokens("B: " + passage)[:512]
        separator, prompt = tokens("\n"), tokens(PROMPTS[self.family])
        pair = [self.bos, *query, *separator, *passage]
        return pair[: 512 + len(separator) + len(prompt)] + separator + prompt

    def batch(self, rows):
        """Scores of right-padded rows, on the device. Without padding there is no mask, which lets torch choose flash
        attention."""
        torch, width = self.torch, max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = None
        if any(len(row) < width for row in rows):
            mask = (torch.arange(width, device=self.device) < lengths[:, None]).long()
        if self.family == "m3":
            return self.model(input_ids=ids, attention_mask=mask).logits[:, 0]
        output = self.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = output[torch.arange(len(rows), device=self.device), lengths - 1]
        score = last.float() @ self.head.float()
        return score if self.cap is None or self.family != "gemma2" else self.cap * torch.tanh(score / self.cap)

    def scores(self, sequences, size):
        """Scores in the order given, the longest first in batches of `size`, and the seconds that they took."""
        torch = self.torch
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]), reverse=True)
        synchronize(self.device)
        start, scores = time.perf_counter(), [0.0] * len(sequences)
        with torch.inference_mode():
            for at in range(0, len(order), size):
                members = order[at : at + size]
                for index, score in zip(members, self.batch([sequences[index] for index in members]).float().tolist()):
                    scores[index] = score
        synchronize(self.device)
        return scores, time.perf_counter() - start


def peer(program, results, checkpoint, folder, args):
    """The peer's best rate over batch sizes, and the scores of both, on the same pairs."""
    import pyarrow.parquet as pq

    rows = 24 if args.dry_run else {"m3": 4096, "gemma": 512, "minicpm": 512, "gemma2": 192}[checkpoint.family]
    batches = [8] if args.dry_run else [64, 128, 256] if checkpoint.family == "m3" else [16, 32, 64]
    file, out = folder / "peer.parquet", folder / "peer-scores.parquet"
    pairs = write_pairs(file, rows, False)
    row = {"stage": "peer", "family": checkpoint.family, "precision": checkpoint.precision, "pairs": rows}
    if results.left() < (5 if args.dry_run else 20):
        results.leave_out(row)
        return
    try:
        program.run(file, checkpoint.folder, out, "--precision", checkpoint.precision, limit=results.left())
        own = pq.read_table(out)["score"].to_pylist()
        other = Transformers(checkpoint, args.device)
    except Exception as error:
        results.fail(**row, refused=f"{type(error).__name__}: {error}"[:400])
        return
    sequences = [other.ids(*pair) for pair in pairs]
    best, scores, sizes = 0.0, None, {}
    other.scores(sequences[: batches[0]], batches[0])
    for size in batches:
        if results.left() < 10 and scores:
            break
        try:
            scores, seconds = other.scores(sequences, size)
        except other.torch.OutOfMemoryError:
            break
        sizes[size] = round(rows / seconds, 1)
        best = max(best, rows / seconds)
    difference = max(abs(a - b) for a, b in zip(own, scores, strict=True))
    deviation = statistics.pstdev(scores)
    row.update(
        pairs_per_second=best,
        pairs_per_second_by_batch=sizes,
        tokens_per_pair=sum(map(len, sequences)) / rows,
        largest_difference=difference,
        rank_correlation=rank_correlation(own, scores),
        deviation_of_scores=deviation,
    )
    # Scores of random weights are close to each other.
    if difference <= min(1.0, deviation) * ALLOWED.get(checkpoint.precision, float("inf")) * 100:
        results.add(**row)
    else:
        results.fail(**row, wrong=f"{difference:.1e} from transformers, of a deviation of {deviation:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=240, help="time for the whole run (default: 240)")
    parser.add_argument("--each", type=float, default=5, help="time for one measurement (default: 5)")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"default: {','.join(STAGES)}")
    parser.add_argument("--families", default=",".join(FAMILIES), help="families of the stage peer (default: all)")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--price", type=float, default=3.0, help="dollars per hour of the machine (default: 3)")
    parser.add_argument("--profile", action="store_true", help="sum ONNX Runtime's profile by operator, per family")
    parser.add_argument("--folder", type=pathlib.Path, help="for checkpoints (default: /dev/shm if it has 40 GB, or else temporary)")
    parser.add_argument("--json", type=pathlib.Path, help="results, a JSON object per line")
    parser.add_argument("--dry-run", action="store_true", help="tiny checkpoints on the CPU")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    if args.dry_run:
        args.device = "cpu"
    stages = args.stages.split(",")
    for name, given, known in [("stages", stages, STAGES), ("families", args.families.split(","), FAMILIES)]:
        if unknown := set(given) - set(known):
            parser.error(f"unknown {name} {', '.join(sorted(unknown))}; they are {', '.join(known)}")
    if not args.binary.is_file():
        parser.error(f"there is no program {args.binary}")
    if args.json and not args.json.resolve().parent.is_dir():
        parser.error(f"there is no folder for {args.json}")
    # The temporary folder may hold tens of gigabytes, so it is deleted whatever ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    import torch

    if args.device != "cpu" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device; --dry-run does the same on the CPU")
    where = args.folder
    if where is None and not args.dry_run and shutil.disk_usage("/dev/shm").free > 40e9:
        where = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=where) as temporary:
        wrong = measure(args, stages, pathlib.Path(temporary), end)
    if wrong:
        sys.exit("\n".join(wrong))


def measure(args, stages, folder, end):
    import torch

    program = Program(args, folder / "cache")
    peaks = matrix_peaks(args.device, 256 if args.dry_run else 8192)
    results = Results(args.json, {
        "stage": "machine",
        "device": "cpu" if args.device == "cpu" else torch.cuda.get_device_name(args.device),
        "torch": torch.__version__,
        "program": program.call("--version").strip(),
        "peak_tflops": {name: round(peak, 1) for name, peak in peaks.items()},
        "dollars_per_hour": args.price,
    }, end)  # fmt: skip
    if "check" in stages:
        check(program, results, folder, ["fp32"] if args.dry_run else ["fp32", "fp16", "bf16"])

    def checkpoint(family):
        made = Checkpoint(folder, family, args.dry_run, args.device)
        gc.collect()
        if args.device != "cpu":
            torch.cuda.empty_cache()
        return made

    shared = []
    for family in FAMILIES:
        is_peer = "peer" in stages and family in args.families.split(",")
        is_batches = "batches" in stages and family in SHARED
        is_shared = "sharing" in stages and family in SHARED
        if not (family in stages or is_peer or is_batches or is_shared):
            continue
        if results.left() < (5 if args.dry_run else 20):
            results.leave_out({"stage": "all", "family": family})
            continue
        made = checkpoint(family)
        measurement = Measurement(program, results, made, folder, peaks, args)
        if family in stages:
            measure_family(measurement)
        if is_batches:
            for size in [256] if args.dry_run else [16_384, 32_768, 65_536, 131_072, 262_144]:
                measurement.run("batches", batch_tokens=size, seconds=args.each / 2)
        if is_peer:
            peer(program, results, made, folder, args)
            gc.collect()
            if args.device != "cpu":
                torch.cuda.empty_cache()
        if is_shared:
            shared.append(made)
        else:
            shutil.rmtree(made.folder)
        if len(shared) == len(SHARED):
            share(program, results, shared, folder, args)
            for one in shared:
                shutil.rmtree(one.folder)
            shared = []
    return results.wrong


if __name__ == "__main__":
    main()
