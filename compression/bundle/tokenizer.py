"""A bundle's tokenizer: reads no more of a text than can fill the model's window, and leaves the interpreter to others.

A text of a million characters would cost seconds, and of what came out all but the window would be thrown away:

    text ──its beginning──▶ words ──but the last few, which the cut may have changed──▶ do the others fill the window?
      ▲                                                                                  │ no: four times as much
      └──────────────────────────────────────────────────────────────────────────────────┘

The ids are those of the whole text. Words are what the pre-tokenizer makes, and each becomes tokens by itself; so the
first words of a text need only be the same with and without what follows. They are where every part in front of the
model looks a few characters ahead at most, which is known of those named below. A tokenizer with any other part reads
the whole text, and so does one that keeps the end of a text.
"""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer

from compression.errors import BundleError

_NORMALIZERS = frozenset(
    ("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
     "Strip", "StripAccents")
)  # fmt: skip
_PRE_TOKENIZERS = frozenset(
    ("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "UnicodeScripts",
     "Whitespace", "WhitespaceSplit")
)  # fmt: skip
# Runs of characters of one kind, and one character ahead at most.
_PATTERNS = frozenset(
    (
        r" {2,}",
        r"\s+",
        # Qwen 2 and 3, and Llama 3, which takes up to three digits together
        *(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
            rf"{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            for digits in (r"\p{N}", r"\p{N}{1,3}")
        ),
    )
)
_TOKEN_CHARACTERS = 6  # of the first beginning, for each token of the window: prose has fewer
_GROWTH = 4  # so that a text which never fills the window costs a third more than if it had been read at once
_WORDS_LEFT = 4  # words and characters before the cut that do not count, since the cut may have changed them
_CHARACTERS_LEFT = 64


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenised text, at most `max_length` tokens; `truncated` when it had more."""

    ids: list[int]
    type_ids: list[int]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class WindowTokenizer:
    """Tokenises texts, special tokens included, cut to the window. May be used by several threads at once.

    Args:
        content: of a tokenizer.json; where its truncation has the direction `Left`, a text keeps its end.
        max_length: the window in tokens, special tokens included.

    Raises:
        BundleError: it is no tokenizer.
    """

    def __init__(self, content: bytes, max_length: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # tokenizers raises a bare Exception
            raise BundleError(f"the tokenizer cannot be loaded: {error}") from error
        direction = str((self._tokenizer.truncation or {}).get("direction", "right")).lower()
        self._tokenizer.no_padding()  # a saved tokenizer.json may pad by itself
        self._tokenizer.enable_truncation(max_length, direction=direction)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._added = tuple(token.content for token in added)
        self._left = _CHARACTERS_LEFT + 2 * max(map(len, self._added), default=0)
        self._first = _TOKEN_CHARACTERS * max_length + self._left
        # A token that takes the spaces before it, and is found after normalization, may take any number of words away.
        reaches_back = any(token.lstrip and token.normalized for token in added)
        self._by_beginning = direction == "right" and not reaches_back and _looks_ahead_little(self._tokenizer)

    def knows(self, token: int) -> bool:
        """Whether a token has this id."""
        return token >= 0 and self._tokenizer.id_to_token(token) is not None

    def encode(self, text: str) -> Encoded:
        """Tokenises one text. Releases the GIL while it does.

        Raises:
            TypeError: the text holds half of a surrogate pair.
        """
        for beginning in self._beginnings(text):
            (encoding,) = self._tokenizer.encode_batch([beginning])  # `encode` would hold the GIL
            if len(beginning) == len(text) or self._fills(encoding, len(beginning)):
                break
        return Encoded(encoding.ids, encoding.type_ids, bool(encoding.overflowing))

    def _beginnings(self, text: str) -> Iterator[str]:
        """Longer and longer ones; the last is the text."""
        length = self._first
        while self._by_beginning and length < len(text):
            # A cut within white space would make words of it that an added token might have taken.
            beginning = text[:length].rstrip()
            if not self._splits(text, len(beginning)):
                yield beginning
            length *= _GROWTH
        yield text

    def _splits(self, text: str, cut: int) -> bool:
        """Whether a cut there is within an added token, or before a mark that can change the characters before it."""
        return unicodedata.combining(text[cut]) > 0 or any(
            content in text[max(0, cut - len(content) + 1) : cut + len(content) - 1] for content in self._added
        )

    def _fills(self, encoding: Encoding, length: int) -> bool:
        """Whether the window holds words alone that are the same in a longer text, of which this is the beginning.

        Args:
            length: of the beginning, in characters.
        """
        words = [word for word in encoding.word_ids if word is not None]
        if not words:
            return False
        last, starts = words[-1], []  # of the words after the window's last one
        for part in encoding.overflowing:
            for word, (start, _) in zip(part.word_ids, part.offsets, strict=True):
                if word is not None and word != last:
                    last = word
                    starts.append(start)
            if len(starts) >= _WORDS_LEFT:
                return bool(starts[0] <= length - self._left)
        return False


def _looks_ahead_little(tokenizer: Tokenizer) -> bool:
    """Whether what stands in front of the model is made of parts of which that is known."""
    return all(
        part["type"] in known or (part["type"] in ("Replace", "Split") and _is_known(part["pattern"]))
        for component, known in ((tokenizer.normalizer, _NORMALIZERS), (tokenizer.pre_tokenizer, _PRE_TOKENIZERS))
        if component is not None
        for part in _parts(json.loads(component.__getstate__()))
    )


def _parts(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A component, or those of a sequence."""
    members = state.get("normalizers") or state.get("pretokenizers")
    if state["type"] != "Sequence" or not members:
        yield state
        return
    for member in members:
        yield from _parts(member)


def _is_known(pattern: dict[str, str]) -> bool:
    return "String" in pattern or pattern.get("Regex") in _PATTERNS
