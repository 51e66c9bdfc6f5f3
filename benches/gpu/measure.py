"""Measures the program on a CUDA machine within minutes: scores against the reference, rates, memory, and a peer.

    python3 benches/gpu/measure.py --binary target/release/rerank --json results.json     # on the machine with the GPU
    python3 benches/gpu/measure.py --binary target/debug/rerank --dry-run                 # the same steps, tiny, on the CPU

The machine needs no internet. It needs Python with torch, transformers, tokenizers, safetensors, numpy and pyarrow, this
repository's benches/ and tests/fixtures/, and ONNX Runtime's CUDA build where the program finds it (ORT_DYLIB_PATH). The
CUDA libraries come from torch's own packages, whose folders this script adds to LD_LIBRARY_PATH.

`--seconds` bounds the whole run. Each result is printed, and written to `--json`, as soon as it is known, so a run that is
cut short leaves what it has. The stages, in this order; `--stages` picks some:

    check     the program's kernels against float64; every golden case of the tiny checkpoints, in each precision, against the
              reference scores
    m3, gemma, minicpm, gemma2
              a checkpoint of the published shape with random weights, made on the card in the precision that it runs in:
              pairs of natural length, with the program's kernels and without, and pairs cut at 512 tokens; m3 and gemma
              through SQL and as a job of units too
    batches   m3 and gemma with token budgets from 16k to 256k
    sharing   two models in one query: do they fit together, and does memory stay flat while shapes change
    peer      transformers with torch's attention kernels on the same pairs and weights: its rate, and its scores

A rate is pairs, or tokens without padding, per second of the run after the model is loaded. The share of the peak is the
model's floating point operations on those tokens (a causal product counts half), over what torch reaches in the same
precision with a product of two 8192 x 8192 matrices, at first; the first row has what it reaches after a second, when the
card's power limit has lowered its clock. Pairs per measurement follow from the model's operations and the peak,
so that each takes about `--each` seconds.
"""

import argparse
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from checkpoint import Checkpoint
from goldens import check
from kernels import check_kernels
from peer import peer
from program import MemorySampler, Program, Refused, Results, free_memory, matrix_peaks, sustained_peaks, write_pairs

FAMILIES = ["m3", "gemma", "minicpm", "gemma2"]
STAGES = ["check", *FAMILIES, "batches", "sharing", "peer"]
# Measured in more ways: through SQL, as a job of units, with several token budgets, and together in one query.
SHARED = ["m3", "gemma"]


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

    def run(self, stage, is_full=False, options=None, batch_tokens=None, through="job", seconds=None, least_tokens=0, env=None,
            kernels=True):
        """Runs once and adds a row. Returns whether it succeeded."""
        options, checkpoint = options or {}, self.checkpoint
        row = {"stage": stage, "family": checkpoint.family, "precision": checkpoint.precision, "options": options,
               "pairs_of": "512 tokens" if is_full else "natural length", "through": through,
               "batch_tokens": batch_tokens}  # fmt: skip
        if not kernels:
            row["kernels"], env = "off", {"RERANK_KERNELS": "off"}
        if self.results.leaves_out(row):
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
    if measurement.args.device != "cpu":
        measurement.run("rate", kernels=False)
    # Several windows of m3, the first of which the device waits for.
    seconds = measurement.args.each * (3 if measurement.checkpoint.family == "m3" else 1)
    measurement.run("rate", is_full=True, seconds=seconds)
    if measurement.args.profile or measurement.args.dry_run:
        measurement.profile()
    if measurement.checkpoint.family in SHARED:
        measurement.run("rate", through="sql")
        measurement.run("rate", through="units")


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
        "peak_tflops_after_a_second": {name: round(peak, 1) for name, peak in sustained_peaks(args.device).items()},
        "dollars_per_hour": args.price,
    }, end, least_seconds=5 if args.dry_run else 20)  # fmt: skip
    if "check" in stages:
        check_kernels(results, args.device)
        check(program, results, folder, ["fp32"] if args.dry_run else ["fp32", "fp16", "bf16"])

    shared = []
    for family in FAMILIES:
        is_peer = "peer" in stages and family in args.families.split(",")
        is_batches = "batches" in stages and family in SHARED
        is_shared = "sharing" in stages and family in SHARED
        if not (family in stages or is_peer or is_batches or is_shared):
            continue
        if results.leaves_out({"stage": "all", "family": family}):
            continue
        made = Checkpoint(folder, family, args.dry_run, args.device)
        free_memory(args.device)
        measurement = Measurement(program, results, made, folder, peaks, args)
        if family in stages:
            measure_family(measurement)
        if is_batches:
            for size in [256] if args.dry_run else [16_384, 32_768, 65_536, 131_072, 262_144]:
                measurement.run("batches", batch_tokens=size, seconds=args.each / 2)
        if is_peer:
            peer(program, results, made, folder, args)
            free_memory(args.device)
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
