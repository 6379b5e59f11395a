"""How a tokenizer frames a pair of texts: the special tokens around and between them, the type of each token, and how
many tokens each text may keep.

The frame stands in the post-processor of a tokenizer.json. The library applies it too, but to the parts of both texts
that do not fit the window as well, each with each: of two long texts that would take all memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Self

from compression.errors import BundleError

_FRAMES = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")
_LEAVES_IDS = ("ByteLevel",)


class _Piece(NamedTuple):
    """Special tokens, or a place for one of the texts."""

    ids: tuple[int, ...]
    text: int | None  # 0 or 1
    type_id: int


@dataclass(frozen=True)
class PairFrame:
    """The pieces of a framed pair, in their order."""

    pieces: tuple[_Piece, ...]

    @classmethod
    def of(cls, processor: Mapping[str, Any] | None) -> Self:
        """The frame that a post-processor, as tokenizer.json has it, puts around pairs.

        Raises:
            BundleError: it is of a kind that is not known.
        """
        parts = [] if processor is None else processor.get("processors", [processor])
        framing = [part for part in parts if part["type"] in _FRAMES]
        unknown = [part["type"] for part in parts if part["type"] not in (*_FRAMES, *_LEAVES_IDS)]
        if unknown or len(framing) > 1:
            names = ", ".join(unknown or [part["type"] for part in framing])
            raise BundleError(
                f"the tokenizer frames pairs of texts by {names}, which Lathe does not know; save it with a "
                "post-processor TemplateProcessing"
            )
        return cls(_pieces(framing[0]) if framing else (_text(0, 0), _text(1, 1)))

    @property
    def special(self) -> int:
        """How many special tokens there are."""
        return sum(len(piece.ids) for piece in self.pieces)

    def around(self, one: list[int], two: list[int]) -> tuple[list[int], list[int]]:
        """Ids and type ids of two texts in their frame."""
        placed = [(piece.ids if piece.text is None else (one, two)[piece.text], piece.type_id) for piece in self.pieces]
        ids = list(chain.from_iterable(tokens for tokens, _ in placed))
        return ids, list(chain.from_iterable([type_id] * len(tokens) for tokens, type_id in placed))


def shares(one: int, two: int, room: int) -> tuple[int, int]:
    """How many of its tokens each text keeps, of `room` for both: the longer one is cut first (`longest_first`).

    Args:
        one: tokens that the first text has; `two`: those of the second.
    """
    if one + two <= room:
        return one, two
    least = min(one, two, room // 2)
    return (least, room - least) if one <= two else (room - least, least)


def _pieces(processor: Mapping[str, Any]) -> tuple[_Piece, ...]:
    if processor["type"] == "TemplateProcessing":
        special = processor["special_tokens"]
        return tuple(
            _text("AB".index(part["Sequence"]["id"]), part["Sequence"]["type_id"])
            if "Sequence" in part
            else _special(special[part["SpecialToken"]["id"]]["ids"], part["SpecialToken"]["type_id"])
            for part in processor["pair"]
        )
    (_, begins), (_, ends) = processor["cls"], processor["sep"]
    if processor["type"] == "BertProcessing":
        return (_special([begins], 0), _text(0, 0), _special([ends], 0), _text(1, 1), _special([ends], 1))
    return (_special([begins], 0), _text(0, 0), _special([ends, ends], 0), _text(1, 0), _special([ends], 0))


def _special(ids: list[int], type_id: int) -> _Piece:
    return _Piece(tuple(ids), None, type_id)


def _text(number: int, type_id: int) -> _Piece:
    return _Piece((), number, type_id)
