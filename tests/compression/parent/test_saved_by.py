"""Checkpoints that transformers 4 and 5 saved, with what those versions answered: made by tests/checkpoints/make.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, Qwen3Config

from compression.errors import CheckpointError
from compression.parent.checkpoint import load_parent
from compression.parent.settings import load_config
from compression.parent.tokenizer import load_tokenizer

CHECKPOINTS = Path(__file__).resolve().parent.parent.parent / "checkpoints"
ALL = sorted(path.parent.relative_to(CHECKPOINTS).as_posix() for path in CHECKPOINTS.glob("*/*/answers.json"))


def changed(checkpoint: str, folder: Path, file: str, **values: Any) -> Path:
    """A copy with other values in one of its files; None takes a field away."""
    shutil.copytree(CHECKPOINTS / checkpoint, folder, dirs_exist_ok=True)
    content = {**json.loads((folder / file).read_text("utf-8")), **values}
    (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return folder


@pytest.mark.parametrize("checkpoint", ALL)
def test_it_makes_the_tokens_and_gives_the_answers_of_the_version_that_saved_it(checkpoint: str) -> None:
    parent = load_parent(str(CHECKPOINTS / checkpoint))
    assert parent.labels == ("negative", "neutral", "positive")
    for answer in json.loads((CHECKPOINTS / checkpoint / "answers.json").read_text("utf-8")):
        assert parent.tokenizer(answer["text"])["input_ids"] == answer["ids"]
        with torch.inference_mode():
            logits = parent.model(input_ids=torch.tensor([answer["ids"]])).logits
        assert logits.dtype == torch.float32
        assert logits[0].tolist() == pytest.approx(answer["logits"], abs=2e-5)


def test_there_are_some_of_both_versions() -> None:
    kinds = {"bert", "roberta", "modernbert", "deberta-v2", "qwen3"}
    assert {f"transformers-{version}/{kind}" for version in (4, 5) for kind in kinds} == set(ALL)


@pytest.mark.parametrize(
    ("checkpoint", "values", "message"),
    [
        (
            "transformers-4/bert",
            {"position_embedding_type": "relative_key"},
            "has position_embedding_type 'relative_key', which transformers 5.* does not read in bert",
        ),
        ("transformers-4/bert", {"pruned_heads": {"0": [1]}}, "has pruned_heads .*does not read in bert"),
        ("transformers-4/roberta", {"rope_theta": 10.0}, "has rope_theta 10.0, which .* does not read in roberta"),
        (
            "transformers-5/bert",
            {"rope_parameters": {"rope_theta": 10.0}},
            "has rope_parameters .*does not read in bert",
        ),
        ("transformers-4/qwen3", {"head_dim": "eight"}, "its config.json cannot be used"),
    ],
)
def test_a_field_that_decides_the_answers_is_read_or_refused(
    tmp_path: Path, checkpoint: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_config(changed(checkpoint, tmp_path, "config.json", **values))


def test_a_distance_between_layers_that_is_larger_than_the_model_is_read(tmp_path: Path) -> None:
    """As ModernBERT's default is in a model of two layers: only the first of them attends to the whole text."""
    folder = changed("transformers-4/modernbert", tmp_path, "config.json", global_attn_every_n_layers=3)
    assert load_config(folder).layer_types == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(("limit", "refused"), [(128, False), (100, True)])
def test_rotary_positions_that_change_within_the_window_are_refused(limit: int, refused: bool, tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope", "rope_theta": 50.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4,
        "original_max_position_embeddings": limit, "factor": 2.0,
    }  # fmt: skip
    folder = changed("transformers-5/qwen3", tmp_path, "config.json", rope_parameters=rope)
    if not refused:
        assert load_parent(str(folder)).max_length == 128
        return
    with pytest.raises(CheckpointError, match=r"turn otherwise from 100 tokens on.*set model_max_length .* to 100"):
        load_parent(str(folder))


def test_a_field_whose_value_is_replaced_by_a_default_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No version of today does so; it is what a renamed field comes to."""
    for config_class, checkpoint, forgotten, message in (
        (
            BertConfig,
            "transformers-4/bert",
            {"layer_norm_eps": 1e-12},
            "has layer_norm_eps 0.001, .* reads as 1e-12 in bert",
        ),
        (
            Qwen3Config,
            "transformers-4/qwen3",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
            "has rope_theta 50.0, .* reads as 10000.0 in qwen3",
        ),
    ):
        initialise = config_class.__post_init__

        def forget(self: Any, initialise: Any = initialise, forgotten: dict[str, Any] = forgotten, **rest: Any) -> None:
            initialise(self, **rest)
            for name, value in forgotten.items():
                setattr(self, name, value)

        monkeypatch.setattr(config_class, "__post_init__", forget)
        with pytest.raises(CheckpointError, match=message):
            load_config(CHECKPOINTS / checkpoint)


def test_a_field_that_nothing_reads_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "attention_of_tomorrow": "spiral",
        "switched_off": False,
        "_note": "mine",
        "task_specific_params": {"a": 1},
    }
    load_config(changed("transformers-5/roberta", tmp_path, "config.json", **values))
    said = capsys.readouterr().err
    assert "does not read attention_of_tomorrow in its config.json of roberta" in said
    assert not any(name in said for name in ("switched_off", "_note", "task_specific_params"))


@pytest.mark.parametrize("checkpoint", ALL)
def test_of_a_checkpoint_of_either_version_all_is_read(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    load_config(CHECKPOINTS / checkpoint)
    assert capsys.readouterr().err == ""


def test_a_normalizer_of_ones_own_outlives_the_class_of_the_tokenizer() -> None:
    """BertTokenizer of transformers 5 makes its own: "slow" would be one token there."""
    folder = CHECKPOINTS / "transformers-4" / "bert"
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["tokenizer_class"] == "BertTokenizer"
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokenize("so Slow") == ["s", "##o", "slow", "slow"]
    assert (tokenizer.pad_token, tokenizer.model_max_length) == ("[PAD]", 128)
    assert "token_type_ids" in tokenizer.model_input_names


def test_a_tokenizer_that_its_class_makes_as_it_was_saved_keeps_its_class() -> None:
    from compression.parent.files import locate

    assert type(load_tokenizer(locate("embedded:all-MiniLM-L6-v2"))).__name__ == "BertTokenizer"
