"""A bundle in a Python program: texts or pairs in, labels and scores out, as the service gives them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compression.bundle.inputs import Input
from compression.bundle.runtime import Runtime
from compression.bundle.storage import Bundle, open_bundle
from compression.bundle.task import Logits
from compression.bundle.windows import Encoded, joined, windows_of
from compression.errors import DataError


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer to one text, or pair.

    Attributes:
        label: the most probable one; of a model that gives any number of labels, also where the text does not get it;
            of one that gives a number, the number's name.
        score: its probability, 0 to 1; or the number.
        labels: those that the text gets, the most probable first: that one, or any number, as the model's task is.
        scores: the same of the `top_k` most probable labels, the most probable first.
        truncated: whether the text was longer than what the model reads of one, and was cut.
        abstained: whether the bundle is less sure of the answer than it has to be: the text may be none that the model
            was made for. None where it has no threshold.
    """

    label: str
    score: float
    labels: tuple[str, ...]
    scores: dict[str, float]
    truncated: bool
    abstained: bool | None = None


class TextClassifier:
    """A bundle that answers texts on the CPU, without torch. It may be called from several threads at once.

    Args:
        threads: that one batch may use.
        batch_tokens: tokens in one batch, padding counted; a longer text still goes alone.

    Raises:
        BundleError: model or tokenizer cannot be loaded.
        MissingExtra: there is no ONNX Runtime.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, batch_tokens: int = 2048) -> None:
        self.bundle = bundle
        self.labels = bundle.manifest.labels
        self._task = bundle.task
        self._runtime = Runtime.of(bundle, threads=threads)
        self._batch_tokens = batch_tokens

    def __call__(
        self, texts: str | Iterable[Input], top_k: int | None = 1, calibrated: bool = False
    ) -> list[Classification]:
        """Classifies texts, or one; or pairs, where the bundle's model reads pairs. The answers are in their order.

            classifier = lathe.load("bundles/mine")
            [answer.label for answer in classifier(["Thank you!", "Never again."])]
            lathe.load("bundles/nli")([("A man sleeps.", "Nobody is awake.")])

        Args:
            top_k: how many labels `scores` holds; None for all. It is the same in `lathe.Client` and over HTTP.
            calibrated: whether scores say how often answers of that score are right; otherwise they are the model's
                own probabilities.

        Raises:
            DataError: a text is none, is empty, or not valid Unicode, or it is a pair and the model reads texts, or the
                other way round; names its place. Or `top_k` is below 1.
        """
        if top_k is not None and top_k < 1:
            raise DataError(f"top_k is {top_k}; pass a whole number from 1 on, or None for all labels")
        if not isinstance(texts, Iterable):
            raise DataError(f"a text, or a list of texts, is needed, not {type(texts).__name__}")
        texts = [texts] if isinstance(texts, str) else list(texts)
        encoded = [self._encode(text, place) for place, text in enumerate(texts, start=1)]
        windows = windows_of(encoded)
        computed = np.empty((len(windows), len(self.labels)), np.float32)
        for batch in self._batches(windows):
            computed[batch] = self._runtime.logits([windows[index] for index in batch])
        logits = joined(computed, encoded, self._runtime.long_texts)
        return self._answers(logits, encoded, top_k, self.bundle.manifest.runtime.temperature if calibrated else 1.0)

    def _encode(self, given: Input, place: int) -> Encoded:
        if self.bundle.manifest.inputs == "pairs":
            given = self._pair(given, place)
        elif isinstance(given, tuple | list):
            raise DataError(f"text {place} is a pair, and {self.bundle.path} reads single texts; pass each by itself")
        for text in given if isinstance(given, tuple) else (given,):
            _require_text(text, place)
        return self._runtime.encode(given)

    def _pair(self, given: object, place: int) -> tuple[str, str]:
        if isinstance(given, tuple | list) and len(given) == 2:
            one, two = given
            return one, two
        what = "a single text" if isinstance(given, str) else "no pair"
        raise DataError(
            f"text {place} is {what}, and {self.bundle.path} reads pairs of texts; pass a list of (text, text_pair)"
        )

    def _batches(self, windows: Sequence[Encoded]) -> Iterator[list[int]]:
        """Places of windows of similar length; one by one where an answer would depend on its neighbours."""
        batch: list[int] = []
        # The longest of a batch comes first, so that it alone says how much padding the others get.
        for index in sorted(range(len(windows)), key=lambda index: -len(windows[index])):
            full = batch and len(windows[batch[0]]) * (len(batch) + 1) > self._batch_tokens
            if full or (batch and not self.bundle.manifest.runtime.batch_exact):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _answers(
        self, logits: Logits, encoded: Sequence[Encoded], top_k: int | None, temperature: float
    ) -> list[Classification]:
        scores, given = self._task.scores(logits, temperature), self._task.decide(logits)
        # A stable sort: of equal ones the first label wins, as in the service.
        orders = np.argsort(-scores, axis=1, kind="stable")
        return [
            Classification(
                label=self.labels[order[0]],
                score=float(row[order[0]]),
                labels=tuple(self.labels[index] for index in order if gets[index]),
                scores={self.labels[index]: float(row[index]) for index in order[:top_k]},
                truncated=one.truncated,
                abstained=abstained,
            )
            for row, order, gets, one, abstained in zip(
                scores, orders, given, encoded, self.bundle.abstains(logits), strict=True
            )
        ]


def _require_text(text: str, place: int) -> None:
    if not isinstance(text, str):
        raise DataError(f"text {place} is no text but {type(text).__name__}")
    if not text.strip():
        raise DataError(f"text {place} is empty; leave it out")
    try:
        text.encode()  # also what is behind the window
    except UnicodeEncodeError:
        raise DataError(f"text {place} is not valid Unicode; repair it or leave it out") from None


def load(path: str | Path, threads: int = 1, batch_tokens: int = 2048) -> TextClassifier:
    """Opens and verifies a bundle, ready to answer; see `TextClassifier`.

    Raises:
        BundleError: no bundle, or one that is damaged.
        MissingExtra: there is no ONNX Runtime; `pip install 'lathe[serve]'` brings it.
    """
    return TextClassifier(open_bundle(path), threads, batch_tokens)
