"""The model that LitServe and BentoML's batching serve: a bundle's own file and tokenizer, on one thread.

The environment variable BUNDLE is its directory.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compression.bundle import Runtime, open_bundle, softmax


class Model:
    """Texts to answers; sorts nothing and bounds nothing, because that is what a batcher is for."""

    def __init__(self) -> None:
        bundle = open_bundle(Path(os.environ["BUNDLE"]))
        self._labels = bundle.manifest.labels
        self._runtime = Runtime.of(bundle)

    def classify(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Label and score of each text; one forward pass."""
        logits = self._runtime.logits([self._runtime.encode(text) for text in texts])
        rows = softmax(logits)
        return [{"label": self._labels[int(row.argmax())], "score": float(row.max())} for row in rows]
