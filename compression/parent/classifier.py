"""One face for parents and bundles: texts in, logits out. What evaluates a model need not know which it is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from compression.bundle import Encoded, Logits, Runtime, Task, extra, open_bundle
from compression.bundle.storage import MANIFEST
from compression.progress import track

if TYPE_CHECKING:  # a bundle runs where torch and transformers are not installed
    from compression.parent.checkpoint import Parent

_BATCH = 32


class Classifier(Protocol):
    """A text classifier; `max_length` is the window in tokens."""

    name: str
    task: Task
    max_length: int

    def encode(self, text: str) -> Encoded:
        """Tokenises one text as the model wants it."""
        ...

    def forward(self, batch: Sequence[Encoded]) -> Logits:
        """One forward pass: (texts, labels)."""
        ...


class BundleClassifier:
    """A bundle's runtime."""

    def __init__(self, name: str, runtime: Runtime, task: Task) -> None:
        self.name = name
        self.task = task
        self.max_length = runtime.max_length
        self.encode: Callable[[str], Encoded] = runtime.encode
        self.forward: Callable[[Sequence[Encoded]], Logits] = runtime.logits


class ParentClassifier:
    """A parent in PyTorch."""

    def __init__(self, parent: "Parent") -> None:
        self.name = parent.name
        self.task = parent.task
        self.max_length = parent.max_length
        self._parent = parent

    def encode(self, text: str) -> Encoded:
        encoding = self._parent.tokenizer(text, truncation=True, max_length=self._parent.max_length)
        ids: list[int] = encoding["input_ids"]
        return Encoded(ids, encoding.get("token_type_ids", [0] * len(ids)), truncated=False)

    def forward(self, batch: Sequence[Encoded]) -> Logits:
        import torch

        from compression.parent.batches import collate

        inputs = collate(self._parent, [encoded.ids for encoded in batch])
        with torch.inference_mode():
            return self._parent.model(**inputs).logits.float().numpy()  # type: ignore[no-any-return]


def load_classifier(path: str, threads: int = 1) -> Classifier:
    """A bundle directory, or anything that `load_parent` takes.

    Args:
        threads: that one forward pass of a bundle may use; a parent uses those of PyTorch.

    Raises:
        BundleError, CheckpointError: neither can be loaded.
        MissingExtra: what it runs on is not installed.
    """
    if (Path(path) / MANIFEST).is_file():
        bundle = open_bundle(Path(path))
        return BundleClassifier(path, Runtime.of(bundle, threads=threads), bundle.task)
    with extra("compress", f"{path}: a parent"):
        from compression.parent.checkpoint import load_parent

    return ParentClassifier(load_parent(path))


def predict(classifier: Classifier, texts: Sequence[str], description: str) -> Logits:
    """Logits of many texts, (texts, labels), computed in batches of similar length, under a progress bar."""
    encoded = [classifier.encode(text) for text in texts]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    logits = np.empty((len(texts), len(classifier.task.labels)), np.float32)
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    for batch in track(batches, description):
        logits[batch] = classifier.forward([encoded[index] for index in batch])
    return logits
