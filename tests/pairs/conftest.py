"""A model that reads pairs of texts: its rows, parents and bundle."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer

from compression.bundle import Bundle
from tests.commands import compressed, done
from tests.conftest import made_once
from tests.pairs.rows import PAIRED, write_rows


@pytest.fixture(scope="session")
def data(workspace: Path) -> Path:
    return made_once(workspace / "pairs.csv", lambda path: write_rows(path, 600, seed=1))


@pytest.fixture(scope="session")
def pair_encoder(workspace: Path, encoder: Path) -> Path:
    """The untrained BERT, whose tokenizer has BERT's frame for pairs."""

    def make(out: Path) -> None:
        import shutil

        shutil.copytree(encoder, out)
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        tokenizer.save(str(out / "tokenizer.json"))

    return made_once(workspace / "pair-encoder", make)


@pytest.fixture(scope="session")
def bert(workspace: Path, pair_encoder: Path, data: Path) -> Path:
    def train(out: Path) -> None:
        validation = write_rows(out.with_suffix(".validation.csv"), 80, seed=2)
        done(
            "finetune", pair_encoder, "--data", data, "--validation", validation, "--out", out, *PAIRED, "--epochs", 6,
            "--batch-size", 16, "--learning-rate", 3e-3, "--precision", "fp32",
        )  # fmt: skip

    return made_once(workspace / "pair-parent", train)


@pytest.fixture(scope="session")
def roberta(workspace: Path) -> Path:
    """An untrained RoBERTa of two labels, whose weights are large enough that answers differ."""

    def make(out: Path) -> None:
        pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        RobertaTokenizer(
            vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], model_max_length=64
        ).save_pretrained(out)
        torch.manual_seed(0)
        RobertaForSequenceClassification(
            RobertaConfig(
                vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=48, max_position_embeddings=66, initializer_range=0.4, type_vocab_size=1,
                id2label={0: "first", 1: "second"}, label2id={"first": 0, "second": 1},
            )
        ).save_pretrained(out)  # fmt: skip

    return made_once(workspace / "pair-roberta", make)


@pytest.fixture(scope="session")
def float_bundle(workspace: Path, bert: Path, data: Path) -> Bundle:
    return compressed(workspace, bert, data, "float", *PAIRED)
