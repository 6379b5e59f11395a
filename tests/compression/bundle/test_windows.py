"""Long texts: which tokens are read, for every kind of tokenizer; how much work that is; how answers are joined."""

import itertools
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from tokenizers import Tokenizer, processors

from compression.bundle import Encoded, HeadTail, Logits, LongTexts, Windows, joined, windows_of
from compression.bundle.tokenizer import WindowTokenizer
from compression.bundle.windows import Join
from compression.errors import BundleError
from tests.compression.bundle.test_tokenizer import MAKERS, TEXTS, WINDOW, byte_level, meta_space, split, word_piece

ROOM = WINDOW - 2  # for tokens that are not special
HEAD = ROOM // 4
READ: dict[str, LongTexts] = {
    "head-tail": HeadTail(), "windows": Windows(max_windows=5), "overlapping": Windows(stride=2, max_windows=8)
}  # fmt: skip
GROUPED = re.compile(r"\d{60}")  # without a space, digits that are grouped by threes may be grouped from elsewhere


@cache
def pair(make: Callable[[], Tokenizer], name: str) -> tuple[WindowTokenizer, Tokenizer]:
    """Ours, and the library's, which reads the whole text."""
    whole = make()
    whole.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    ours = WindowTokenizer(whole.to_str().encode(), WINDOW, READ[name])
    whole.no_truncation()
    return ours, whole


def expected(ids: list[int], long_texts: LongTexts) -> tuple[list[list[int]], bool]:
    """Rows of these tokens of a text that are more than the room of a window, and whether some are in none."""
    if isinstance(long_texts, HeadTail):
        return [ids[:HEAD] + ids[HEAD - ROOM :]], True
    stride = long_texts.stride or ROOM
    most = ROOM + (long_texts.max_windows - 1) * stride
    kept = ids[:most]
    starts = [*range(0, len(kept) - ROOM, stride), len(kept) - ROOM]
    return [kept[start : start + ROOM] for start in starts], len(ids) > most


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("make", MAKERS)
@given(text=TEXTS)
@example(text="a " * 400)
@example(text="a" * 1000 + "Z")
@example(text="the " * 20 + " " * 600 + "[MASK]")
@example(text="[MASK]" + " " * 600 + "the cat " * 40)
@example(text="isn't " * 100 + "don't")
@example(text="the" + " " * 605 + "cat")
@example(text="the cat" + "e\u0301" * 300 + "\u0323")
@example(text="你好。" * 200)
@example(text="x 1" + "2345" * 60 + " the" * 30)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_what_is_read_are_tokens_of_the_whole_text(make: Callable[[], Tokenizer], name: str, text: str) -> None:
    assume(make is not split or name != "head-tail" or not GROUPED.search(text))
    ours, whole = pair(make, name)
    encoded, ids = ours.encode(text), whole.encode(text, add_special_tokens=False).ids
    assert ours.length(text) == len(ids) + 2
    rows, truncated = ([ids], False) if len(ids) <= ROOM else expected(ids, READ[name])
    assert [window.ids for window in encoded.windows] == [[1, *row, 2] for row in rows]
    assert encoded.truncated == truncated
    assert len(encoded) == sum(len(row) + 2 for row in rows)
    assert encoded.type_ids == [1] * len(encoded)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    ("make", "part"),
    [
        *itertools.product(
            (word_piece, byte_level, meta_space, split), ("a good day, ", "x" * 99 + " ", "天, ", "[ ", "1, 2 \n")
        ),
        (word_piece, "天气好"),  # to the others one word, which is read whole
    ],
)
def test_of_a_megabyte_little_is_read_and_few_tokens_are_computed(
    make: Callable[[], Tokenizer], name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair(make, name)
    library = ours._tokenizer
    text, read = part * (1_000_000 // len(part)), list[int]()

    class Counting:
        def encode_batch(self, texts: list[str], **options: Any) -> object:
            read.extend(map(len, texts))
            return library.encode_batch(texts, **options)

    monkeypatch.setattr(ours, "_tokenizer", Counting())
    encoded = ours.encode(text)
    assert encoded.truncated
    assert sum(read) < 20_000
    assert len(encoded.windows) == {"head-tail": 1, "windows": 5, "overlapping": 8}[name]
    assert len(encoded) <= WINDOW * len(encoded.windows)


@pytest.mark.parametrize("text", ["", "the", "the cat isn"])
def test_a_text_that_fits_is_the_same_in_all_settings(text: str) -> None:
    content = pair(word_piece, "windows")[1].to_str().encode()
    cut = WindowTokenizer(content, WINDOW).encode(text)
    assert not cut.truncated
    assert all(WindowTokenizer(content, WINDOW, read).encode(text) == cut for read in READ.values())


def test_a_text_of_one_token_more_has_two_windows() -> None:
    ours, whole = pair(word_piece, "windows")
    text = "the " * (ROOM + 1)
    assert len(whole.encode(text, add_special_tokens=False)) == ROOM + 1
    assert [len(window) for window in ours.encode(text).windows] == [WINDOW, WINDOW]  # no vote of a single token


@pytest.mark.parametrize("stride", [ROOM + 1, 1000])
def test_a_stride_that_would_leave_out_words_is_refused(stride: int) -> None:
    content = pair(word_piece, "windows")[1].to_str().encode()
    with pytest.raises(BundleError, match=f"a stride of {stride} .* room for {ROOM} .* pass 1 to {ROOM}"):
        WindowTokenizer(content, WINDOW, Windows(stride=stride))


def test_answers_of_windows_are_joined_text_by_text_whatever_others_there_are() -> None:
    generator = np.random.default_rng(0)
    counts = [1, 3, 1, 16, 2]
    texts = [
        Encoded([7] * 4 * count, [0] * 4 * count, False, tuple(range(4, 4 * count + 1, 4)) if count > 1 else ())
        for count in counts
    ]
    assert [len(one.windows) for one in texts] == counts
    logits = generator.normal(size=(sum(counts), 3)).astype(np.float32) * 1e4
    ends = np.cumsum(counts)
    by_hand: dict[Join, Callable[..., Logits]] = {"mean": np.mean, "max": np.max}
    for join, expect in by_hand.items():
        together = joined(logits, texts, Windows(join=join))
        assert together.dtype == np.float32
        for place, (count, end) in enumerate(zip(counts, ends, strict=True)):
            own = logits[end - count : end]
            assert together[place] == pytest.approx(expect(own, axis=0), rel=1e-6)
            np.testing.assert_array_equal(joined(own, [texts[place]], Windows(join=join))[0], together[place])
    assert len(windows_of(texts)) == sum(counts)
