"""One face for parents and bundles: texts or pairs in, logits out. What evaluates a model need not know which it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from compression.bundle import (
    Bundle,
    Encoded,
    Input,
    InputKind,
    Logits,
    LongTexts,
    Runtime,
    Task,
    extra,
    joined,
    open_bundle,
    windows_of,
)
from compression.bundle.storage import MANIFEST
from compression.errors import CheckpointError, DataError
from compression.progress import track

if TYPE_CHECKING:  # a bundle runs where torch and transformers are not installed
    from compression.parent.checkpoint import Parent

_BATCH = 32


class Classifier(Protocol):
    """A text classifier; `max_length` is the window in tokens, `long_texts` what is read of longer ones."""

    name: str
    task: Task
    max_length: int
    long_texts: LongTexts | None

    @property
    def batch_exact(self) -> bool:
        """Whether a text's answer is the same in any batch; else texts are computed one at a time."""
        ...

    def length(self, given: Input) -> int:
        """How many tokens a text or pair has as a whole."""
        ...

    def encode(self, given: Input) -> Encoded:
        """Tokenises one text or pair as the model wants it."""
        ...

    def forward(self, batch: Sequence[Encoded]) -> Logits:
        """One forward pass of all windows: (texts, labels)."""
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

    def __init__(
        self, name: str, runtime: Runtime, task: Task, inputs: InputKind = "texts", batch_exact: bool = True
    ) -> None:
        self.name = name
        self.task = task
        self._inputs = inputs
        self.batch_exact = batch_exact
        self.max_length = runtime.max_length
        self.long_texts = runtime.long_texts
        self.length: Callable[[Input], int] = runtime.tokenizer.length
        self.encode: Callable[[Input], Encoded] = runtime.encode
        self.forward: Callable[[Sequence[Encoded]], Logits] = runtime.logits
        self.abstains: Callable[[Logits], Sequence[bool | None]] = lambda logits: [None] * len(logits)

    @classmethod
    def of(cls, bundle: Bundle, threads: int = 1) -> Self:
        """That of a verified bundle, which has its directory's name."""
        manifest = bundle.manifest
        runtime = Runtime.of(bundle, threads=threads)
        self = cls(str(bundle.path), runtime, bundle.task, manifest.inputs, manifest.runtime.batch_exact)
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
        self.long_texts = parent.long_texts
        self._parent = parent

    @cached_property
    def batch_exact(self) -> bool:
        from compression.parent.batches import is_batch_exact

        return is_batch_exact(self._parent)

    def reading(self, long_texts: LongTexts | None) -> "ParentClassifier":
        """The same, which reads so of long texts."""
        return ParentClassifier(replace(self._parent, long_texts=long_texts))

    def length(self, given: Input) -> int:
        return self._parent.window_tokenizer.length(given)

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
        from compression.parent.quiet import reason

        inputs = collate(self._parent, windows_of(batch))
        try:
            with torch.inference_mode():
                logits: Logits = self._parent.model(**inputs).logits.float().numpy()
        except Exception as error:  # whatever a model's own code says of a config that it does not expect
            raise CheckpointError(f"{self.name}: transformers cannot run this model: {reason(error)}") from error
        return joined(logits, batch, self.long_texts)


def load_classifier(path: str, threads: int = 1) -> BundleClassifier | ParentClassifier:
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
    """Logits of many texts, (texts, labels), computed in batches of similar length, under a progress bar.

    One at a time where an answer would depend on the others.
    """
    encoded = [classifier.encode(text) for text in texts]
    windows = windows_of(encoded)
    order = sorted(range(len(windows)), key=lambda index: len(windows[index]))
    logits = np.empty((len(windows), len(classifier.task.labels)), np.float32)
    size = _BATCH if classifier.batch_exact else 1
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    for batch in track(batches, description):
        logits[batch] = classifier.forward([windows[index] for index in batch])
    return joined(logits, encoded, classifier.long_texts)
