"""Pruned vocabularies: the same pieces, never a new unknown, and the same logits to the bit."""

import copy
import functools
import itertools
import json
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from compression.checkpoint import Parent, label_names
from compression.errors import CheckpointError
from compression.prune.vocabulary import prune_parent_vocabulary, prune_vocabulary

SENTENCES = (
    "the card has not arrived, and nobody answers the telephone",
    "a lovely, lovely film: the best of the year, warmly recommended",
    "café à la crème, naïve señor, Übermut und Straße",
    "我的银行卡还没有到,请帮我查一下",
    "this app is unbelievably slow 😡 and keeps crashing 😭😭",
    "recommendation recommend recommender unrecommended answering answered",
    "PIN 4711 was reset; the PIN is wrong!",
)
SEEN = SENTENCES[:1]
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})

# Words of the training texts, words made of parts of them, and anything at all
texts = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=8).map("".join),
    st.text(alphabet="".join(sorted(set("".join(SENTENCES)))), max_size=40),
    st.text(max_size=20),
)


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def plain_bpe(byte_fallback: bool = False, **options: object) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, **options))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256) if byte_fallback]
    suffix = {"end_of_word_suffix": options["end_of_word_suffix"]} if "end_of_word_suffix" in options else {}
    prefix = {name: options[name] for name in ("continuing_subword_prefix",) if name in options}
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=700, special_tokens=special, **suffix, **prefix)
    )
    return tokenizer


def unigram() -> Tokenizer:
    """All short parts of the words, at random scores, so that many paths compete."""
    spelled = ["\u2581" + word for word in WORDS]
    parts = {word[start : start + size] for word in spelled for size in range(1, 5) for start in range(len(word))}
    score = random.Random(0)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(parts)]
    scored = [(piece, -float(score.randint(8, 40)) if len(piece) > 1 else -15.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([*pieces[:4], "<mask>"])
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.post_processor = processors.Sequence([template])
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": word_piece,
    "byte-level BPE": byte_level,
    "BPE": plain_bpe,
    "BPE with suffix": functools.partial(plain_bpe, end_of_word_suffix="</w>"),
    "BPE with prefix": functools.partial(plain_bpe, continuing_subword_prefix="##"),
    "BPE, whole words first": functools.partial(plain_bpe, ignore_merges=True),
    "BPE with byte fallback": functools.partial(plain_bpe, byte_fallback=True),
    "Unigram": unigram,
}
kinds = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def both(kind: str, keep_most_frequent: int = 0) -> tuple[Tokenizer, Tokenizer, frozenset[int]]:
    """The tokenizer of that kind, the pruned one, and the old ids that were kept."""
    tokenizer = KINDS[kind]()
    pruned = prune_vocabulary(tokenizer, SEEN, keep_most_frequent, tokenizer.token_to_id("[PAD]") or 1)
    return tokenizer, pruned.tokenizer, frozenset(pruned.kept.tolist())


@kinds
@pytest.mark.parametrize("keep_most_frequent", [0, 25])
def test_pruning_drops_pieces_but_none_of_the_texts(kind: str, keep_most_frequent: int) -> None:
    tokenizer, pruned, _ = both(kind, keep_most_frequent)
    assert pruned.get_vocab_size() < tokenizer.get_vocab_size()
    assert [pruned.encode(text).tokens for text in SEEN] == [tokenizer.encode(text).tokens for text in SEEN]


@kinds
@settings(max_examples=100, deadline=None)
@given(text=texts, keep_most_frequent=st.sampled_from([0, 10, 40]))
def test_a_text_of_kept_pieces_is_cut_as_before(kind: str, text: str, keep_most_frequent: int) -> None:
    tokenizer, pruned, kept = both(kind, keep_most_frequent)
    before = tokenizer.encode(text)
    assume(kept.issuperset(before.ids))
    after = pruned.encode(text)
    assert (after.tokens, after.offsets, after.type_ids) == (before.tokens, before.offsets, before.type_ids)


@kinds
@settings(max_examples=100, deadline=None)
@given(text=texts, keep_most_frequent=st.sampled_from([0, 10, 40]))
def test_no_text_becomes_unknown(kind: str, text: str, keep_most_frequent: int) -> None:
    tokenizer, pruned, _ = both(kind, keep_most_frequent)
    unknowns = {tokenizer.token_to_id("[UNK]"), tokenizer.token_to_id("<unk>")}
    assume(unknowns.isdisjoint(tokenizer.encode(text).ids))
    assert {pruned.token_to_id("[UNK]"), pruned.token_to_id("<unk>")}.isdisjoint(pruned.encode(text).ids)


# Small vocabularies over three letters, in which the letters themselves may be missing: every text is tried.
SHORT_TEXTS = ["".join(letters) for size in range(1, 6) for letters in itertools.product("abc", repeat=size)]
pieces_of_letters = st.lists(st.text("abc", min_size=1, max_size=4), min_size=3, max_size=20, unique=True)


@st.composite
def small_word_piece(draw: st.DrawFn) -> Tokenizer:
    letters = draw(st.sampled_from([["a", "##a", "b", "##b", "c", "##c"], ["a", "##a", "b", "##b", "c"], ["a", "##b"]]))
    inside = ["##" + piece for piece in draw(pieces_of_letters)]
    pieces = dict.fromkeys(["[PAD]", "[UNK]", *letters, *draw(pieces_of_letters), *inside])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))


