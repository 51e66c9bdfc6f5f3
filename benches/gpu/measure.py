"""Measures the program on a CUDA machine, family by family: rate, GPU utilisation, and scores against transformers.

    python3 measure.py --binary ./rerank --json results.json           # on the machine with the GPU
    python3 benches/gpu/measure.py --dry-run-cpu --binary target/debug/rerank   # the same steps, tiny, on the CPU

The machine needs no internet. It needs Python with torch, transformers, tokenizers, numpy and pyarrow, and this
repository's benches/ and tests/fixtures/. Copy there by hand:

* the program: `cargo build --release`, then target/release/rerank;
* ONNX Runtime with CUDA: libonnxruntime.so.VERSION, libonnxruntime_providers_shared.so and
  libonnxruntime_providers_cuda.so from the package onnxruntime-gpu (`pip download --no-deps onnxruntime-gpu`, unzip,
  onnxruntime/capi), next to the program. CUDA and cuDNN come from torch's own packages, whose folders this script
  adds to LD_LIBRARY_PATH. Their major versions must be those that the package was built for.

For each family, the script makes a checkpoint of the published shape with random weights, and deletes it again (gemma2
takes 37 GB). It scores the bundled pairs three times in each precision: as they are, through SQL, and joined so that every
pair is cut at 512 tokens. For the joined pairs, `rerank model inspect` reports the work per token, from which the share of
the peak is computed. The peak is what torch reaches with a large matrix product in that precision. The program lists the
precisions; one that it refuses on the device is in the table with the reason.

For comparison, transformers runs some of the same pairs in the same precision, longest first, in batches of a fixed number
of pairs like the reference library. Its texts are tokenized in advance, and only the layers of its decoders run: both are
advantages for transformers.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
XQUAD = ROOT / "tests" / "fixtures" / "xquad.parquet"
SQL = "SELECT query, passage, rerank(query, passage) AS score FROM input"
# The largest difference from transformers allowed in a dry run.
ALLOWED = {"fp32": 1e-5, "fp16": 5e-3, "int8": 1e-1}
FAMILIES = ["m3", "gemma", "minicpm", "gemma2"]

# Dimensions of the dry run.
TINY = {
    "m3": "--layers 2 --hidden 64 --heads 4 --intermediate 128 --vocabulary 8000 --tokenizer-size 6000",
    "gemma": "--layers 2 --hidden 64 --heads 4 --kv-heads 1 --head-dim 16 --intermediate 128 --vocabulary 1000",
    "minicpm": "--layers 3 --hidden 64 --heads 4 --kv-heads 4 --intermediate 128 --vocabulary 1000 --start-layer 2",
    "gemma2": "--layers 3 --hidden 64 --heads 4 --kv-heads 2 --head-dim 16 --intermediate 128 --vocabulary 1000"
              " --start-layer 2",
}  # fmt: skip

PROMPTS = {
    "gemma": "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing"
             " a prediction of either 'Yes' or 'No'.",
    "gemma2": "Predict whether passage B contains an answer to query A.",
}  # fmt: skip
PROMPTS["minicpm"] = PROMPTS["gemma"]


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


def synchronize(device):
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def environment():
    """The environment with the CUDA libraries that torch ships."""
    import torch

    packages = pathlib.Path(torch.__file__).parent.parent
    folders = [*packages.glob("nvidia/*/lib"), packages / "torch" / "lib"]
    path = [str(folder) for folder in folders] + [os.environ.get("LD_LIBRARY_PATH", "")]
    return dict(os.environ, LD_LIBRARY_PATH=":".join(path))


class Program:
    def __init__(self, binary, device, env, cache):
        self.binary, self.device, self.env, self.cache = str(binary), device, env, str(cache)

    def call(self, *args):
        """Returns standard output. Raises Refused with the reason if the program fails."""
        done = subprocess.run([self.binary, *map(str, args)], env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise Refused(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}")
        return done.stdout

    def precisions(self, model):
        """The precisions that the program lists when it is given an invalid one."""
        try:
            self.call("model", "inspect", model, "--precision", "?")
        except Refused as refused:
            if names := re.findall(r"'(\w+)'", str(refused)):
                return names
            sys.exit(f"no precisions are named in: {refused}")
        sys.exit("the program took the precision '?'")

    def gflop_per_token(self, model):
        """GFLOP per token of a pair of 512 tokens."""
        for line in self.call("model", "inspect", model).splitlines():
            if line.startswith("work\t"):
                return float(line.split("\t")[1].split()[0])
        sys.exit("rerank model inspect tells no work")

    def run(self, pairs, model, precision, batch_tokens, sql=None):
        """The report of a run, and the scores."""
        import pyarrow.parquet as pq

        with tempfile.TemporaryDirectory() as folder:
            out, report = pathlib.Path(folder, "out.parquet"), pathlib.Path(folder, "report.json")
            batch = ["--batch-tokens", batch_tokens] if batch_tokens else []
            batch += ["--sql", sql] if sql else []
            self.call("--quiet", "run", pairs, out, "--model", model, "--device", self.device, "--precision", precision,
                      "--cache", self.cache, "--report", report, *batch)  # fmt: skip
            return json.loads(report.read_text()), pq.read_table(out)["score"].to_pylist()


class Refused(Exception):
    pass


def write_pairs(path, rows, is_full):
    """Writes `rows` rows of the bundled table. If `is_full`, joins passages so that every pair is cut at 512 tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(XQUAD, columns=["query", "passage"])
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


