"""How one type of entity is found: by its form, by its checksum where it has one, else by words before it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_CONTEXT = 40  # characters before an entity in which a word may say what it is
_BETWEEN = dict.fromkeys(map(ord, " -./()+·•"))
_SEPARATOR = re.compile(r"[ -]")


@dataclass(frozen=True, slots=True)
class Entity:
    """Where something stands that is not to be shown.

    Attributes:
        type: as Microsoft Presidio names it; of what that lacks, in the same manner.
        start, end: in characters of the text.
        score: near 1 where a checksum holds, less where the form alone says it.
    """

    type: str
    start: int
    end: int
    score: float


def _always(value: str) -> bool:
    return True


@dataclass(frozen=True)
class Recogniser:
    """Finds entities of one type.

    Attributes:
        pattern: its form; with a group `value`, that part of it is the entity.
        check: whether what has the form is one.
        trims: whether the entity may end at a space or dash before the end of what has the form.
        before: what has to stand in the characters before it; None where the form suffices.
        digits: that it has at least; a text with fewer is not searched.
        needs: what it always has, too.
    """

    type: str
    pattern: re.Pattern[str]
    score: float = 0.85
    check: Callable[[str], bool] = _always
    trims: bool = False
    before: re.Pattern[str] | None = None
    digits: int = 0
    needs: str = ""

    def find(self, text: str) -> Iterator[Entity]:
        """The entities in a text, from left to right."""
        group = "value" if "value" in self.pattern.groupindex else 0
        at = 0
        while (match := self.pattern.search(text, at)) is not None:
            start, end = match.span(group)
            found = self._end(text, start, end)
            if found is None:
                at = match.start() + 1  # another may begin within
            else:
                yield Entity(self.type, start, found, self.score)
                at = max(found, match.start() + 1)

    def _end(self, text: str, start: int, end: int) -> int | None:
        if self.before is not None and self.before.search(text, max(0, start - _CONTEXT), start) is None:
            return None
        value = text[start:end]
        if self.check(value):
            return end
        if self.trims:
            for separator in reversed(list(_SEPARATOR.finditer(value))):
                if self.check(value[: separator.start()]):
                    return start + separator.start()
        return None


def compact(value: str) -> str:
    """A number without what stands between its digits."""
    return value.translate(_BETWEEN).upper()
