"""A process that loads a model once with another library and scores the same pairs on request.

    python peer.py '{"library": "FlagEmbedding", "family": "m3", "model": DIR, "pairs": FILE, "threads": 2}'

Speaks the protocol of serve.rs: prints a line when the model is loaded, then a line for each line of standard input, which
is the number of pairs in a batch.
"""

import json
import os
import sys
import time
import warnings
from importlib.metadata import version

FLAG_EMBEDDING = {
    "m3": "FlagReranker",
    "gemma": "FlagLLMReranker",
    "minicpm": "LayerWiseFlagLLMReranker",
    "gemma2": "LightWeightFlagLLMReranker",
}


def flag_embedding(family, model):
    import FlagEmbedding

    reranker = getattr(FlagEmbedding, FLAG_EMBEDDING[family])(model, devices=["cpu"])
    return lambda pairs, batch: reranker.compute_score(pairs, batch_size=batch, max_length=512)


def sentence_transformers(family, model):
    assert family == "m3", f"CrossEncoder has no {family} models"
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(model, max_length=512, device="cpu")
    # Raw logits, as the others return.
    logits = torch.nn.Identity()
    return lambda pairs, batch: encoder.predict(
        pairs, batch_size=batch, activation_fct=logits, show_progress_bar=False
    ).tolist()


LIBRARIES = {"FlagEmbedding": flag_embedding, "sentence-transformers": sentence_transformers}


def main():
    # Libraries may print anything, so answers use a separate descriptor.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.update(TQDM_DISABLE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="critical")
    warnings.filterwarnings("ignore")
    task = json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(task["threads"])
    pairs = json.load(open(task["pairs"], encoding="utf-8"))
    score = LIBRARIES[task["library"]](task["family"], task["model"])
    versions = {name: version(name) for name in (task["library"], "transformers", "torch", "tokenizers")}
    print(json.dumps({"versions": versions}), file=answers)
    for line in sys.stdin:
        start = time.perf_counter()
        scores = score(pairs, int(line))
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "scores": scores}), file=answers)


if __name__ == "__main__":
    main()