@st.composite
def small_bpe(draw: st.DrawFn) -> Tokenizer:
    letters = draw(st.sampled_from(["abc", "ab", "bc"]))
    prefix, suffix = draw(st.sampled_from([("", ""), ("##", ""), ("", "$")]))
    forms = {"continuing_subword_prefix": prefix, "end_of_word_suffix": suffix}
    pieces = ["<pad>", "<unk>", *letters, *(f"##{letter}" for letter in letters), *(f"{letter}$" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for left, right in draw(st.lists(st.tuples(st.integers(2, 40), st.integers(2, 40)), max_size=25)):
        pair = pieces[2 + left % (len(pieces) - 2)], pieces[2 + right % (len(pieces) - 2)]
        follows = pair[1].startswith(prefix) and not pair[0].endswith("$")
        if follows and pair not in merges:
            merges.append(pair)
            pieces.append(pair[0] + pair[1][len(prefix) :])
    pieces = list(dict.fromkeys([*pieces, *draw(pieces_of_letters)]))
    return Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>",
            ignore_merges=draw(st.booleans()), **{name: form for name, form in forms.items() if form},
        )
    )  # fmt: skip


@st.composite
def small_unigram(draw: st.DrawFn) -> Tokenizer:
    pieces = dict.fromkeys(["<pad>", "<unk>", *draw(st.sampled_from(["abc", "ab", ""])), *draw(pieces_of_letters)])
    scores = draw(st.lists(st.integers(-30, 0), min_size=len(pieces), max_size=len(pieces)))
    return Tokenizer(models.Unigram(list(zip(pieces, map(float, scores), strict=True)), unk_id=1))


@pytest.mark.parametrize("small", [small_word_piece, small_bpe, small_unigram])
@settings(max_examples=200, deadline=None)
@given(data=st.data(), seen=st.lists(st.sampled_from(SHORT_TEXTS), max_size=3), keep_most_frequent=st.integers(0, 4))
def test_whatever_the_vocabulary_all_texts_are_cut_as_before_or_into_known_pieces(
    small: Callable[[], st.SearchStrategy[Tokenizer]], data: st.DataObject, seen: list[str], keep_most_frequent: int
) -> None:
    tokenizer = data.draw(small())
    pruned = prune_vocabulary(tokenizer, seen, keep_most_frequent, pad_token_id=0)
    kept = set(pruned.kept.tolist())
    for text in SHORT_TEXTS:
        before, after = tokenizer.encode(text), pruned.tokenizer.encode(text)
        if kept.issuperset(before.ids):
            assert (after.tokens, after.offsets) == (before.tokens, before.offsets), text
            assert pruned.kept[after.ids].tolist() == before.ids, text
        if 1 not in before.ids:
            assert 1 not in pruned.kept[after.ids], text