class Transformers:
    """The model in transformers, in fp32, one pair at a time.

    minicpm and gemma2 use the decoders of Llama and Gemma 2. The differences are a factor on some weights, or omitted by the
    reference library too (attention soft-capping).
    """

    def __init__(self, family, model, device):
        import torch
        import transformers
        from safetensors.torch import load_file

        self.family, self.device, self.torch = family, device, torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        if family == "m3":
            loaded = transformers.AutoModelForSequenceClassification.from_pretrained(model)
        elif family == "gemma":
            loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
            self.yes = self.tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
        else:
            config = json.loads((model / "config.json").read_text())
            weights = load_file(model / "model.safetensors")
            # For a single exit, the reference uses the first head of gemma2, but the layer's own head of minicpm.
            number = config["num_hidden_layers"] - config["start_layer"] if family == "minicpm" else 0
            self.head = weights[f"lm_head.{number}.linear_head.weight"].to(device)
            self.cap = config.get("final_logit_softcapping")
            weights = {name.removeprefix("model."): weight for name, weight in weights.items() if "lm_head" not in name}
            if family == "minicpm":
                residual = config["scale_depth"] / config["num_hidden_layers"] ** 0.5
                for name in weights:
                    if name.endswith(("o_proj.weight", "down_proj.weight")):
                        weights[name] *= residual
                weights["embed_tokens.weight"] *= config["scale_emb"]
                kind, classes = transformers.LlamaConfig, transformers.LlamaModel
            else:
                kind, classes = transformers.Gemma2Config, transformers.Gemma2Model
                config["attn_logit_softcapping"] = None
            known = {k: v for k, v in config.items() if k not in ("architectures", "auto_map", "model_type", "torch_dtype")}
            with torch.device(device):
                loaded = classes(kind(**known))
            loaded.load_state_dict(weights)
        self.model = loaded.float().to(device).eval()

    def ids(self, query, passage):
        """Token ids of a pair, joined like in the reference library."""
        tokens = lambda text, length: self.tokenizer(
            text, add_special_tokens=False, truncation=length is not None, max_length=length
        )["input_ids"]
        if self.family == "m3":
            return self.tokenizer(query, passage, truncation="only_second", max_length=512)["input_ids"]
        query, passage = tokens("A: " + query, 384), tokens("B: " + passage, 512)
        separator, prompt = tokens("\n", None), tokens(PROMPTS[self.family], None)
        pair = [self.tokenizer.bos_token_id, *query, *separator, *passage]
        return pair[: 512 + len(separator) + len(prompt)] + separator + prompt

    def pairs_per_second(self, pairs, precision, size):
        """The rate of the second of two passes over `pairs`, in batches of `size`, halved if one does not fit."""
        torch = self.torch
        sequences = sorted((self.ids(*pair) for pair in pairs), key=len, reverse=True)
        model = self.model.to({"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision])
        # Excludes the product with the whole vocabulary, of which only one word is needed.
        layers = model.model if self.family == "gemma" else model
        for _ in range(2):
            synchronize(self.device)
            start, waiting = time.perf_counter(), [sequences[at : at + size] for at in range(0, len(sequences), size)]
            while waiting:
                batch = waiting.pop()
                width = max(map(len, batch))
                ids = torch.tensor([row + [0] * (width - len(row)) for row in batch], device=self.device)
                mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=self.device)
                try:
                    with torch.no_grad():
                        layers(ids, attention_mask=mask, **({} if self.family == "m3" else {"use_cache": False}))
                except torch.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    size = len(batch) // 2
                    waiting += [batch[:size], batch[size:]]
            synchronize(self.device)
            seconds = time.perf_counter() - start
        return len(sequences) / seconds

    def score(self, query, passage):
        with self.torch.no_grad():
            ids = self.torch.tensor([self.ids(query, passage)], device=self.device)
            output = self.model(input_ids=ids, **({} if self.family == "m3" else {"use_cache": False}))
            if self.family == "m3":
                return output.logits[0, 0].item()
            if self.family == "gemma":
                return output.logits[0, -1, self.yes].item()
            score = output.last_hidden_state[0, -1] @ self.head[0]
            return (score if self.cap is None else self.cap * self.torch.tanh(score / self.cap)).item()


def rank_correlation(a, b):
    import numpy as np

    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def make_checkpoint(folder, family, is_tiny):
    out = folder / family
    shutil.rmtree(out, ignore_errors=True)
    make = [sys.executable, ROOT / "benches" / "make_checkpoint.py", out, "--family", family]
    subprocess.run([*make, *(TINY[family].split() if is_tiny else [])], check=True, stdout=sys.stderr)
    return out


def measure(family, program, peaks, args, folder):
    model = make_checkpoint(folder, family, args.dry_run_cpu)
    gflop = program.gflop_per_token(model)
    natural, full = folder / "natural.parquet", folder / "full.parquet"
    pairs = write_pairs(natural, args.pairs, is_full=False)
    write_pairs(full, args.pairs, is_full=True)
    rows, scores = [], {}
    for precision in program.precisions(model):
        try:
            report, scores[precision] = program.run(natural, model, precision, args.batch_tokens)
            query, _ = program.run(natural, model, precision, args.batch_tokens, SQL)
            cut, _ = program.run(full, model, precision, args.batch_tokens)
        except Refused as refused:
            rows.append({"family": family, "precision": precision, "refused": str(refused)})
            continue
        achieved = cut["tokens_per_second"] * gflop / 1e3
        peak = peaks.get(precision)
        rows.append({
            "family": family,
            "precision": precision,
            "pairs_per_second": report["pairs_per_second"],
            "tokens_per_second": report["tokens_per_second"],
            "device_busy_percent": report["device_busy_percent"],
            "padding_percent": report["padding_percent"],
            "sql_pairs_per_second": query["pairs_per_second"],
            "sql_device_busy_percent": query["device_busy_percent"],
            "full_tokens_per_pair": cut["tokens"] / cut["pairs"],
            "full_pairs_per_second": cut["pairs_per_second"],
            "full_tflops": achieved,
            "utilisation_percent": 100 * achieved / peak if peak else None,
            "difference_from_own_fp32": difference(scores[precision], scores.get("fp32")),
            "rank_correlation_with_own_fp32": "fp32" in scores and rank_correlation(scores[precision], scores["fp32"]),
        })  # fmt: skip
    reference = Transformers(family, model, args.torch_device)
    compared = min(args.compared, len(pairs))
    expected = [reference.score(*pair) for pair in pairs[:compared]]
    for row in rows:
        if own := scores.get(row["precision"]):
            row["difference_from_transformers"] = difference(own[:compared], expected)
    for row in rows:
        if "refused" not in row and row["precision"] in peaks:
            rate = reference.pairs_per_second(pairs[: args.peer_pairs], row["precision"], args.peer_batch)
            row["times_transformers"] = row["pairs_per_second"] / rate
    if not args.keep:
        shutil.rmtree(model)
    return {"gflop_per_token": gflop, "rows": rows, "score_deviation": statistics.pstdev(expected)}


def too_far(families):
    """Differences from transformers that a precision does not explain. For dry runs, whose scores are all below 1."""
    return [
        f"{row['family']} in {row['precision']} is {row['difference_from_transformers']:.0e} from transformers"
        for family in families.values()
        for row in family["rows"]
        if "refused" not in row and row["difference_from_transformers"] > ALLOWED[row["precision"]]
    ]


def difference(own, other):
    return None if other is None else max(abs(a - b) for a, b in zip(own, other, strict=True))


def own_difference(row):
    """The difference as text; empty for families without fp32 on the device."""
    if row["difference_from_own_fp32"] is None:
        return ""
    return f"{row['difference_from_own_fp32']:.0e} ({row['rank_correlation_with_own_fp32']:.4f})"


def table(families):
    lines = [
        "| family | precision | pairs/s | times transformers | tokens/s | device busy | through SQL | padding "
        "| TFLOP/s at 512 tokens | of the peak | from own fp32 (rank correlation) | from transformers |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family in families.values():
        for row in family["rows"]:
            if "refused" in row:
                lines.append(f"| {row['family']} | {row['precision']} | refused: {row['refused']} | | | | | | | | | |")
                continue
            share, times = row["utilisation_percent"], row.get("times_transformers")
            lines.append(
                f"| {row['family']} | {row['precision']} | {row['pairs_per_second']:.1f} "
                f"| {'' if times is None else f'{times:.2f}'} | {row['tokens_per_second']:.0f} "
                f"| {row['device_busy_percent']:.1f} % | {row['sql_device_busy_percent']:.1f} % | {row['padding_percent']:.1f} % | {row['full_tflops']:.3g} "
                f"| {'' if share is None else f'{share:.0f} %'} "
                f"| {own_difference(row)} "
                f"| {row['difference_from_transformers']:.0e} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--device", default="cuda:0", help="the program's device")
    parser.add_argument("--pairs", type=int, help="default: 16384; 24 in a dry run")
    parser.add_argument("--compared", type=int, help="pairs scored by transformers; default: 64; 8 in a dry run")
    parser.add_argument("--peer-pairs", type=int, default=2048, help="pairs that transformers is timed with")
    parser.add_argument("--peer-batch", type=int, default=128, help="pairs in a batch of transformers")
    parser.add_argument("--batch-tokens", type=int, help="default: the program's")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("gpu-bench"), help="for checkpoints")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints")
    parser.add_argument("--dry-run-cpu", action="store_true", help="tiny checkpoints on the CPU")
    args = parser.parse_args()
    if args.dry_run_cpu:
        args.device = "cpu"
    args.torch_device = args.device
    args.pairs = args.pairs or (24 if args.dry_run_cpu else 16384)
    args.compared = args.compared or (8 if args.dry_run_cpu else 64)
    import torch

    if args.device != "cpu" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device; --dry-run-cpu runs the same on the CPU")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) if args.dry_run_cpu else args.folder
        folder.mkdir(parents=True, exist_ok=True)
        program = Program(args.binary.resolve(), args.device, environment(), folder / "cache")
        peaks = matrix_peaks(args.device, 256 if args.dry_run_cpu else 8192)
        results = {
            "device": "cpu" if args.device == "cpu" else torch.cuda.get_device_name(args.device),
            "torch": torch.__version__,
            "program": program.call("--version").strip(),
            "pairs": args.pairs,
            "peak_tflops": peaks,
            "families": {},
        }
        for family in args.families.split(","):
            results["families"][family] = measure(family, program, peaks, args, folder)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1))
    print(results["device"], ", ".join(f"{name} {peak:.3g} TFLOP/s" for name, peak in peaks.items()), sep=": ")
    print(table(results["families"]))
    if args.dry_run_cpu and (wrong := too_far(results["families"])):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
