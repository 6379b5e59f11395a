import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from compression.data import Examples, read_examples
from compression.errors import CheckpointError, DataError
from compression.parent.checkpoint import load_parent
from compression.train.finetune import FinetuneOptions, finetune

QUICK = FinetuneOptions(epochs=1, batch_size=32, learning_rate=3e-3, precision="fp32")


def rows(*pairs: tuple[str, str | None]) -> Examples:
    texts, labels = zip(*pairs, strict=True)
    return Examples(texts, labels, (None,) * len(pairs))


GOOD = rows(("a great day", "yes"), ("an awful day", "no"))


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (rows(("x", "a"), ("y", None)), GOOD, "train: 1 rows have no label"),
        (rows(("x", "a"), ("y", "a")), rows(("x", "a")), "only the label 'a'"),
        (GOOD, rows(("x", "maybe")), "'maybe'"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(
    encoder: Path, tmp_path: Path, train: Examples, validation: Examples, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        finetune(str(encoder), train, validation, tmp_path / "out", QUICK)


def test_without_validation_the_last_epoch_is_kept(encoder: Path, sentiment_data: Path, tmp_path: Path) -> None:
    assert finetune(str(encoder), read_examples(sentiment_data), None, tmp_path / "out", QUICK) == {}
    assert load_parent(str(tmp_path / "out")).labels == ("negative", "positive")


def test_early_stopping_without_validation_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="early stopping needs validation rows"):
        finetune(str(encoder), GOOD, None, tmp_path / "out", FinetuneOptions(early_stopping=1))


def test_an_adapter_holds_adapters_pooler_and_head_in_half_precision(
    encoder: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    data = read_examples(sentiment_data)
    finetune(str(encoder), data, data, tmp_path / "out", FinetuneOptions(epochs=0.2, lora_rank=2, precision="fp32"))
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
        assert {str(file.get_tensor(name).dtype) for name in names} == {"torch.float16"}
    assert all("lora_" in name or "pooler" in name or "classifier" in name for name in names)
    assert any("intermediate.dense.lora_A" in name for name in names)


def test_a_stopped_run_goes_on_where_it_was(encoder: Path, sentiment_data: Path, tmp_path: Path) -> None:
    data = read_examples(sentiment_data)
    finetune(str(encoder), data, data, tmp_path / "out", QUICK)
    longer = FinetuneOptions(epochs=2, batch_size=32, learning_rate=3e-3, precision="fp32")
    finetune(str(encoder), data, data, tmp_path / "out", longer, resume=True)
    steps = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert steps == [13, 26]  # 400 rows in batches of 32: the second epoch only was run


def test_resuming_without_a_checkpoint_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="leave out --resume"):
        finetune(str(encoder), GOOD, GOOD, tmp_path / "out", QUICK, resume=True)


def test_targets_that_match_nothing_are_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nonsense"):
        finetune(str(encoder), GOOD, GOOD, tmp_path / "out", FinetuneOptions(lora_rank=2, lora_targets="nonsense"))


def test_the_seed_decides(encoder: Path, sentiment_data: Path, tmp_path: Path) -> None:
    data = read_examples(sentiment_data)
    weights = []
    for run in ("a", "b"):
        finetune(str(encoder), data, data, tmp_path / run, QUICK)
        weights.append((tmp_path / run / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_an_encoder_with_missing_weights_is_refused(encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "cut")
    state = load_file(encoder / "model.safetensors")
    del state["encoder.layer.0.output.dense.weight"]
    save_file(state, tmp_path / "cut" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights are not in its files.*; save the model again$"):
        finetune(str(tmp_path / "cut"), GOOD, None, tmp_path / "out", QUICK)
