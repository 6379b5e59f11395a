"""One face for parents and bundles: texts or pairs in, logits out. What evaluates a model need not know which it is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from compression.bundle import Bundle, Encoded, Input, InputKind, Logits, Runtime, Task, extra, open_bundle
from compression.bundle.storage import MANIFEST
from compression.errors import DataError
from compression.progress import track

if TYPE_CHECKING:  # a bundle runs where torch and transformers are not installed
    from compression.parent.checkpoint import Parent

_BATCH = 32


class Classifier(Protocol):
    """A text classifier; `max_length` is the window in tokens."""

    name: str
    task: Task
    max_length: int

    def encode(self, given: Input) -> Encoded:
        """Tokenises one text or pair as the model wants it."""
        ...

    def forward(self, batch: Sequence[Encoded]) -> Logits:
        """One forward pass: (texts, labels)."""
        ...

    def abstains(self, logits: Logits) -> Sequence[bool | None]:
        """See `Bundle.abstains`; a parent never does."""
        ...

    def require_reads(self, inputs: InputKind) -> None:
        """Refuses inputs that are not of the model's kind.

        Raises:
            LatheError: names the model, and what it reads.
        """
        ...


class BundleClassifier:
    """A bundle's runtime; `inputs` is what its model reads."""

    def __init__(self, name: str, runtime: Runtime, task: Task, inputs: InputKind = "texts") -> None:
        self.name = name
        self.task = task
        self._inputs = inputs
        self.max_length = runtime.max_length
        self.encode: Callable[[Input], Encoded] = runtime.encode
        self.forward: Callable[[Sequence[Encoded]], Logits] = runtime.logits
        self.abstains: Callable[[Logits], Sequence[bool | None]] = lambda logits: [None] * len(logits)

    @classmethod
    def of(cls, bundle: Bundle, threads: int = 1) -> Self:
        """That of a verified bundle, which has its directory's name."""
        self = cls(str(bundle.path), Runtime.of(bundle, threads=threads), bundle.task, bundle.manifest.inputs)
        self.abstains = bundle.abstains
        return self

    def require_reads(self, inputs: InputKind) -> None:
        if inputs == self._inputs:
            return
        if inputs == "texts":
            raise DataError(f"{self.name}: reads pairs of texts; name the column of the second with --text-pair-column")
        raise DataError(f"{self.name}: reads single texts, and the data are pairs; leave out --text-pair-column")


class ParentClassifier:
    """A parent in PyTorch."""

    def __init__(self, parent: "Parent") -> None:
        self.name = parent.name
        self.task = parent.task
        self.max_length = parent.max_length
        self._parent = parent

    def encode(self, given: Input) -> Encoded:
        from compression.parent.batches import encode

        return encode(self._parent, [given])[0]

    def abstains(self, logits: Logits) -> Sequence[bool | None]:
        return [None] * len(logits)

    def require_reads(self, inputs: InputKind) -> None:
        from compression.parent.inputs import require_reads

        require_reads(self._parent, inputs)

    def forward(self, batch: Sequence[Encoded]) -> Logits:
        import torch

        from compression.parent.batches import collate

        inputs = collate(self._parent, batch)
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
        return BundleClassifier.of(open_bundle(Path(path)), threads)
    with extra("compress", f"{path}: a parent"):
        from compression.parent.checkpoint import load_parent

    return ParentClassifier(load_parent(path))


def predict(classifier: Classifier, texts: Sequence[Input], description: str) -> Logits:
    """Logits of many texts, (texts, labels), computed in batches of similar length, under a progress bar."""
    encoded = [classifier.encode(text) for text in texts]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    logits = np.empty((len(texts), len(classifier.task.labels)), np.float32)
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    for batch in track(batches, description):
        logits[batch] = classifier.forward([encoded[index] for index in batch])
    return logits
