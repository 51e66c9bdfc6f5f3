#!/usr/bin/env python3
"""Trains `udfs/models/tiny`, a small reranker of XLM-RoBERTa's architecture, on a CPU.

    python train_tiny.py DATA OUTPUT [--steps N] [--threads N]

DATA holds files in SQuAD's JSON layout: squad2.dev.json (SQuAD 2.0), cmrc2018.dev.json (CMRC 2018), drcd.dev.json (DRCD) and
xquad.{en,zh,ru,ar}.json (XQuAD); OUTPUT becomes a checkpoint laid out as that of BAAI/bge-reranker-v2-m3.
Needs Python 3.11, torch 2.6, transformers 4.46, tokenizers 0.20, sentencepiece 0.2 and numpy. Seeds are fixed. OUTPUT has a
whole checkpoint after every 250 steps. What is shipped are the weights after 1250 steps, averaged over the last ones.

Training never sees the second half of XQuAD, in any language: it uses the first half in Russian and Arabic, and leaves out
each SQuAD paragraph that is in XQuAD. `tests/fixtures/ranking.parquet`, which measures the result, is of the second half.

So small a network does not learn in minutes to compare words from labels of pairs alone. It gets three kinds of help:
its first weights let equal pieces attend to each other, and a coordinate of each piece's vector is its inverse document
frequency; for two layers every piece is told whether it is of the query or the passage, and whether it occurs in both; and
early scores imitate how much of the query, weighted by rarity, the passage holds. Real questions then take over.
"""

import argparse
import base64
import io
import json
import math
import random
import re
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

SEED = 20
VOCABULARY = 12000
HIDDEN, LAYERS, HEADS, INTERMEDIATE, TOKENS = 128, 3, 4, 256, 512
CONTENT = 96  # coordinates of a vector that begin as the piece's own; the others begin as its position
GROUPS, GROUP = 32, 4  # a step sees GROUPS queries, each with a relevant passage and GROUP - 1 others
RATE, WARM_UP, AVERAGE = 2e-3, 100, 0.995
START, PAD, END, UNKNOWN = range(4)


# ------------------------------------------------------------------------------------------------ data


def normalized(text):
    return "".join(re.findall(r"\w+", text.lower()))


def near(a, b):
    """Whether two sets of shingles are of nearly the same text."""
    return len(a & b) > 0.3 * min(len(a), len(b))


def shingles(text):
    text = normalized(text)
    return {text[i : i + 12] for i in range(0, max(1, len(text) - 11))}


