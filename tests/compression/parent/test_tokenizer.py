"""Tokenizers without a tokenizer.json: made of what lies there, with the ids of the file, or refused."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer
from transformers import AlbertConfig, BertConfig, DebertaV2Config, FNetConfig, LlamaConfig, XLMRobertaConfig

from compression.errors import CheckpointError
from compression.parent.tokenizer import bare, load_tokenizer

TEXTS = ["a good day", "the card is lost, and awful service today", "My café is slow"]
OWN_IDS: dict[str, Any] = {  # of sentencepiece's four special pieces, by architecture
    "xlm-roberta": {},
    "albert": {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": "[CLS],[SEP],[MASK]"},
    "deberta-v2": {
        "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
        "eos_piece": "[SEP]", "unk_piece": "[UNK]",
    },
}  # fmt: skip
CONFIGS = {
    "xlm-roberta": XLMRobertaConfig, "albert": AlbertConfig, "deberta-v2": DebertaV2Config, "fnet": FNetConfig,
    "bert": BertConfig, "llama": LlamaConfig,
}  # fmt: skip
FILES = {"xlm-roberta": "sentencepiece.bpe.model", "deberta-v2": "spm.model"}


def pieces(kind: str, folder: Path) -> Path:
    """A directory with the config of an architecture, and its tokenizer as a file of sentencepiece alone."""
    folder.mkdir()
    CONFIGS[kind]().save_pretrained(folder)
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "worst bank was the best"] * 3), model_writer=written, vocab_size=80,
        hard_vocab_limit=False, minloglevel=2, **OWN_IDS.get(kind, OWN_IDS["albert"]),
    )  # fmt: skip
    file = folder / FILES.get(kind, "spiece.model")
    file.write_bytes(written.getvalue())
    return file


@pytest.mark.parametrize("kind", ["xlm-roberta", "albert", "deberta-v2"])
def test_one_is_made_of_a_file_of_sentencepiece_with_its_ids(kind: str, tmp_path: Path) -> None:
    own = SentencePieceProcessor(model_file=str(pieces(kind, tmp_path / "model")))
    tokenizer = load_tokenizer(tmp_path / "model")
    shift = 1 if kind == "xlm-roberta" else 0  # it puts a padding token among the first
    for text in TEXTS[:2]:
        first, *ids, last = tokenizer(text)["input_ids"]
        assert ids == [index + shift for index in own.encode(text)]
        assert (first, last) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_what_it_does_not_read_as_the_file_says_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """transformers 5 leaves the file's normalization out for DeBERTa."""
    pieces("deberta-v2", tmp_path / "one")
    load_tokenizer(tmp_path / "one")
    said = " ".join(capsys.readouterr().err.split())
    assert re.search("of spm.model does not read '(ＡＢＣ|ﬁne)' as the file says", said)  # noqa: RUF001
    pieces("xlm-roberta", tmp_path / "other")
    load_tokenizer(tmp_path / "other")
    assert capsys.readouterr().err == ""


def test_one_that_is_made_without_its_special_tokens_is_refused(tmp_path: Path) -> None:
    pieces("fnet", tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json, and the FNetTokenizer .* puts no \[CLS\]"):
        load_tokenizer(tmp_path / "model")


def test_a_file_of_tiktoken_is_read_each_time(tmp_path: Path) -> None:
    """tiktoken itself would read the copy that it made the first time."""
    LlamaConfig().save_pretrained(tmp_path)
    for words in (["ab", "abab"], ["ba", "aba"]):
        ranks = [bytes([byte]) for byte in range(256)] + [word.encode() for word in words]
        lines = (f"{base64.b64encode(word).decode()} {rank}\n" for rank, word in enumerate(ranks))
        (tmp_path / "tokenizer.model").write_text("".join(lines))
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer("a")["input_ids"][-1] == ord("a")
        assert tokenizer(words[1])["input_ids"][-1] == 257


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert", "llama"])
@pytest.mark.parametrize("name", [None, "other.model"])
def test_where_there_is_none_the_files_are_named(kind: str, name: str | None, tmp_path: Path) -> None:
    file = pieces(kind, tmp_path / "model")
    beside = ""
    if name is None:
        file.unlink()
    else:
        shutil.move(file, file.with_name(name))
        beside = f", and transformers makes none of {name}"
    with pytest.raises(CheckpointError) as refusal:
        load_tokenizer(tmp_path / "model")
    assert f"has no tokenizer.json{beside}; save the tokenizer there too" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_lower_case": False}, ["[UNK]"]),
        ({"do_lower_case": True}, ["good"]),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, ["good"]),  # it has no such setting
    ],
)
def test_a_setting_beside_the_file_goes_before_it(
    settings: dict[str, Any], expected: list[str], encoder: Path, tmp_path: Path
) -> None:
    shutil.copytree(encoder, tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    written = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**written, "tokenizer_class": "BertTokenizer", **settings}))
    tokenizer = load_tokenizer(tmp_path / "model")
    assert tokenizer.tokenize("GOOD") == expected
    bundled = Tokenizer.from_buffer(bare(tokenizer, 64))
    assert bundled.encode("GOOD").ids == tokenizer("GOOD")["input_ids"]


def test_one_that_splits_special_tokens_is_refused(encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "split_special_tokens": True}))
    with pytest.raises(
        CheckpointError, match=r"split_special_tokens in its tokenizer_config\.json .*; set it to false"
    ):
        load_tokenizer(tmp_path / "model")
