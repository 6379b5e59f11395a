"""Adapters of peft: merged exactly, or refused by what is wrong with their files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from compression.errors import CheckpointError
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import ParentClassifier
from compression.parent.tokenizer import load_tokenizer
from tests.compression.parent.test_architectures import saved

TEXT = "my <order> is slow today"


def made(encoder: Path, folder: Path, tokens: tuple[str, ...] = ()) -> list[float]:
    """Writes an adapter whose weights do something, and gives its own answer to TEXT."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(encoder)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    if tokens:
        tokenizer.add_tokens(list(tokens))
        model.resize_token_embeddings(len(tokenizer))
    options = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query"], modules_to_save=["classifier", "pooler"],
        init_lora_weights=False,
    )  # fmt: skip
    adapted = peft.get_peft_model(model, options).eval()
    adapted.save_pretrained(folder, save_embedding_layers=bool(tokens))
    tokenizer.save_pretrained(folder)
    with torch.inference_mode():
        return adapted(**tokenizer(TEXT, return_tensors="pt")).logits[0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("tokens", [(), ("<order>",)])
def test_it_answers_merged_as_beside_its_base_also_with_more_tokens(
    tokens: tuple[str, ...], encoder: Path, tmp_path: Path
) -> None:
    expected = made(encoder, tmp_path, tokens)
    classifier = ParentClassifier(load_parent(str(tmp_path)))
    assert classifier.forward([classifier.encode(TEXT)])[0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        peft.IA3Config(task_type="SEQ_CLS", target_modules=["key"], feedforward_modules=[], init_ia3_weights=False),
        peft.LoHaConfig(task_type="SEQ_CLS", target_modules=["query"], init_weights=False),
        peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], use_dora=True, bias="lora_only"),
        peft.VeraConfig(task_type="SEQ_CLS", target_modules=["query"], r=4, init_weights=False),
    ],
    ids=lambda options: options.peft_type.value,
)
def test_adapters_of_other_kinds_are_merged(options: peft.PeftConfig, encoder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3)
    adapted = peft.get_peft_model(model, options).eval()
    adapted.save_pretrained(tmp_path)
    classifier = ParentClassifier(load_parent(str(tmp_path)))
    with torch.inference_mode():
        expected = adapted(**load_tokenizer(encoder)(TEXT, return_tensors="pt")).logits[0].tolist()
    assert classifier.forward([classifier.encode(TEXT)])[0].tolist() == pytest.approx(expected, abs=1e-5)


def config(**values: Any) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}))

    return apply


def cut(size: int) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:size])

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut(0), "adapter_model.safetensors: cannot be read: .*; save or copy the adapter again"),
        (cut(2000), "adapter_model.safetensors: cannot be read: .*; save or copy the adapter again"),
        (config(base_model_name_or_path=None), "has no name of its base in base_model_name_or_path"),
        (config(base_model_name_or_path=5), "has no name of its base in base_model_name_or_path"),
        (config(peft_type="NEW"), "peft .* has no adapters of peft_type 'NEW'"),
        (config(r="four"), "its adapter does not fit"),
        (config(target_modules=["nothing"]), "its adapter does not fit .*; name the base that it was trained on"),
    ],
)
def test_what_is_wrong_with_its_files_is_said_in_a_sentence(
    change: Callable[[Path], object], message: str, encoder: Path, tmp_path: Path
) -> None:
    made(encoder, tmp_path)
    change(tmp_path)
    with pytest.raises(CheckpointError, match=message) as refusal:
        load_parent(str(tmp_path))
    assert "\n" not in str(refusal.value)


def names(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Changes what an adapter's file holds."""

    def apply(folder: Path) -> None:
        state = load_file(folder / "adapter_model.safetensors")
        change(state)
        save_file(state, folder / "adapter_model.safetensors", {"format": "pt"})

    return apply


FIRST = "bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop(f"base_model.model.{FIRST}.lora_B.weight"),
            f"1 weights are not in its file, {FIRST}.lora_B",
        ),
        (
            lambda state: state.update({f"base_model.model.{FIRST[:-22]}.more.lora_A.weight": torch.ones(2, 64)}),
            "1 weights have no place in it, .*more.lora_A",
        ),
    ],
)
def test_weights_that_are_lacking_or_have_no_place_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, encoder: Path, tmp_path: Path
) -> None:
    """peft would go on with random or zero ones, or without them."""
    made(encoder, tmp_path)
    names(change)(tmp_path)
    with pytest.raises(CheckpointError, match=f"its adapter does not fit .*: {message}"):
        load_parent(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "heads", "targets"),
    [
        ("Bart", ["classification_head"], ["q_proj"]),
        ("Flaubert", ["sequence_summary"], ["q_lin"]),
        ("Gemma3Text", ["score"], ["q_proj"]),
    ],
)
def test_the_head_of_any_architecture_says_how_many_labels_there_are(
    kind: str, heads: list[str], targets: list[str], tmp_path: Path
) -> None:
    base = saved(kind, tmp_path / "base")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=5, ignore_mismatched_sizes=True)
    options = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=heads, init_lora_weights=False)
    adapted = peft.get_peft_model(model, options).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    classifier = ParentClassifier(load_parent(str(tmp_path / "adapter")))
    assert classifier.task.labels == tuple(f"LABEL_{index}" for index in range(5))
    with torch.inference_mode():
        expected = adapted(**load_tokenizer(base)(TEXT, return_tensors="pt")).logits[0].tolist()
    assert classifier.forward([classifier.encode(TEXT)])[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_field_that_peft_does_not_read_is_named(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(encoder, tmp_path)
    load_parent(str(tmp_path))
    assert "does not read" not in capsys.readouterr().err
    config(brand_new_scaling=3)(tmp_path)
    load_parent(str(tmp_path))
    assert "does not read brand_new_scaling in its adapter_config.json" in capsys.readouterr().err.replace("\n", " ")
