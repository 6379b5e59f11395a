"""Pruned vocabularies: the same pieces, never a new unknown, and the same logits to the bit."""

import copy
import functools
import itertools
import json
import random
from collections.abc import Callable
from typing import Any

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
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from compression.bundle import SingleLabel
from compression.errors import CheckpointError
from compression.parent.checkpoint import Parent
from compression.parent.settings import label_names
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
    tokenizer.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=400))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [special[0], *sorted(tokenizer.get_vocab()), *special[1:]]  # the ids of the latter change when pruned
    tokenizer.model = models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", pieces.index("[SEP]")), ("[CLS]", pieces.index("[CLS]"))
    )
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


def plain_bpe(byte_fallback: bool = False, **options: Any) -> Tokenizer:
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
    pieces = [" ", "<pad>", *sorted(parts), "<s>", "</s>", "<unk>"]
    scored = [(piece, -float(score.randint(8, 40)) if len(piece) > 1 else -15.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=len(pieces) - 1))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<pad>", *pieces[-3:], "<mask>"])
    ends = [(piece, pieces.index(piece)) for piece in ("<s>", "</s>")]
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.post_processor = processors.Sequence([template])
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    return tokenizer


def cut_beforehand() -> Tokenizer:
    """A WordPiece that knows c within words only as part of longer pieces."""
    pieces = ["[PAD]", "[UNK]", "a", "ab", "b", "##a", "##b", "##bx", "##x", "##xc"]
    return Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))


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
def trained(kind: str) -> Tokenizer:
    """Trained once: the order of equally frequent pieces differs from one training to the next."""
    return KINDS[kind]()


@functools.cache
def both(kind: str, keep_most_frequent: int = 0) -> tuple[Tokenizer, Tokenizer, frozenset[int]]:
    """The tokenizer of that kind, the pruned one, and the old ids that were kept."""
    tokenizer = trained(kind)
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


@kinds
def test_every_id_in_the_tokenizer_follows(kind: str) -> None:
    tokenizer, pruned, kept = both(kind)
    assert sorted(pruned.get_vocab().values()) == list(range(len(kept)))
    for token in tokenizer.get_added_tokens_decoder().values():
        assert pruned.token_to_id(token.content) is not None
    assert pruned.encode(SEEN[0], SEEN[0]).tokens == tokenizer.encode(SEEN[0], SEEN[0]).tokens
    assert [row.ids[-1] for row in pruned.encode_batch(["the", SEEN[0]])] == [
        pruned.token_to_id(row.tokens[-1]) for row in tokenizer.encode_batch(["the", SEEN[0]])
    ]


def test_the_most_frequent_of_the_rest_stay() -> None:
    for kind in ("WordPiece", "BPE", "Unigram"):
        few, more = both(kind, 0)[2], both(kind, 10)[2]
        assert few < more
    assert len(both("WordPiece", 10)[2] - both("WordPiece", 0)[2]) == 10
    tokenizer, _, few = both("Unigram", 0)
    scores = [score for _, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    rest = set(range(len(scores))) - few
    stayed = both("Unigram", 10)[2] - few
    assert min(scores[index] for index in stayed) >= max(scores[index] for index in rest - stayed)


def test_what_only_longer_pieces_can_spell_stays_spelled() -> None:
    pruned = prune_vocabulary(cut_beforehand(), [], 0, pad_token_id=0)
    assert pruned.tokenizer.encode("abxc").tokens == ["ab", "##xc"]  # would be a, ##bx, and c without a piece


def test_the_price_of_the_unknown_does_not_fall() -> None:
    scored = [("<pad>", 0.0), ("<unk>", 0.0), ("a", -30.0), ("b", -30.0), ("x", -30.0), ("ab", -30.0), ("xc", -30.0)]
    scored += [("abx", -1.0), ("zz", -50.0), ("zab", -40.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256))]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=1, byte_fallback=True))
    pruned = prune_vocabulary(tokenizer, ["abxc", "abx"], 0, pad_token_id=0).tokenizer
    assert pruned.token_to_id("zab") is None
    assert pruned.encode("abxc").tokens == tokenizer.encode("abxc").tokens == ["ab", "xc"]


def test_the_pad_token_keeps_its_id() -> None:
    vocabulary = {piece: index for index, piece in enumerate(["[UNK]", "ab", "[PAD]", "a", "b", "##a", "##b"])}
    pruned = prune_vocabulary(Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")), [], 0, pad_token_id=2)
    assert pruned.kept.tolist() == [0, 3, 2, 4, 5, 6]
    assert pruned.tokenizer.token_to_id("[PAD]") == 2


def test_a_vocabulary_of_whole_words_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "card": 1}, unk_token="[UNK]"))
    with pytest.raises(CheckpointError, match="WordLevel tokenizer cannot be pruned, only one of WordPiece, BPE"):
        prune_vocabulary(words, ["card"], 0, pad_token_id=0)


