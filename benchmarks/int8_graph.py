"""What each rewrite of the int8 graph gains: alternating runs of one process on one thread, ratios round by round.

    python -m benchmarks.int8_graph models/sentiment TRAIN.parquet TEST.parquet > result.json

Counts the thread's own CPU time, so that other work on the machine disturbs it less. TEST is used for accuracy and for
batch-exactness: each text alone against in batches of 32 as they come.
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from compression import quantize
from compression.data import Columns, read_examples
from compression.graph.export import export
from compression.graph.fuse import expand_attention, find_attention, fuse, keep_first_token
from compression.parent.checkpoint import load_parent
from compression.steps import feeds_of

SHAPES = ((1, 24), (8, 24), (32, 32))  # texts, tokens of each
ROUNDS = 21

Feed = quantize.Feed


def main(parent_name: str, train: Path, test: Path) -> None:
    """Prints one JSON object."""
    torch.set_num_threads(1)
    parent = load_parent(parent_name)
    texts = [text for text in read_examples(train, Columns()).single_texts if len(text.split()) >= 8][:300]
    judged = read_examples(test, Columns())
    model = export(parent, 18)
    feeds, test_feeds = feeds_of(model, parent, texts), feeds_of(model, parent, judged.single_texts)

    chosen = quantize.calibrate(model, quantize.linears(model), feeds)
    fused = fuse(model)
    chosen_fused = quantize.calibrate(fused, quantize.linears(fused), feeds)
    attention = find_attention(model)
    graphs = {
        "dynamic": quantize.quantize_dynamic(model),
        "static": quantize.quantize_linears(model, chosen),
        "static, attention in few nodes": quantize.quantize_linears(expand_attention(attention), chosen),
        "static, attention in one node": quantize.quantize_linears(attention, chosen),
        "static, fused": quantize.quantize_linears(fused, chosen_fused),
        "static, fused, attention in one node": quantize.quantize_linears(keep_first_token(attention), chosen_fused),
    }
    sessions = {name: _session(quantize.quantize_embeddings(graph)) for name, graph in graphs.items()}
    float_session = _session(model)
    labels = [parent.labels.index(label) for label in judged.labels]
    exact = _logits(float_session, test_feeds)
    result = {
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "rounds": ROUNDS,
        "float": _quality(exact, exact, labels),
        "latency": [_latency(parent.model, sessions, *shape) for shape in SHAPES],
        "quality": {
            name: _quality(logits := _logits(session, test_feeds), exact, labels)
            | {"batch_deviation": _batch_deviation(session, test_feeds, logits)}
            for name, session in sessions.items()
        },
    }
    print(json.dumps(result, indent=2))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )


def _logits(session: onnxruntime.InferenceSession, feeds: list[Feed]) -> Any:
    return np.concatenate([session.run(["logits"], feed)[0] for feed in feeds])


def _quality(logits: Any, exact: Any, labels: list[int]) -> dict[str, float]:
    chosen = logits.argmax(axis=1)
    return {
        "accuracy": round(float((chosen == labels).mean()) * 100, 2),
        "agreement": round(float((chosen == exact.argmax(axis=1)).mean()), 4),
        "logit_error": round(float(np.sqrt(np.square(logits - exact).mean())), 4),
    }


def _batch_deviation(session: onnxruntime.InferenceSession, feeds: list[Feed], alone: Any) -> float:
    """The largest change of a logit when texts are padded and answered 32 at a time."""
    together = [_pad(feeds[start : start + 32]) for start in range(0, len(feeds), 32)]
    return float(np.abs(_logits(session, together) - alone).max())


def _pad(feeds: list[Feed]) -> Feed:
    longest = max(feed["input_ids"].shape[1] for feed in feeds)
    return {
        name: np.concatenate([np.pad(feed[name], ((0, 0), (0, longest - feed[name].shape[1]))) for feed in feeds])
        for name in feeds[0]
    }


def _latency(
    parent: torch.nn.Module, sessions: dict[str, onnxruntime.InferenceSession], batch: int, tokens: int
) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, tokens))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    tensors = {name: torch.from_numpy(values) for name, values in feed.items()}

    def run_parent() -> None:
        with torch.inference_mode():
            parent(**tensors)

    runs: dict[str, Callable[[], Any]] = {"PyTorch": run_parent}
    for name, session in sessions.items():
        wanted = {value.name: feed[value.name] for value in session.get_inputs()}
        runs[name] = functools.partial(session.run, ["logits"], wanted)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    repeats = max(1, 8 // batch)
    for _ in range(ROUNDS + 1):  # the first one warms up
        for name, run in runs.items():
            start = time.thread_time()
            for _ in range(repeats):
                run()
            seconds[name].append((time.thread_time() - start) / repeats)

    def ratio(slow: str, fast: str) -> float:
        return round(statistics.median(a / b for a, b in zip(seconds[slow][1:], seconds[fast][1:], strict=True)), 3)

    return {
        "batch": batch,
        "tokens": tokens,
        "least_ms": {name: round(min(times[1:]) * 1e3, 2) for name, times in seconds.items()},
        "times_faster_than_pytorch": {name: ratio("PyTorch", name) for name in sessions},
        "times_faster_than_dynamic": {name: ratio("dynamic", name) for name in sessions},
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
