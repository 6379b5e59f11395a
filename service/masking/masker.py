"""Finds in a text what is not to be shown, and takes its place.

text ──full width to ASCII──▶ every recogniser ──▶ the surest of what overlaps ──▶ each entity replaced
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compression.bundle import Input, texts_of
from service.errors import PayloadTooLarge
from service.masking import china, contact, credentials, numbers
from service.masking.recogniser import Entity, Recogniser, compact

RECOGNISERS: Sequence[Recogniser] = (
    *credentials.RECOGNISERS, *numbers.RECOGNISERS, *china.RECOGNISERS, *contact.RECOGNISERS,
)  # fmt: skip
TYPES = tuple(dict.fromkeys(recogniser.type for recogniser in RECOGNISERS))

# Character by character, so that offsets stay: full-width letters, digits and what stands between them, but no commas,
# which end what they follow.
_PLAIN = {full: full - 0xFEE0 for full in range(0xFF01, 0xFF5F) if chr(full - 0xFEE0) not in "!,;?"}
_PLAIN |= {ord(dash): ord("-") for dash in "‐‑‒–—―−"} | {
    ord(space): ord(" ") for space in "\u3000\u00a0\u2002\u2003\u2009\u202f"
}
_MAYBE = re.compile(r"[0-9@:=]|-----|eyJ|_|密码|口令|Bearer")  # without any of these there is no entity
_DIGIT = re.compile("[0-9]")
_MOST_CHARACTERS = 100_000  # of one request: the slowest text, digits in groups as of cards, takes 90 us for each
_KEPT = 4  # characters of `last_four`
_PSEUDONYM = 12  # of 64 hexadecimal digits


class Mode(StrEnum):
    """What takes an entity's place."""

    REPLACE = "replace"  # its type: <EMAIL_ADDRESS>
    LAST_FOUR = "last_four"  # asterisks, but for its last four letters and digits, and what stands between
    PSEUDONYM = "pseudonym"  # its type and a keyed hash: the same value gets the same one, <EMAIL_ADDRESS:0f3a...>
    DROP = "drop"  # nothing


@dataclass(frozen=True)
class Masked:
    """A text without them, and what stood where in the original."""

    text: str
    entities: tuple[Entity, ...]


class Masker:
    """Masks texts.

    Args:
        types: of TYPES; what is of another stays.
        key: of pseudonyms, which nobody can make, or try out, without it.
    """

    def __init__(self, mode: Mode = Mode.REPLACE, types: Collection[str] = TYPES, key: bytes = b"") -> None:
        if mode is Mode.PSEUDONYM and not key:
            raise ValueError("pseudonyms need a key")
        self._recognisers = [recogniser for recogniser in RECOGNISERS if recogniser.type in types]
        self._key = key
        self._replace: Callable[[str, str], str] = {
            Mode.REPLACE: lambda kind, _: f"<{kind}>",
            Mode.LAST_FOUR: lambda _, value: _last_four(value),
            Mode.PSEUDONYM: self._pseudonym,
            Mode.DROP: lambda *_: "",
        }[mode]

    def mask(self, text: str) -> Masked:
        """Masks one text."""
        entities = self.find(text)
        parts, at = [], 0
        for entity in entities:
            parts += [text[at : entity.start], self._replace(entity.type, text[entity.start : entity.end])]
            at = entity.end
        return Masked("".join([*parts, text[at:]]), tuple(entities))

    def find(self, text: str) -> list[Entity]:
        """The entities of a text, from left to right; none overlaps another."""
        plain = text.translate(_PLAIN)
        if _MAYBE.search(plain) is None:
            return []
        digits = len(_DIGIT.findall(plain))
        found = [
            entity
            for recogniser in self._recognisers
            if digits >= recogniser.digits and recogniser.needs in plain
            for entity in recogniser.find(plain)
        ]
        found.sort(key=lambda entity: (-entity.score, entity.start - entity.end))
        kept: list[Entity] = []
        taken = bytearray(len(text))
        for entity in found:
            if not any(taken[entity.start : entity.end]):
                taken[entity.start : entity.end] = b"\1" * (entity.end - entity.start)
                kept.append(entity)
        return sorted(kept, key=lambda entity: entity.start)

    def _pseudonym(self, kind: str, value: str) -> str:
        """A value has one however it is written: `138 0013 8000` and `13800138000` are the same number."""
        plain = value.translate(_PLAIN)
        same = compact(plain) if "@" not in plain else plain.lower()
        return f"<{kind}:{hmac.new(self._key, f'{kind}:{same}'.encode(), hashlib.sha256).hexdigest()[:_PSEUDONYM]}>"


def require_maskable(texts: Sequence[Input]) -> int:
    """The characters of texts, or pairs, that are to be masked.

    Raises:
        PayloadTooLarge: they have more than are masked at a time.
    """
    size = sum(len(text) for given in texts for text in texts_of(given))
    if size > _MOST_CHARACTERS:
        raise PayloadTooLarge(f"the texts have {size} characters; send at most {_MOST_CHARACTERS} at a time")
    return size


def _last_four(value: str) -> str:
    letters = [index for index, character in enumerate(value) if character.isalnum()]
    hidden = set(letters[:-_KEPT] if len(letters) > 2 * _KEPT else letters)  # of a short one, four would be half
    return "".join("*" if index in hidden else character for index, character in enumerate(value))
