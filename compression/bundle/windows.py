"""A tokenised text as the windows that a model reads, and the one answer that is made of theirs.

    text ── no longer than the window ─────▶ one row, whatever the setting
      └──── longer ──┬─ no setting: cut ───▶ one row, its beginning (or end: what the tokenizer keeps)
                     ├─ HeadTail ──────────▶ one row, beginning and end
                     └─ Windows ───────────▶ row after row; each is computed by itself, and their logits are joined

Whatever computes rows need not know that some are of one text: `windows_of` takes texts apart, `joined` puts what came
of it together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from compression.bundle.figures import Record
from compression.bundle.task import Logits

Join: TypeAlias = Literal["mean", "max"]


class HeadTail(Record):
    """A text that is longer than the window keeps both ends: one quarter of the window from its beginning, and three
    from its end (Sun et al. 2019)."""

    read: Literal["head-tail"] = "head-tail"


class Windows(Record):
    """A text that is longer than the window is read window by window, the last one ending where the text does.

    Attributes:
        stride: tokens from the start of a window to that of the next; None: as many as a window has room for, so that
            only the last one shares any.
        join: of the windows' logits, label by label.
        max_windows: of a text; what is behind them is cut.
    """

    read: Literal["windows"] = "windows"
    stride: int | None = Field(default=None, ge=1)
    join: Join = "mean"
    max_windows: int = Field(default=16, ge=2, le=256)


LongTexts: TypeAlias = Annotated[HeadTail | Windows, Field(discriminator="read")]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenised text or pair: the tokens of all its windows, one after another.

    Attributes:
        truncated: whether it has tokens that are in no window.
        ends: where its windows end, if it has several.
    """

    ids: list[int]
    type_ids: list[int]
    truncated: bool
    ends: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def windows(self) -> "list[Encoded]":
        """What the model computes, each by itself; most texts are their only window."""
        if not self.ends:
            return [self]
        return [
            Encoded(self.ids[start:end], self.type_ids[start:end], truncated=False)
            for start, end in pairwise((0, *self.ends))
        ]


def windows_of(encoded: Iterable[Encoded]) -> list[Encoded]:
    """Those of all texts, in their order."""
    return list(chain.from_iterable(one.windows for one in encoded))


def joined(logits: Logits, encoded: Sequence[Encoded], long_texts: LongTexts | None) -> Logits:
    """One answer for each text, (texts, labels), which depends on nothing but the text's own windows.

    Args:
        logits: (windows, labels), of `windows_of` these texts.
    """
    if not isinstance(long_texts, Windows) or len(logits) == len(encoded):
        return logits
    firsts = np.cumsum([len(one.ends) or 1 for one in encoded])[:-1]
    parts = np.split(logits, firsts)  # of each text, (windows, labels)
    if long_texts.join == "max":
        return np.stack([part.max(axis=0) for part in parts])
    return np.stack([part.mean(axis=0, dtype=np.float64) for part in parts]).astype(logits.dtype)
