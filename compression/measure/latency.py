"""The one way to time classifiers: alternating runs of the same shape, ratios taken run by run.

A shared machine's speed drifts; two runs that follow each other drift together, so their ratio holds where milliseconds
do not.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compression.bundle import Encoded, Input, Latency, texts_of
from compression.parent.classifier import Classifier
from compression.progress import track

SHAPES = ((1, 24), (8, 24), (32, 32))  # texts, tokens of each
ROUNDS = 11
_REPEATED_TEXTS = 8  # a turn's runs answer about so many


@dataclass(frozen=True)
class Quartiles:
    """Of repeated measurements."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], digits: int = 2) -> "Quartiles":
        """Of at least two values, rounded."""
        return cls(*(round(value, digits) for value in statistics.quantiles(values, n=4)))


def compare_latency(
    parent: Classifier, bundle: Classifier, texts: Sequence[Input], exported: Classifier | None = None
) -> tuple[Latency, ...]:
    """Measures each of SHAPES, of texts no longer than the window, one thread each.

    Args:
        texts: real text, from which batches of exactly these lengths are cut.
        exported: the parent in ONNX Runtime, float32.
    """
    window = min(parent.max_length, bundle.max_length)
    shapes = [(batch, min(tokens, window)) for batch, tokens in SHAPES]
    return tuple(
        _latency(parent, bundle, exported, batch, tokens, texts)
        for batch, tokens in track(shapes, "Time against parent")
    )


def time_runs(
    models: Sequence[Classifier],
    batch: int,
    tokens: int,
    texts: Sequence[Input],
    rounds: int = ROUNDS,
    threads: int = 1,
) -> list[list[float]]:
    """Runs the models in turn, `rounds` times.

    In its turn a model first runs once uncounted, so that the caches hold its weights and not those of the one before,
    as they do in a server that runs one model; then the mean of a few runs counts.

    Args:
        batch: texts of a run.
        tokens: length of each, special tokens included; within every model's window.
        texts: what the batches are cut from; repeated where it is short.
        threads: for those models that run in PyTorch; a bundle's runtime was given its own.

    Returns:
        seconds, (models, rounds)
    """
    inputs = [_cut(model, batch, tokens, texts) for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    repeats = max(1, _REPEATED_TEXTS // batch)
    with _torch_threads(threads):
        for _ in range(rounds):
            for model, encoded, times in zip(models, inputs, seconds, strict=True):
                model.forward(encoded)
                start = time.perf_counter()
                for _ in range(repeats):
                    model.forward(encoded)
                times.append((time.perf_counter() - start) / repeats)
    return seconds


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Quartiles:
    """How many times faster the second is: quartiles of the ratios of runs that followed each other."""
    return Quartiles.of([one / other for one, other in zip(slow, fast, strict=True)])


def time_against_first(
    models: Sequence[Classifier], texts: Sequence[Input], rounds: int = ROUNDS
) -> list[dict[tuple[int, int], Quartiles]]:
    """By model, at those of SHAPES that fit every window: the first one's time over its own."""
    window = min(model.max_length for model in models)
    speeds: list[dict[tuple[int, int], Quartiles]] = [{} for _ in models]
    for batch, tokens in track([shape for shape in SHAPES if shape[1] <= window], "Time in turn"):
        runs = time_runs(models, batch, tokens, texts, rounds)
        for speed, times in zip(speeds, runs, strict=True):
            speed[batch, tokens] = ratios(runs[0], times)
    return speeds


def _latency(
    parent: Classifier, bundle: Classifier, exported: Classifier | None, batch: int, tokens: int, texts: Sequence[Input]
) -> Latency:
    models = (parent, bundle) if exported is None else (parent, bundle, exported)
    parent_times, bundle_times, *others = time_runs(models, batch, tokens, texts)
    ratio = ratios(parent_times, bundle_times)
    return Latency(
        batch=batch,
        tokens=tokens,
        ratio=ratio.median,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        bundle_ms=round(statistics.median(bundle_times) * 1e3, 2),
        onnx_ratio=ratios(parent_times, others[0]).median if others else None,
    )


def _cut(model: Classifier, batch: int, tokens: int, texts: Sequence[Input]) -> list[Encoded]:
    """`batch` inputs of exactly `tokens` tokens, as the tokenizer would make them of texts of that length: the texts'
    own tokens on end, cut, with the special tokens around each. BART, for one, computes nothing without its last one.
    What a forward pass takes is the same for a pair of as many tokens.
    """
    single = [text for given in texts for text in texts_of(given)]
    special = model.encode("").ids
    first = model.encode(single[0]).ids
    before = next((place for place, one in enumerate(special) if one != first[place]), len(special))
    after = len(special) - before
    own = max(0, tokens - len(special))  # of a row's tokens
    ids: list[int] = []
    for text in single:
        for window in model.encode(text).windows:
            ids += window.ids[before : len(window) - after]
        if len(ids) >= batch * own:
            break
    ids = (ids or special) * -(-batch * own // max(1, len(ids or special)))
    rows = [special[:before] + ids[row * own : (row + 1) * own] + special[before:] for row in range(batch)]
    return [Encoded(row[:tokens], [0] * tokens, truncated=False) for row in rows]


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    torch = sys.modules.get("torch")  # not imported: no model here needs it
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
