"""transformers with torch's attention kernels, on the same pairs and weights."""

import json
import statistics
import time

from program import ALLOWED, Refused, rank_correlation, synchronize, write_pairs

PROMPTS = {
    "gemma": "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing"
             " a prediction of either 'Yes' or 'No'.",
    "gemma2": "Predict whether passage B contains an answer to query A.",
}  # fmt: skip
PROMPTS["minicpm"] = PROMPTS["gemma"]


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
    batches = [8] if args.dry_run else [128, 256, 512] if checkpoint.family == "m3" else [16, 32, 64]
    file, out = folder / "peer.parquet", folder / "peer-scores.parquet"
    pairs = write_pairs(file, rows, False)
    row = {"stage": "peer", "family": checkpoint.family, "precision": checkpoint.precision, "pairs": rows}
    if results.leaves_out(row):
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
