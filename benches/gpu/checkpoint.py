"""Checkpoints of the published shapes with random weights."""

import json
import re
import sys

from program import ROOT

sys.path.insert(0, str(ROOT / "benches"))
import make_checkpoint  # noqa: E402

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
