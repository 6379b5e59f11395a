"""Times a bundle against its parent: alternating runs of the same shape, one thread each, ratios run by run.

A shared machine's speed drifts; two runs that follow each other drift together, so their ratio holds where milliseconds
do not.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compression.bundle import Encoded, Latency
from compression.classifier import Classifier
from compression.progress import track

SHAPES = ((1, 24), (8, 24), (32, 32))  # texts, tokens of each
_ROUNDS = 11


def compare_latency(parent: Classifier, bundle: Classifier, texts: Sequence[str]) -> tuple[Latency, ...]:
    """Measures each of SHAPES.

    Args:
        texts: real text, from which batches of exactly these lengths are cut.
    """
    with _one_torch_thread():
        return tuple(
            _compare(parent, bundle, batch, tokens, texts) for batch, tokens in track(SHAPES, "Time against parent")
        )


def _compare(parent: Classifier, bundle: Classifier, batch: int, tokens: int, texts: Sequence[str]) -> Latency:
    inputs = [(model, _cut(model, batch, tokens, texts)) for model in (parent, bundle)]
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS + 1):
        for (model, encoded), times in zip(inputs, seconds, strict=True):
            start = time.perf_counter()
            model.forward(encoded)
            times.append(time.perf_counter() - start)
    parent_times, bundle_times = (times[1:] for times in seconds)  # the first run warms up
    ratios = [slow / fast for slow, fast in zip(parent_times, bundle_times, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return Latency(
        batch=batch,
        tokens=tokens,
        ratio=round(ratio, 2),
        ratio_low=round(low, 2),
        ratio_high=round(high, 2),
        bundle_ms=round(statistics.median(bundle_times) * 1e3, 2),
    )


def _cut(model: Classifier, batch: int, tokens: int, texts: Sequence[str]) -> list[Encoded]:
    """`batch` inputs of exactly `tokens` tokens: the texts' own tokens on end, cut at every `tokens`."""
    ids: list[int] = []
    for text in texts:
        ids += model.encode(text).ids
        if len(ids) >= batch * tokens:
            break
    ids *= -(-batch * tokens // len(ids))
    return [
        Encoded(ids[start : start + tokens], [0] * tokens, truncated=False)
        for start in range(0, batch * tokens, tokens)
    ]


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
