import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from compression.data import read_examples
from compression.errors import CheckpointError
from compression.parent.checkpoint import Parent, load_parent, locate
from compression.parent.classifier import ParentClassifier
from compression.train.finetune import FinetuneOptions, finetune


def test_a_fine_tuned_directory_loads_with_its_labels_and_window(parent: Parent) -> None:
    assert parent.labels == ("negative", "positive")
    assert parent.max_length == 64
    assert not parent.model.training


def test_a_pickle_is_never_loaded(sentiment_parent: Path, tmp_path: Path) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "p", ignore=shutil.ignore_patterns("*.safetensors", "checkpoints"))

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"weights": Bomb()}, tmp_path / "p" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle.*safe_serialization=True"):
        load_parent(str(tmp_path / "p"))
    assert not (tmp_path / "exploded").exists()


def test_a_model_that_brings_code_is_refused(sentiment_parent: Path, tmp_path: Path) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "p", ignore=shutil.ignore_patterns("checkpoints"))
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
    (tmp_path / "p" / "config.json").write_text(json.dumps(config))
    (tmp_path / "p" / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
    with pytest.raises(CheckpointError, match="auto_map"):
        load_parent(str(tmp_path / "p"))
    assert not (tmp_path / "exploded").exists()


def test_an_encoder_without_a_head_is_refused(encoder: Path) -> None:
    with pytest.raises(CheckpointError, match="lathe finetune"):
        load_parent(str(encoder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such directory"),
        ("embedded:nothing", "there is all-MiniLM-L6-v2"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        locate(name)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        load_parent(str(tmp_path))


def test_the_embedded_encoder_is_the_published_one() -> None:
    assert (locate("embedded:all-MiniLM-L6-v2") / "model.safetensors").is_file()


def test_an_embedded_encoder_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from compression.parent.checkpoint import EMBEDDED_ENCODERS

    monkeypatch.setitem(EMBEDDED_ENCODERS["all-MiniLM-L6-v2"].sha256, "config.json", "0" * 64)
    with pytest.raises(CheckpointError, match=r"config\.json: sha256"):
        locate("embedded:all-MiniLM-L6-v2")


def test_an_adapter_is_merged_into_the_encoder_that_it_names(
    encoder: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    rows = read_examples(sentiment_data)
    options = FinetuneOptions(epochs=3, batch_size=16, learning_rate=1e-2, lora_rank=4, precision="fp32")
    accuracy = finetune(str(encoder), rows, rows, tmp_path / "adapter", options)["accuracy"]
    adapter = load_parent(str(tmp_path / "adapter"))
    assert adapter.labels == ("negative", "positive")
    assert not any("lora" in name for name, _ in adapter.model.named_parameters())
    classifier = ParentClassifier(adapter)
    logits = classifier.forward([classifier.encode(text) for text in rows.texts])
    answers = [adapter.labels[index] for index in logits.argmax(axis=-1)]
    assert np.mean([want == got for want, got in zip(rows.labels, answers, strict=True)]) == pytest.approx(
        accuracy, abs=0.01
    )


def test_an_adapter_without_label_names_gets_numbered_ones(encoder: Path, sentiment_data: Path, tmp_path: Path) -> None:
    rows = read_examples(sentiment_data)
    options = FinetuneOptions(epochs=0.2, batch_size=16, lora_rank=2, precision="fp32")
    finetune(str(encoder), rows, rows, tmp_path / "adapter", options)
    (tmp_path / "adapter" / "config.json").unlink()
    assert load_parent(str(tmp_path / "adapter")).labels == ("LABEL_0", "LABEL_1")
