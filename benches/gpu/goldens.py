"""The golden cases of the tiny checkpoints, against the scores of the reference."""

import json

from program import ALLOWED, FIXTURES, Refused, rank_correlation

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
    """Largest difference from the reference's scores, and least rank correlation, per family and precision. Allows the usual
    difference, or twice that of the reference's own fp32 scores from its float64 scores."""
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