def paragraphs(path, articles=slice(None)):
    """(passage, [(question, offset of its answer)]) of each paragraph, in order."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"][articles]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"], [
                (qa["question"], qa["answers"][0]["answer_start"]) for qa in paragraph["qas"] if not qa.get("is_impossible")
            ]


def training_sets(data):
    evaluated = [shingles(passage) for passage, _ in paragraphs(data / "xquad.en.json")]
    squad = list(paragraphs(data / "squad2.dev.json"))
    kept = [p for p in squad if not any(near(shingles(p[0]), e) for e in evaluated)]
    print(f"squad2.dev: {len(squad)} paragraphs, {len(squad) - len(kept)} of them in XQuAD left out")
    half = slice(0, 24)
    return {
        "squad2": kept,
        "cmrc2018": list(paragraphs(data / "cmrc2018.dev.json")),
        "drcd": list(paragraphs(data / "drcd.dev.json")),
        "xquad.ru": list(paragraphs(data / "xquad.ru.json", half)),
        "xquad.ar": list(paragraphs(data / "xquad.ar.json", half)),
    }


# ------------------------------------------------------------------------------------------------ tokenizer


def write_tokenizer(texts, output):
    """XLM-RoBERTa's pipeline around a vocabulary of our own."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=VOCABULARY - 2, model_type="unigram", num_threads=1,
        character_coverage=0.9998, normalization_rule_name="nmt_nfkc", max_sentence_length=20000, minloglevel=2,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    learned = [[p.piece, float(np.float32(p.score))] for p in proto.pieces if p.type == 1]
    vocabulary = [[t, 0.0] for t in ("<s>", "<pad>", "</s>", "<unk>")] + learned + [["<mask>", 0.0]]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": vocabulary[i][0], **flags} for i in (0, 1, 2, 3, len(vocabulary) - 1)]
    added[-1]["lstrip"] = True
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    special = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}
    text = lambda name: {"Sequence": {"id": name, "type_id": 0}}
    single = [special("<s>"), text("A"), special("</s>")]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode(),
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, special("</s>"), text("B"), special("</s>")],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (("<s>", 0), ("</s>", 2))},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": UNKNOWN, "vocab": vocabulary, "byte_fallback": False},
    }
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "sep_token": "</s>"}
    names["unk_token"] = "<unk>"
    mask = {k: added[-1][k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word")}
    settings = {
        "added_tokens_decoder": {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added},
        "clean_up_tokenization_spaces": True,
        "mask_token": "<mask>",
        "model_max_length": TOKENS,
        "tokenizer_class": "XLMRobertaTokenizer",
        **names,
    }
    write = lambda name, value, **how: (output / name).write_text(json.dumps(value, ensure_ascii=False, **how), encoding="utf-8")
    write("tokenizer.json", tokenizer, separators=(",", ":"))
    write("tokenizer_config.json", settings, indent=1)
    write("special_tokens_map.json", {**names, "mask_token": mask}, indent=1)
    return Tokenizer.from_file(str(output / "tokenizer.json"))


# ------------------------------------------------------------------------------------------------ examples


class Corpus:
    """The paragraphs of one source as pieces, and the questions with the piece at which their answer begins."""

    def __init__(self, tokenizer, source):
        encodings = tokenizer.encode_batch([passage for passage, _ in source], add_special_tokens=False)
        self.passages = [e.ids for e in encodings]
        self.questions = []
        for number, (_, questions) in enumerate(source):
            starts = [begin for begin, _ in encodings[number].offsets]
            for question, answer in questions:
                ids = tokenizer.encode(question, add_special_tokens=False).ids
                at = max(0, np.searchsorted(starts, answer, side="right") - 1)
                self.questions.append((ids, number, int(at)))

    def window(self, number, length, around=None):
        """A part of a passage; the part of a relevant passage includes the piece `around`."""
        passage = self.passages[number]
        last = len(passage) - length
        if last <= 0:
            return passage
        low, high = (0, last) if around is None else (max(0, around - length + 1), min(around, last))
        begin = random.randint(min(low, last), max(low, high))
        return passage[begin : begin + length]

    def other(self, number):
        """Another paragraph, often one of the same article."""
        while True:
            near = number + random.choice([-3, -2, -1, 1, 2, 3])
            other = near if random.random() < 0.3 else random.randrange(len(self.passages))
            if other != number and 0 <= other < len(self.passages):
                return other

    def pseudo_query(self):
        """Some pieces of a paragraph, at times out of order, and where they were."""
        while True:
            number = random.randrange(len(self.passages))
            passage, size = self.passages[number], random.randint(3, 14)
            if len(passage) > 40:
                break
        begin = random.randrange(len(passage) - size)
        query = [piece for piece in passage[begin : begin + size] if random.random() < 0.7] or passage[begin : begin + size]
        if random.random() < 0.5:
            random.shuffle(query)
        # Questions bring words of their own.
        strangers = random.choice(self.questions)[0]
        for _ in range(random.randint(0, 3)):
            query.insert(random.randrange(len(query) + 1), random.choice(strangers))
        return query, number, begin

    def group(self, real, length):
        """A query with a window of its own passage and windows, cut the same way, of others."""
        query, number, at = random.choice(self.questions) if real else self.pseudo_query()
        others = [self.window(self.other(number), length) for _ in range(GROUP - 1)]
        return [(query[:64], passage) for passage in [self.window(number, length, at), *others]]


def curriculum(step):
    """Lengths of windows and the share of real questions."""
    if step < 400:
        return (24, 40), 0.0
    if step < 900:
        return (40, 60, 90), 0.4
    return (60, 100, 150), 0.7


def collate(pairs, frequencies):
    """Ids, mask, and what the help is about: each piece's side (0, 1), whether it is on both, and the covered rarity."""
    rows = [[START, *q, END, END, *p[: TOKENS - 4 - len(q)], END] for q, p in pairs]
    width = max(map(len, rows))
    ids = np.full((len(rows), width), PAD, dtype=np.int64)
    side = np.full((len(rows), width), -1.0, dtype=np.float32)
    both = np.zeros((len(rows), width), dtype=np.float32)
    covered = np.zeros(len(rows), dtype=np.float32)
    for r, (row, (query, passage)) in enumerate(zip(rows, pairs)):
        ids[r, : len(row)] = row
        q, p = np.array(query), np.array(row[len(query) + 3 : -1])
        in_passage, in_query = np.isin(q, p), np.isin(p, q)
        side[r, 1 : 1 + len(q)], side[r, 3 + len(q) : 3 + len(q) + len(p)] = 0, 1
        both[r, 1 : 1 + len(q)], both[r, 3 + len(q) : 3 + len(q) + len(p)] = in_passage, in_query
        rarity = frequencies[q]
        covered[r] = (rarity * in_passage).sum() / rarity.sum()
    return [torch.from_numpy(x) for x in (ids, side, both, covered)]


# ------------------------------------------------------------------------------------------------ model


def rarities(corpora, size):
    """Each piece's inverse document frequency, as in BM25."""
    documents = [set(p) for c in corpora for p in c.passages]
    counts = np.zeros(size)
    for document in documents:
        counts[list(document)] += 1
    return np.log(1 + (len(documents) - counts + 0.5) / (counts + 0.5)).astype(np.float32)


def new_model(size, frequencies):
    model = XLMRobertaForSequenceClassification(
        XLMRobertaConfig(
            vocab_size=size, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INTERMEDIATE,
            max_position_embeddings=TOKENS + 2, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=1, pad_token_id=PAD,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.06,
        )
    )  # fmt: skip
    embeddings = model.roberta.embeddings
    with torch.no_grad():
        words, positions = embeddings.word_embeddings.weight, embeddings.position_embeddings.weight
        words.zero_(), positions.zero_(), embeddings.token_type_embeddings.weight.zero_()
        own = torch.randn(size, CONTENT - 1)
        words[:, : CONTENT - 1] = own / own.norm(dim=1, keepdim=True) * math.sqrt(CONTENT - 1)
        rarity = torch.from_numpy(frequencies)
        words[:, CONTENT - 1] = (rarity - rarity[4:].mean()) / rarity[4:].std()
        words[:4, CONTENT - 1] = 0
        words[PAD] = 0
        # Low frequencies, odd multiples of one, tell before from after; high ones tell neighbours.
        place = torch.arange(TOKENS)[:, None]
        low = math.pi / TOKENS * torch.arange(1, 16, 2)
        high = torch.logspace(math.log10(0.2), math.log10(2.5), (HIDDEN - CONTENT) // 2 - len(low))
        angles = place * torch.cat([low, high])
        positions[2:, CONTENT:] = torch.stack([angles.sin(), angles.cos()], 2).flatten(1) * math.sqrt(2)
        # Equal pieces attend to each other (one head per 32 coordinates; the last one's are places).
        for layer in model.roberta.encoder.layer[1:]:
            for projection in (layer.attention.self.query, layer.attention.self.key):
                projection.weight.mul_(0.3).add_(torch.eye(HIDDEN) * 1.2)
    return model


class Help(torch.nn.Module):
    """Reads each piece's side from the first layer's result and whether it is on both from the second's. Not shipped."""

    def __init__(self):
        super().__init__()
        self.side, self.both = torch.nn.Linear(HIDDEN, 1), torch.nn.Linear(HIDDEN, 1)

    def forward(self, states, side, both):
        real = side >= 0
        of_side = F.binary_cross_entropy_with_logits(self.side(states[1])[..., 0][real], side[real])
        of_both = F.binary_cross_entropy_with_logits(self.both(states[2])[..., 0][real], both[real], pos_weight=torch.tensor(3.0))
        return of_side, of_both


# ------------------------------------------------------------------------------------------------ training


class Lists:
    """Questions of XQuAD's first half, each with its own passage and 19 others: to watch, not to measure."""

    def __init__(self, tokenizer, path):
        self.corpus = Corpus(tokenizer, list(paragraphs(path, slice(0, 24))))
        chance = random.Random(SEED)
        numbers = range(len(self.corpus.passages))
        self.lists = [
            (query, [number, *chance.sample([n for n in numbers if n != number], 19)])
            for query, number, _ in chance.sample(self.corpus.questions, 40)
        ]

    def mean_reciprocal_rank(self, model, frequencies):
        total = 0
        for query, numbers in self.lists:
            ids = collate([(query, self.corpus.passages[n]) for n in numbers], frequencies)[0]
            with torch.no_grad():
                scores = model(ids, attention_mask=(ids != PAD).long()).logits[:, 0]
            total += 1 / (1 + int((scores > scores[0]).sum()))
        return total / len(self.lists)


def save(model, averages, output):
    kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(averages)
    model.half().save_pretrained(output)
    model.float().load_state_dict(kept)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("data", type=Path)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("--steps", type=int, default=1250)
    arguments.add_argument("--threads", type=int, default=2)
    arguments = arguments.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    random.seed(SEED), torch.manual_seed(SEED)

    sources = training_sets(arguments.data)
    texts = [text for source in sources.values() for passage, qs in source for text in (passage.replace("\n", " "), *(q for q, _ in qs))]
    tokenizer = write_tokenizer(texts, output)
    corpora = [Corpus(tokenizer, source) for source in sources.values()]
    shares = [len(c.questions) for c in corpora]
    shares[0] *= 1.5  # one language of its own, where the two Chinese sources help each other
    frequencies = rarities(corpora, tokenizer.get_vocab_size())
    watched = {name: Lists(tokenizer, arguments.data / f"xquad.{name}.json") for name in ("en", "zh")}

    model, helper = new_model(tokenizer.get_vocab_size(), frequencies), Help()
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {tokenizer.get_vocab_size()} pieces")
    weights = [*model.parameters(), *helper.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    averages = {name: weight.clone() for name, weight in model.state_dict().items()}

    began = time.time()
    for step in range(arguments.steps):
        lengths, share = curriculum(step)
        length = random.choice(lengths)
        groups = [random.choices(corpora, shares)[0].group(random.random() < share, length) for _ in range(GROUPS)]
        ids, side, both, covered = collate([pair for group in groups for pair in group], frequencies)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP)

        result = model(ids, attention_mask=(ids != PAD).long(), output_hidden_states=True)
        scores = result.logits[:, 0]
        of_side, of_both = helper(result.hidden_states, side, both)
        imitation = F.mse_loss(scores, 10 * covered - 5) / 10
        lists = scores.view(GROUPS, GROUP)
        ranking = F.cross_entropy(lists, torch.zeros(GROUPS, dtype=torch.long))
        relevant = torch.zeros_like(lists).index_fill_(1, torch.tensor([0]), 1.0)
        absolute = F.binary_cross_entropy_with_logits(lists, relevant)
        imitate = max(0.02, 1 - step / 1200)
        loss = imitate * (of_side + 2 * of_both + imitation) + ranking + 0.3 * absolute
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        done = step + 1
        keep = min(AVERAGE, done / (done + 10))
        for name, weight in model.state_dict().items():
            averages[name].mul_(keep).add_(weight, alpha=1 - keep) if weight.is_floating_point() else averages[name].copy_(weight)

        if done % 25 == 0:
            parts = {"side": of_side, "both": of_both, "imitation": imitation, "ranking": ranking, "absolute": absolute}
            print(done, f"{time.time() - began:.0f} s", *(f"{k} {v.item():.3f}" for k, v in parts.items()), flush=True)
        if done % 250 == 0:
            ranks = {name: round(lists.mean_reciprocal_rank(model, frequencies), 3) for name, lists in watched.items()}
            print(done, "MRR of 20 while training:", ranks, flush=True)
            save(model, averages, output)
    save(model, averages, output)


if __name__ == "__main__":
    main()