def test_an_id_without_a_piece_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no piece with id 9999"):
        prune_vocabulary(word_piece(), [], 0, pad_token_id=9999)


SIZES: dict[str, object] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
MODELS: dict[str, tuple[type[PreTrainedConfig], str, dict[str, object]]] = {
    "BERT": (BertConfig, "WordPiece", SIZES),
    "DistilBERT": (DistilBertConfig, "WordPiece", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
    "ELECTRA": (ElectraConfig, "WordPiece", SIZES | {"embedding_size": 8}),
    "RoBERTa": (RobertaConfig, "byte-level BPE", SIZES),
    "XLM-R": (XLMRobertaConfig, "Unigram", SIZES),
    "DeBERTa-v2": (DebertaV2Config, "Unigram", SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
}


def make_parent(kind: str) -> Parent:
    """An untrained classifier of that architecture; its table has rows that the tokenizer never uses."""
    config_class, tokenizer_kind, sizes = MODELS[kind]
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    if tokenizer_kind != "WordPiece":
        names = {"unk": "<unk>", "pad": "<pad>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[tokenizer_kind](), model_max_length=100, add_prefix_space=True,
        model_input_names=["input_ids", "attention_mask"], truncation_side="left",
        **{f"{name}_token": token for name, token in names.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(tokenizer) + 7, pad_token_id=tokenizer.pad_token_id, cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id, num_labels=3, max_position_embeddings=128, **sizes,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    return Parent(kind, model, tokenizer, SingleLabel(label_names(config, kind)), 100, digest="", settings_digest="")


def logits(parent: Parent, batch: tuple[str, ...]) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = parent.model(**parent.tokenizer(list(batch), padding=True, return_tensors="pt")).logits
    return values


@pytest.mark.parametrize("kind", MODELS)
def test_a_pruned_parent_answers_the_same_to_the_bit(kind: str) -> None:
    parent = make_parent(kind)
    state = copy.deepcopy(parent.model.state_dict())
    backend, config = parent.tokenizer.backend_tokenizer.to_str(), parent.model.config.to_dict()
    batch = (*SENTENCES[:4], "the card is the best 😡")
    pruned = prune_parent_vocabulary(parent, batch, keep_most_frequent=5)

    assert (backend, config) == (parent.tokenizer.backend_tokenizer.to_str(), parent.model.config.to_dict())
    assert all(torch.equal(value, state[name]) for name, value in parent.model.state_dict().items())

    assert torch.equal(logits(pruned, batch), logits(parent, batch))
    rows = pruned.model.get_input_embeddings().weight.shape[0]
    assert rows == len(pruned.tokenizer) == pruned.model.config.vocab_size < len(parent.tokenizer)
    for name in ("pad_token_id", "cls_token_id", "sep_token_id"):
        assert getattr(pruned.model.config, name) == getattr(pruned.tokenizer, name)
    for name in ("special_tokens_map", "model_input_names", "padding_side", "truncation_side", "model_max_length"):
        assert getattr(pruned.tokenizer, name) == getattr(parent.tokenizer, name)
    assert pruned.model.get_input_embeddings().padding_idx == parent.model.get_input_embeddings().padding_idx


def test_a_pad_token_that_positions_are_counted_from_must_not_move() -> None:
    parent = make_parent("RoBERTa")
    parent.tokenizer.add_special_tokens({"pad_token": "<the last>"})
    with pytest.raises(CheckpointError, match="positions are counted from the pad token"):
        prune_parent_vocabulary(parent, SEEN, 0)


def test_kept_names_the_old_rows() -> None:
    tokenizer = word_piece()
    pruned = prune_vocabulary(tokenizer, SEEN, 0, pad_token_id=0)
    assert np.array_equal(pruned.kept[pruned.tokenizer.encode(SEEN[0]).ids], tokenizer.encode(SEEN[0]).ids)


def test_placeholders_take_no_place_of_a_piece_that_text_can_need() -> None:
    characters = "abcdensu0123456789[]"
    letters = [*characters, *(f"##{character}" for character in characters)]
    pieces = ["[PAD]", "[unused0]", "[UNK]", *(f"[unused{n}]" for n in range(1, 50)), *letters, "ab", "abc", "cab"]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]"])
    kept = prune_vocabulary(tokenizer, ["a"], keep_most_frequent=2, pad_token_id=0).tokenizer.get_vocab()
    assert {"ab", "abc"} <= kept.keys()
    assert not any("unused" in piece for piece in kept)
