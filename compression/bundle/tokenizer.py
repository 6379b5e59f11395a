"""A bundle's tokenizer: reads no more of a text than can fill the model's window, and leaves the interpreter to others.

A text of a million characters would cost seconds, and of what came out all but the window would be thrown away:

    text ──its beginning──▶ words ──but the last few, which the cut may have changed──▶ do the others fill the window?
      ▲                                                                                  │ no: four times as much
      └──────────────────────────────────────────────────────────────────────────────────┘

The ids are those of the whole text. Words are what the pre-tokenizer makes, and each becomes tokens by itself; so the
first words of a text need only be the same with and without what follows. They are where every part in front of the
model looks a few characters ahead at most, which is known of those named below. A tokenizer with any other part reads
the whole text, and so does one that keeps the end of a text.

What windows a text has says `compression.bundle.windows`. Where they are several, the beginning must fill all of them.
The end of a text, where that is wanted too, is read in the same way from behind, from a space on if there is one near:
no word of these tokenizers begins before a space and ends behind it. Without one, digits that are grouped by threes
from the start of their run may be grouped from the cut.

Of a pair, each text is read so; `compression.bundle.framing` puts together what is kept of both.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer

from compression.bundle.framing import PairFrame, shares
from compression.bundle.inputs import Input, texts_of
from compression.bundle.windows import Encoded, HeadTail, LongTexts, Windows
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
_BEFORE_A_WORD = re.compile(r"(?<=\S) ")
_HEAD = 4  # this part of the window keeps the beginning of a text that keeps both ends


class _Read(NamedTuple):
    """What was read of a text of a pair.

    Attributes:
        ids: those that the window may hold, without special tokens.
        tokens: how many the text has; where it was not read whole, how many of what was read are sure to be its own.
    """

    ids: list[int]
    tokens: int
    whole: bool


class WindowTokenizer:
    """Tokenises texts and pairs, special tokens included, for the window. May be used by several threads at once.

    Args:
        content: of a tokenizer.json; where its truncation has the direction `Left`, a text keeps its end.
        max_length: the window in tokens, special tokens included.
        long_texts: what is read of a text that is longer; None: it is cut. Pairs are.

    Attributes:
        most_tokens: that a text may have, special tokens included, and not be cut.

    Raises:
        BundleError: it is no tokenizer, or windows of this stride would leave out words.
    """

    def __init__(self, content: bytes, max_length: int, long_texts: LongTexts | None = None) -> None:
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # tokenizers raises a bare Exception
            raise BundleError(f"the tokenizer cannot be loaded: {error}") from error
        direction = str((self._tokenizer.truncation or {}).get("direction", "right")).lower()
        if long_texts is not None:
            direction = "right"
        self._max_length = self.most_tokens = max_length
        self._room = max_length - self._tokenizer.num_special_tokens_to_add(False)
        self._long_texts = long_texts
        if isinstance(long_texts, Windows):
            self._stride = long_texts.stride or self._room
            if not 1 <= self._stride <= self._room:
                raise BundleError(
                    f"a stride of {self._stride} tokens leaves out words: a window has room for {self._room} "
                    f"besides special ones; pass 1 to {self._room}"
                )
            self.most_tokens += (long_texts.max_windows - 1) * self._stride
        self._keeps_end = direction == "left"
        self._tokenizer.no_padding()  # a saved tokenizer.json may pad by itself
        self._tokenizer.enable_truncation(self.most_tokens, direction=direction)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._added = tuple(token.content for token in added)
        self._left = _CHARACTERS_LEFT + 2 * max(map(len, self._added), default=0)
        self._first = _TOKEN_CHARACTERS * self.most_tokens + self._left
        # A token that takes the spaces before it, and is found after normalization, may take any number of words away.
        reaches_back = any(token.lstrip and token.normalized for token in added)
        self._by_beginning = direction == "right" and not reaches_back and _looks_ahead_little(self._tokenizer)

    def knows(self, token: int) -> bool:
        """Whether a token has this id."""
        return token >= 0 and self._tokenizer.id_to_token(token) is not None

    def encode(self, given: Input) -> Encoded:
        """Tokenises one text, or a pair. Releases the GIL while it does.

        Raises:
            TypeError: a text holds half of a surrogate pair.
            BundleError: a pair that the tokenizer has no frame for, or whose frame fills the window.
        """
        if not isinstance(given, str):
            return self._encode_pair(*given)
        for beginning in self._beginnings(given):
            (encoding,) = self._tokenizer.encode_batch([beginning])  # `encode` would hold the GIL
            if len(beginning) == len(given) or self._fills(encoding, len(beginning)):
                break
        if len(encoding) > self._max_length:
            return self._in_windows(encoding)
        ids, truncated = encoding.ids, bool(encoding.overflowing)
        if truncated and isinstance(self._long_texts, HeadTail):
            own = _own(encoding)
            head = self._room // _HEAD
            ids[own.start + head : own.stop] = self._end(given, self._room - head)
        return Encoded(ids, encoding.type_ids, truncated)

    def length(self, given: Input) -> int:
        """How many tokens a text or pair has as a whole, special tokens included."""
        special = self._tokenizer.num_special_tokens_to_add(not isinstance(given, str))
        read = self._tokenizer.encode_batch(list(texts_of(given)), add_special_tokens=False)
        return special + sum(len(part) for encoding in read for part in _parts_of(encoding))

    def _in_windows(self, encoding: Encoding) -> Encoded:
        own = _own(encoding)
        last = own.stop - self._room
        starts = [*range(own.start, last, self._stride), last]
        ids, type_ids = (
            [values[: own.start] + values[start : start + self._room] + values[own.stop :] for start in starts]
            for values in (encoding.ids, encoding.type_ids)
        )
        return Encoded(
            list(chain.from_iterable(ids)),
            list(chain.from_iterable(type_ids)),
            truncated=bool(encoding.overflowing),
            ends=tuple(accumulate(map(len, ids))),
        )

    def _end(self, text: str, tokens: int) -> list[int]:
        """Ids of the last so many tokens of a text that has more."""
        for ending in self._endings(text, tokens):
            (encoding,) = self._tokenizer.encode_batch([ending], add_special_tokens=False)
            ids = list(chain.from_iterable(part.ids for part in _parts_of(encoding)))
            words = _words(encoding)[_WORDS_LEFT:]
            settled = (len(ids) - before for before, start in words if start >= self._left)
            if len(ending) == len(text) or next(settled, 0) >= tokens:
                break
        return ids[-tokens:]

    @cached_property
    def _frame(self) -> PairFrame:
        processor = self._tokenizer.post_processor
        frame = PairFrame.of(None if processor is None else json.loads(processor.__getstate__()))
        if frame.special >= self._max_length:
            raise BundleError(
                f"the window has {self._max_length} tokens, which the {frame.special} special ones around a pair of "
                "texts fill; models of pairs need a longer one"
            )
        return frame

    def _encode_pair(self, text: str, text_pair: str) -> Encoded:
        room = self._max_length - self._frame.special
        readings = self._readings(text), self._readings(text_pair)
        one, two = next(readings[0]), next(readings[1])
        while not _decides(one, two, room):
            if two.whole or (not one.whole and one.tokens <= two.tokens):
                one = next(readings[0])
            else:
                two = next(readings[1])
        kept = [
            read.ids[max(0, len(read.ids) - count) :] if self._keeps_end else read.ids[:count]
            for read, count in zip((one, two), shares(one.tokens, two.tokens, room), strict=True)
        ]
        whole = one.whole and two.whole and one.tokens + two.tokens <= room
        return Encoded(*self._frame.around(*kept), truncated=not whole)

    def _readings(self, text: str) -> Iterator[_Read]:
        """Of more and more of a text; the last one is of all of it."""
        for beginning in self._beginnings(text):
            (encoding,) = self._tokenizer.encode_batch([beginning], add_special_tokens=False)
            whole = len(beginning) == len(text)
            tokens = sum(map(len, _parts_of(encoding))) if whole else self._settled(encoding, len(beginning))
            yield _Read(encoding.ids, tokens, whole)

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

    def _endings(self, text: str, tokens: int) -> Iterator[str]:
        """Longer and longer ones; the last is the text."""
        length = _TOKEN_CHARACTERS * tokens + 2 * self._left
        while self._by_beginning and length < len(text):
            cut = len(text) - length
            space = _BEFORE_A_WORD.search(text, cut, cut + self._left)
            cut = cut if space is None else space.start()
            if not self._splits(text, cut):
                yield text[cut:]
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
        own = sum(word is not None for word in encoding.word_ids)  # tokens in the window that are not special
        return own > 0 and self._settled(encoding, length) >= own

    def _settled(self, encoding: Encoding, length: int) -> int:
        """How many of the first tokens, special ones left out, are the same in a longer text that begins so."""
        words = _words(encoding)
        followed = words[: max(0, len(words) - _WORDS_LEFT + 1)]  # by enough others, itself counted
        return max((before for before, start in followed if start <= length - self._left), default=0)


def _parts_of(encoding: Encoding) -> list[Encoding]:
    """What fits, and what does not, in order."""
    return [encoding, *encoding.overflowing]


def _own(encoding: Encoding) -> slice:
    """Where a text's own tokens are, between the special ones."""
    special = encoding.special_tokens_mask
    return slice(special.index(0), len(special) - special[::-1].index(0))


def _words(encoding: Encoding) -> list[tuple[int, int]]:
    """Of each word, the tokens before it (special ones left out), and where it starts, in characters."""
    words: list[tuple[int, int]] = []
    tokens, last = 0, None
    for part in _parts_of(encoding):
        for word, (start, _) in zip(part.word_ids, part.offsets, strict=True):
            if word is None:
                continue
            if word != last:
                last = word
                words.append((tokens, start))
            tokens += 1
    return words


def _decides(one: _Read, two: _Read, room: int) -> bool:
    """Whether what was read says what is kept of both texts, whatever else they hold.

    Each must be whole, or fill the room by itself. Where both have more than half of an odd room, the longer one keeps
    a token more, so it must be known which that is.
    """
    cut = [read for read in (one, two) if not read.whole]
    if any(read.tokens < room for read in cut):
        return False
    if not cut or room % 2 == 0:
        return True
    whole = [read.tokens for read in (one, two) if read.whole]
    return bool(whole) and (whole[0] <= room // 2 or cut[0].tokens > whole[0])


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
