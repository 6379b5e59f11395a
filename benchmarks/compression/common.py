"""Measures what a tool produced, the same way for every tool: ONNX models run in one process on one ONNX Runtime."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compression.bundle import Logits, Runtime, RuntimeOptions, open_bundle, softmax
from compression.bundle.storage import MANIFEST, MODEL, MODEL_ZSTD, TOKENIZER
from compression.data import Examples
from compression.measure.evaluate import agreement
from compression.measure.latency import Quartiles, time_against_first
from compression.measure.significance import compare_answers
from compression.parent.checkpoint import Parent, weight_bytes
from compression.parent.classifier import BundleClassifier, Classifier, ParentClassifier

_BATCH = 32


@dataclass(frozen=True)
class Speed:
    """The parent's time (PyTorch float32) over the model's, one thread each, at one shape."""

    batch: int
    tokens: int
    ratio: Quartiles


@dataclass(frozen=True)
class Row:
    """One model on the test texts. Fractions, not percent.

    Attributes:
        disk_mb: model and tokenizer on disk, 10^6 bytes.
        difference: accuracy minus the parent's, in points; below 0 the model is worse.
        difference_low: lower end of the 95 % interval of the difference (paired bootstrap).
        difference_high: upper end.
        agreement: texts with the same label from the parent, both alone.
        flips: texts whose label differs between alone and in a batch of 32 mixed ones.
        batch_deviation: largest change of any score between those two.
    """

    disk_mb: float
    accuracy: float
    difference: float
    difference_low: float
    difference_high: float
    agreement: float
    flips: int
    batch_deviation: float
    speeds: tuple[Speed, ...]


def load_produced(folder: Path, parent: Parent) -> BundleClassifier:
    """A tool's model.onnx and tokenizer.json, with ONNX Runtime's defaults; a bundle as its manifest asks."""
    if (folder / MANIFEST).is_file():
        bundle = open_bundle(folder)
        return BundleClassifier(folder.name, Runtime.of(bundle), bundle.task)
    model, tokenizer = (folder / MODEL).read_bytes(), (folder / TOKENIZER).read_bytes()
    pad = parent.tokenizer.pad_token_id or 0
    options = RuntimeOptions(pad_token_id=pad, batch_exact=False)
    runtime = Runtime(model, tokenizer, parent.max_length, options, weights=folder)
    return BundleClassifier(folder.name, runtime, parent.task)


def measure_all(parent: Parent, folders: Sequence[Path], test: Examples) -> list[Row]:
    """Measures the parent and, in order, each folder's model; timed in turn with one another."""
    reference = ParentClassifier(parent)
    models: list[Classifier] = [reference, *(load_produced(folder, parent) for folder in folders)]
    disk = [_parent_bytes(parent), *map(_disk_bytes, folders)]
    alone = [_one_by_one(model, test.single_texts) for model in models]
    together = [_in_mixed_batches(model, test.single_texts) for model in models]
    speeds = _speeds(models, test.single_texts)
    return [
        Row(
            disk_mb=round(size / 1e6, 3),
            accuracy=float(_right(one, test, parent.labels).mean()),
            **_difference(_right(one, test, parent.labels), _right(alone[0], test, parent.labels)),
            agreement=agreement(one, alone[0], parent.task),
            flips=int((one.argmax(1) != batched.argmax(1)).sum()),
            batch_deviation=float(np.abs(softmax(one) - softmax(batched)).max()),
            speeds=speed,
        )
        for size, one, batched, speed in zip(disk, alone, together, speeds, strict=True)
    ]


def paired_interval(right: npt.NDArray[np.bool_], expected: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies on the same texts, in points (paired bootstrap).

    Args:
        right: which texts the model has right, (texts,).
        expected: which the parent has right.
    """
    accuracy = compare_answers(np.ones((len(right), 1), np.bool_), expected[:, None], right[:, None]).accuracy
    return round(100 * accuracy.low, 2), round(100 * accuracy.high, 2)


def _difference(right: npt.NDArray[np.bool_], expected: npt.NDArray[np.bool_]) -> dict[str, float]:
    low, high = paired_interval(right, expected)
    points = round(float(100 * (right.mean() - expected.mean())), 2)
    return {"difference": points, "difference_low": low, "difference_high": high}


def _right(logits: Logits, test: Examples, labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    answers = [labels[index] for index in logits.argmax(axis=1)]
    return np.array([want == got for want, got in zip(test.labels, answers, strict=True)])


def _one_by_one(model: Classifier, texts: Sequence[str]) -> Logits:
    return np.concatenate([model.forward([model.encode(text)]) for text in texts])


def _in_mixed_batches(model: Classifier, texts: Sequence[str]) -> Logits:
    """In batches as a server sees them: texts of any length together, in an order that is the same for all models."""
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    logits = np.empty((len(texts), len(model.task.labels)), np.float32)
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        logits[batch] = model.forward([model.encode(texts[index]) for index in batch])
    return logits


def _speeds(models: Sequence[Classifier], texts: Sequence[str]) -> list[tuple[Speed, ...]]:
    return [
        tuple(Speed(*shape, ratio) for shape, ratio in speed.items())
        for speed in time_against_first(models, texts, rounds=21)
    ]


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for name in (MODEL, MODEL_ZSTD, TOKENIZER) if (path := folder / name).is_file())


def _parent_bytes(parent: Parent) -> int:
    return weight_bytes(parent) + len(parent.tokenizer.backend_tokenizer.to_str().encode())
