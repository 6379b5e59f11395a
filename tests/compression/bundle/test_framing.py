"""Pairs of texts have the very ids and token types that the library gives, which transformers asks; of long ones, only
as much is read as decides that.
"""

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from compression.bundle.framing import PairFrame, shares
from compression.bundle.tokenizer import WindowTokenizer
from compression.errors import BundleError
from tests.compression.bundle.test_tokenizer import MAKERS, PIECES, word_piece

FRAMES: dict[str, Callable[[], Any]] = {
    "bert": lambda: processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "roberta": lambda: processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "template": lambda: processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing(
                single="[CLS] $A", pair="[CLS]:2 $B:0 [SEP]:1 $A:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
            ),
        ]
    ),
    "single": lambda: processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)]),
    "none": lambda: None,
}


@cache
def framed(make: Callable[[], Tokenizer], frame: str, window: int) -> tuple[WindowTokenizer, Tokenizer]:
    """Ours, and the library's, which reads both texts whole."""
    whole = make()
    direction = (whole.truncation or {}).get("direction", "right")
    if frame != "none":
        whole.post_processor = FRAMES[frame]()
    ours = WindowTokenizer(whole.to_str().encode(), window)
    whole.enable_truncation(window, direction=direction)
    return ours, whole


TEXTS = st.lists(
    st.tuples(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), st.sampled_from((1, 1, 1, 2, 3, 12))),
    max_size=8,
).map(lambda runs: "".join(piece * count for piece, count in runs))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("window", [8, 9])
@given(text=TEXTS, text_pair=TEXTS)
@example(text="the cat " * 60, text_pair="the cat " * 61)
@example(text="the cat " * 61, text_pair="the cat " * 60)
@example(text="the " * 100, text_pair="a cat")
@example(text="a", text_pair="the " * 100)
@example(text="the cat " * 30, text_pair="")
@example(text="the cat isn't", text_pair="aaaa " * 90)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_a_pair_is_framed_and_cut_as_the_library_does(
    make: Callable[[], Tokenizer], frame: str, window: int, text: str, text_pair: str
) -> None:
    ours, whole = framed(make, frame, window)
    encoded, expected = ours.encode((text, text_pair)), whole.encode(text, text_pair)
    assert encoded.ids == expected.ids
    assert encoded.type_ids == expected.type_ids
    assert encoded.truncated == bool(expected.overflowing)


def test_the_longer_text_is_cut_first() -> None:
    assert shares(3, 4, 7) == (3, 4)
    assert shares(2, 90, 7) == (2, 5)
    assert shares(90, 2, 7) == (5, 2)
    assert shares(90, 80, 7) == (4, 3)
    assert shares(80, 90, 7) == (3, 4)
    assert shares(80, 80, 7) == (3, 4)


def save(folder: Path, kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a few words as transformers saves it."""
    words = ["the", "a", "cat", "is", "not", "here"]
    if kind == "bert":
        vocabulary = {
            piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
        }
        tokenizer = BertTokenizer(vocab=vocabulary)
    elif kind == "roberta":
        letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = RobertaTokenizer(vocab={piece: number for number, piece in enumerate(letters)}, merges=[])
    else:
        backend = Tokenizer(
            models.WordLevel(
                {"[PAD]": 0, "[UNK]": 1, **{word: number for number, word in enumerate(words, 2)}}, "[UNK]"
            )
        )
        backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["bert", "roberta", "generic"])
def test_a_pair_has_the_ids_and_types_that_transformers_gives(tmp_path: Path, kind: str) -> None:
    theirs = save(tmp_path, kind)
    choose = random.Random(0)
    for window in (11, 12):
        ours = WindowTokenizer((tmp_path / "tokenizer.json").read_bytes(), window)
        for _ in range(200):
            text, text_pair = (
                " ".join(choose.choices(["the", "cat", "sleep", "xyz"], k=choose.choice((1, 2, 3, 4, 5, 9, 90))))
                for _ in range(2)
            )
            expected = theirs(text, text_pair, truncation=True, max_length=window)
            encoded = ours.encode((text, text_pair))
            assert encoded.ids == expected["input_ids"]
            assert ("token_type_ids" in expected) == (kind == "bert")  # whose model alone is asked for them
            assert encoded.type_ids == expected.get("token_type_ids", encoded.type_ids)


@pytest.mark.parametrize("window", [8, 9])
@pytest.mark.parametrize("other", ["a cat", "the cat isn't here " * 5])
def test_of_a_long_text_beside_a_shorter_one_only_the_beginning_is_read(
    window: int, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, whole = framed(word_piece, "bert", window)
    read: list[int] = []

    class Counting:
        def encode_batch(self, texts: list[str], add_special_tokens: bool) -> object:
            read.extend(map(len, texts))
            return whole.encode_batch(texts, add_special_tokens=add_special_tokens)

    assert ours.encode(("a", "b"))  # the frame is known from here on
    monkeypatch.setattr(ours, "_tokenizer", Counting())
    for pair in (("a good day, " * 5000, other), (other, "a good day, " * 5000)):
        assert ours.encode(pair).truncated
    assert sum(read) < 5000


def test_two_long_texts_take_no_more_memory_than_each_by_itself() -> None:
    """The library would frame each of some 4,000 parts of one with each of the other."""
    ours, _ = framed(word_piece, "bert", 9)
    assert len(ours.encode(("the cat " * 10_000, "a cat " * 10_000))) == 9
    ours, _ = framed(word_piece, "bert", 8)  # of five tokens besides the special ones, the longer text keeps three
    assert ours.encode(("the cat " * 10_000, "the cat " * 9_999)).type_ids == [0] * 5 + [1] * 3
    assert ours.encode(("the cat " * 9_999, "the cat " * 10_000)).type_ids == [0] * 4 + [1] * 4


def test_a_frame_that_is_not_known_is_refused() -> None:
    with pytest.raises(BundleError, match="frames pairs of texts by Strange"):
        PairFrame.of({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "Strange"}]})


def test_a_window_without_room_for_a_pair_is_refused() -> None:
    ours, _ = framed(word_piece, "bert", 3)
    assert len(ours.encode("the cat")) == 3
    with pytest.raises(BundleError, match="3 special ones around a pair"):
        ours.encode(("the", "cat"))
