"""What is read of a long text gives the very ids of the whole, for every kind of tokenizer; and others can work."""

import threading
import time
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from compression.bundle.tokenizer import WindowTokenizer

WINDOW = 8
CORPUS = [
    "the cat isn't here, they're gone; we'll see 1234 of them.", "ﬁne Ångström café привет 你好 世界 한국 😀 ok",
    "hello    hello   a\n\n b\t c  don't, aaaa aaaaaaaa bbbb ab ba the the them then",
]  # fmt: skip
LONG_NUMBERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FAR_SIGHTED = r"a+(?=.*Z)|\S|\s+"  # how it splits depends on the end of the text


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return trained(tokenizer, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[CLS]", "[MASK]"]))


def cased_word_piece() -> Tokenizer:
    tokenizer = word_piece()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.BertNormalizer(strip_accents=False, lowercase=False), normalizers.NFC()]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer = trained(tokenizer, trainer)
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(2, 9)])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, normalized=False), "[CLS]"])
    return tokenizer


def meta_space() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return trained(tokenizer, trainers.UnigramTrainer(vocab_size=120, special_tokens=["[UNK]"], unk_token="[UNK]"))


def meta_space_that_keeps_spaces() -> Tokenizer:
    tokenizer = meta_space()
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, rstrip=True, normalized=False)])
    return tokenizer


def reaching_back() -> Tokenizer:
    tokenizer = meta_space_that_keeps_spaces()
    tokenizer.add_tokens([AddedToken("don't", lstrip=True, normalized=True)])
    return tokenizer


def split() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LONG_NUMBERS), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    return tokenizer


def split_by_what_is_far_ahead() -> Tokenizer:
    tokenizer = split()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(FAR_SIGHTED), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    return tokenizer


def without_words() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    return tokenizer


def from_the_left() -> Tokenizer:
    tokenizer = word_piece()
    tokenizer.enable_truncation(WINDOW, direction="left")
    return tokenizer


MAKERS = (
    word_piece, cased_word_piece, byte_level, meta_space, meta_space_that_keeps_spaces, reaching_back, split,
    split_by_what_is_far_ahead, without_words, from_the_left,
)  # fmt: skip


def trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    return tokenizer


@cache
def pair(make: Callable[[], Tokenizer]) -> tuple[WindowTokenizer, Tokenizer]:
    """Ours, and the library's, which reads the whole text."""
    whole = make()
    whole.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    window = WindowTokenizer(whole.to_str().encode(), WINDOW)
    whole.enable_truncation(WINDOW, direction=(whole.truncation or {}).get("direction", "right"))
    return window, whole


PIECES = [
    "the", " ", "  ", "\n", "\t ", "\u00a0", "cat", "isn't", "'", "re", "'r", "1", "2345", ",", "...", "!", "[",
    "[MASK]", "[MA", "SK]", "don't", "a", "aa", "Z", "é", "e", "\u0301", "\u0323", "\u0300\u0323", "\u200b", "\u200d",
    "你", "好", "。", "한", "\u1112\u1161", "😀", "🇩🇪", "ﬁ", "İ", "\u2581", "x" * 99, "q" * 101, "\x00", "\x1c",
]  # fmt: skip
TEXTS = st.lists(
    st.tuples(st.one_of(st.sampled_from(PIECES), st.text(max_size=12)), st.sampled_from((1, 1, 1, 2, 3, 60))),
    max_size=12,
).map(lambda runs: "".join(piece * count for piece, count in runs))


@pytest.mark.parametrize("make", MAKERS)
@given(text=TEXTS)
@example(text="a " * 400)
@example(text="a" * 1000 + "Z")
@example(text="the " * 20 + " " * 600 + "[MASK]")
@example(text="the " * 20 + " " * 600 + "don't")
@example(text="the cat" + "e\u0301" * 300 + "\u0323")
@example(text="the cat e" + "\u0301" * 300 + "\u0323")
@example(text="the cat" + "\u200b" * 500 + "'r" + "\u200b" * 500 + "e")
@example(text="1" * 1000)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_ids_are_those_of_the_whole_text(make: Callable[[], Tokenizer], text: str) -> None:
    window, whole = pair(make)
    encoded, expected = window.encode(text), whole.encode(text)
    assert encoded.ids == expected.ids
    assert encoded.type_ids == expected.type_ids
    assert encoded.truncated == bool(expected.overflowing)


@pytest.mark.parametrize("make", [word_piece, byte_level, meta_space, split])
@pytest.mark.parametrize("part", ["a good day, ", "x" * 99 + " ", "天, ", "[ ", "1, 2 \n"])
def test_of_a_long_text_only_the_beginning_is_read(
    make: Callable[[], Tokenizer], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, whole = pair(make)
    text = part * (30_000 // len(part))
    read: list[int] = []

    class Counting:
        def encode_batch(self, texts: list[str]) -> object:
            read.extend(map(len, texts))
            return whole.encode_batch(texts)

    monkeypatch.setattr(window, "_tokenizer", Counting())
    assert window.encode(text).truncated
    assert sum(read) < 5000


def test_while_a_text_is_tokenised_another_thread_goes_on() -> None:
    window, _ = pair(word_piece)
    done = threading.Event()

    def tokenise() -> None:
        window.encode("x" * 300_000)
        done.set()

    thread = threading.Thread(target=tokenise)
    thread.start()
    turns = 0
    while not done.is_set():
        time.sleep(0.001)
        turns += 1
    thread.join()
    assert turns > 20  # one or two where the interpreter was held meanwhile
