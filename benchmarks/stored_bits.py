"""What the word embedding and the weights cost in fewer bits, beside dropping pieces of the vocabulary.

    python -m benchmarks.stored_bits models/sentiment TRAIN.parquet TEST.parquet > benchmarks/stored_bits.json

TRAIN gives 4,000 texts of at least 5 words, unlabelled; TEST judges: agreement with the float model, and the divergence
of the predictions from its own. The encoder is whole, its linears are in int8.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import zstandard

from compression import quantize
from compression.data import read_examples
from compression.graph.export import export
from compression.graph.fuse import fuse
from compression.parent.batches import encode
from compression.parent.checkpoint import Parent, load_parent
from compression.prune.vocabulary import prune_parent_vocabulary
from compression.steps import feeds_of

CALIBRATION_TEXTS, RANGE_TEXTS = 4000, 300


def main(parent_name: str, train: Path, test: Path) -> None:
    """Prints one JSON object."""
    parent = load_parent(parent_name)
    texts = [text for text in read_examples(train).single_texts if len(text.split()) >= 5]
    texts = random.Random(0).sample(texts, min(CALIBRATION_TEXTS, len(texts)))
    judged = read_examples(test).single_texts
    exact = _log_probabilities(fuse(export(parent, 18)), parent, judged)
    rows = []
    for name, model, graph in _variants(parent, texts):
        got = _log_probabilities(graph, model, judged)
        content = graph.SerializeToString()
        rows.append(
            {
                "name": name,
                "pieces": model.model.get_input_embeddings().num_embeddings,
                "mb": round(len(content) / 1e6, 2),
                "zstd_mb": round(len(zstandard.ZstdCompressor(level=19).compress(content)) / 1e6, 2),
                "agreement": round(float((got.argmax(1) == exact.argmax(1)).mean()), 4),
                "divergence": round(float((np.exp(exact) * (exact - got)).sum(axis=1).mean()), 4),
            }
        )
        print(rows[-1], file=sys.stderr)
    print(json.dumps({"parent": parent_name, "onnxruntime": onnxruntime.__version__, "rows": rows}, indent=2))


def _variants(parent: Parent, texts: list[str]) -> Iterator[tuple[str, Parent, onnx.ModelProto]]:
    whole = _int8(parent, texts)
    yield "all pieces, 8 bits", parent, quantize.quantize_embeddings(whole)
    for frequent in (12000, 7000, 2000):
        pruned = prune_parent_vocabulary(parent, texts, frequent)
        yield f"seen pieces and {frequent} more, 8 bits", pruned, quantize.quantize_embeddings(_int8(pruned, texts))
    yield "all pieces, 4 bits", parent, quantize.quantize_embeddings(whole, 4)
    counts = np.bincount(
        np.concatenate([row.ids for row in encode(parent, texts)]), minlength=parent.model.config.vocab_size
    )
    for bits in (3.0, 2.5, 2.0):
        alike = quantize.RowEntropy(bits, np.ones_like(counts))
        yield f"all pieces, {bits} bits stored, all alike", parent, quantize.quantize_embeddings(whole, entropy=alike)
        by_use = quantize.RowEntropy(bits, counts)
        yield f"all pieces, {bits} bits stored, by use", parent, quantize.quantize_embeddings(whole, entropy=by_use)
    for bits in (6.0, 5.0, 4.5, 4.0):
        coarse = quantize.quantize_embeddings(_int8(parent, texts, bits), 4)
        yield f"all pieces, 4 bits; weights {bits} bits stored", parent, coarse


def _int8(model: Parent, texts: list[str], entropy: float | None = None) -> onnx.ModelProto:
    graph = fuse(export(model, 18))
    feeds = feeds_of(graph, model, texts[:RANGE_TEXTS])
    return quantize.quantize_linears(
        graph, quantize.calibrate(graph, quantize.linears(graph), feeds, entropy=entropy), entropy
    )


def _log_probabilities(graph: onnx.ModelProto, model: Parent, texts: tuple[str, ...]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    logits = np.concatenate([session.run(["logits"], feed)[0] for feed in feeds_of(graph, model, texts)])
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
