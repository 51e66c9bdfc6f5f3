#!/usr/bin/env python3
"""Writes a checkpoint of random weights: any family, any shape, with the files that a published one has.

    python3 benches/make_checkpoint.py OUT --family m3                      # the published shape: 568M parameters
    python3 benches/make_checkpoint.py OUT --family m3 --layers 12 --hidden 384 --heads 12 --intermediate 1536
    python3 benches/make_checkpoint.py OUT --family gemma2 --shapes-only    # weights are a hole in the file

Random weights rank nothing, but cost exactly what trained ones do. The tokenizer is that of the tiny checkpoint in
tests/fixtures; for m3 its vocabulary is trained anew on tests/fixtures/xquad.parquet, so that texts have about as many
tokens as with the published one. Needs numpy; for m3 also tokenizers and pyarrow.
"""
import argparse, json, math, pathlib, shutil, struct

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"

# The published checkpoints' dimensions.
PRESETS = {
    "m3": dict(layers=24, hidden=1024, heads=16, intermediate=4096, vocabulary=250002, positions=8194),
    "gemma": dict(layers=18, hidden=2048, heads=8, kv_heads=1, head_dim=256, intermediate=16384, vocabulary=256000),
    "minicpm": dict(layers=40, hidden=2304, heads=36, kv_heads=36, intermediate=5760, vocabulary=122753, start_layer=8),
    "gemma2": dict(layers=42, hidden=3584, heads=16, kv_heads=8, head_dim=256, intermediate=14336, vocabulary=256000,
                   start_layer=8),
}
TINY = {"m3": "tiny-xlmr-reranker", "gemma": "tiny-gemma-reranker", "minicpm": "tiny-minicpm-layerwise-reranker",
        "gemma2": "tiny-gemma2-lightweight-reranker"}


def m3_tensors(s):
    H, I = s["hidden"], s["intermediate"]
    def linear(name, out, into): return [(f"{name}.weight", [out, into]), (f"{name}.bias", [out])]
    def norm(name): return [(f"{name}.weight", [H]), (f"{name}.bias", [H])]
    e = "roberta.embeddings."
    yield from [(e + "word_embeddings.weight", [s["vocabulary"], H]), (e + "position_embeddings.weight", [s["positions"], H]),
                (e + "token_type_embeddings.weight", [1, H]), *norm(e + "LayerNorm")]
    for layer in range(s["layers"]):
        p = f"roberta.encoder.layer.{layer}."
        for part in ("query", "key", "value"):
            yield from linear(p + "attention.self." + part, H, H)
        yield from [*linear(p + "attention.output.dense", H, H), *norm(p + "attention.output.LayerNorm"),
                    *linear(p + "intermediate.dense", I, H), *linear(p + "output.dense", H, I), *norm(p + "output.LayerNorm")]
    yield from [*linear("classifier.dense", H, H), *linear("classifier.out_proj", 1, H)]


def decoder_tensors(s, family):
    H, I = s["hidden"], s["intermediate"]
    D = s.get("head_dim") or H // s["heads"]
    Q, K = s["heads"] * D, s["kv_heads"] * D
    yield ("model.embed_tokens.weight", [s["vocabulary"], H])
    for layer in range(s["layers"]):
        p = f"model.layers.{layer}."
        yield from [(p + "self_attn.q_proj.weight", [Q, H]), (p + "self_attn.k_proj.weight", [K, H]),
                    (p + "self_attn.v_proj.weight", [K, H]), (p + "self_attn.o_proj.weight", [H, Q]),
                    (p + "mlp.gate_proj.weight", [I, H]), (p + "mlp.up_proj.weight", [I, H]), (p + "mlp.down_proj.weight", [H, I])]
        norms = ["input_layernorm", "post_attention_layernorm"]
        if family == "gemma2":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        yield from [(p + norm + ".weight", [H]) for norm in norms]
    yield ("model.norm.weight", [H])
    if family != "gemma":
        for head in range(s["layers"] - s["start_layer"] + 1):
            yield (f"lm_head.{head}.linear_head.weight", [1, H])


def config(family, s):
    c = json.loads((FIXTURES / TINY[family] / "config.json").read_text())
    c.update(hidden_size=s["hidden"], num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
             intermediate_size=s["intermediate"], vocab_size=s["vocabulary"])
    if family == "m3":
        c["max_position_embeddings"] = s["positions"]
    else:
        c["num_key_value_heads"] = s["kv_heads"]
    if "head_dim" in s:
        c["head_dim"] = s["head_dim"]
    if "start_layer" in s:
        c["start_layer"] = s["start_layer"]
    if family == "gemma2":
        c.update(sliding_window=4096, sliding_window_size=4096, query_pre_attn_scalar=s["head_dim"], attn_logit_softcapping=50.0)
    return c


def tokenizer(family, out, size):
    tiny = FIXTURES / TINY[family]
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny / name, out)
    if family != "m3":
        shutil.copy(tiny / "tokenizer.json", out)
        return
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer, trainers
    table = pq.read_table(FIXTURES / "xquad.parquet", columns=["query", "passage"])
    texts = sorted({text for column in table.columns for text in column.to_pylist()})
    trained = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=size - 1, special_tokens=specials, unk_token="<unk>", show_progress=False))
    spec, new = json.loads((tiny / "tokenizer.json").read_text()), json.loads(trained.to_str())
    pieces = [[s, 0.0] for s in specials] + [piece for piece in new["model"]["vocab"] if piece[0] not in specials + ["<mask>"]]
    spec["model"]["vocab"] = pieces + [["<mask>", 0.0]]
    spec["added_tokens"][-1]["id"] = len(pieces)
    (out / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False))


def write_weights(path, tensors, shapes_only, seed):
    # transformers refuses files that do not say who wrote them.
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(encoded)) + encoded)
        if shapes_only:
            f.truncate(f.tell() + position)
            return
        import numpy as np
        rng = np.random.default_rng(seed)
        # A block of noise, begun anywhere, is noise enough and written at the speed of the disk.
        block = (rng.standard_normal(1 << 24) * 0.02).astype(np.float32)
        for name, shape in tensors:
            count = int(np.prod(shape))
            if name.endswith("norm.weight") or name.endswith("LayerNorm.weight"):
                f.write((1 + block[:count]).astype(np.float32).tobytes())
                continue
            while count:
                start = int(rng.integers(0, len(block) // 2))
                part = block[start:start + count]
                f.write(part.tobytes())
                count -= len(part)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--family", choices=PRESETS, required=True)
    for name in ("layers", "hidden", "heads", "kv-heads", "head-dim", "intermediate", "vocabulary", "start-layer"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--tokenizer-size", type=int, default=16000, help="pieces of the m3 tokenizer")
    parser.add_argument("--shapes-only", action="store_true", help="weights are zeros that take no room on disk")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    shape = dict(PRESETS[args.family])
    shape.update({k: v for k, v in vars(args).items() if k in shape and v is not None})
    args.out.mkdir(parents=True, exist_ok=True)
    tensors = list(m3_tensors(shape) if args.family == "m3" else decoder_tensors(shape, args.family))
    tokenizer(args.family, args.out, args.tokenizer_size)
    (args.out / "config.json").write_text(json.dumps(config(args.family, shape), indent=1))
    write_weights(args.out / "model.safetensors", tensors, args.shapes_only, args.seed)
    parameters = sum(math.prod(s) for _, s in tensors)
    print(f"{args.out}: {args.family}, {parameters / 1e6:.1f}M parameters, {parameters * 4 / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
