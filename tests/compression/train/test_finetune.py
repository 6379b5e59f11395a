import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from compression.cli.making import finetune as command
from compression.data import Examples, read_examples
from compression.errors import CheckpointError, DataError
from compression.parent.checkpoint import load_parent
from compression.train.finetune import FinetuneOptions, finetune
from compression.train.watching import EpochLines, doubt_of_learning

QUICK = FinetuneOptions(epochs=1, batch_size=32, learning_rate=3e-3, precision="fp32")


def rows(*pairs: tuple[str, str | None]) -> Examples:
    texts, labels = zip(*pairs, strict=True)
    return Examples(texts, labels, (None,) * len(pairs))


GOOD = rows(("a great day", "yes"), ("an awful day", "no"))


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (rows(("x", "a"), ("y", None)), GOOD, "train: has no label; fill it in, or remove the row"),
        (rows(("x", "a"), ("y", "a")), rows(("x", "a")), "only the label 'a'"),
        (GOOD, rows(("x", "maybe")), "'maybe'"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(
    encoder: Path, tmp_path: Path, train: Examples, validation: Examples, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        finetune(str(encoder), train, validation, tmp_path / "out", QUICK)


@pytest.mark.parametrize("rank", ["0", "2"])
def test_what_is_printed_are_its_own_words_and_files_follow_the_umask(
    rank: str, encoder: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    program = "import os; os.umask(0o027); import lathe; lathe.main()"
    command = [
        "finetune", str(encoder), "--data", str(sentiment_data), "--out", str(tmp_path / "out"), "--lora-rank", rank,
        "--epochs", "1", "--learning-rate", "3e-3",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Epoch 1 of 1: loss .*\n(warning: right for .*\n)?", done.stderr)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o640}


def test_without_validation_the_last_epoch_is_kept(
    encoder: Path, sentiment_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(str(encoder), read_examples(sentiment_data), None, tmp_path / "out", QUICK) == {}
    assert load_parent(str(tmp_path / "out")).labels == ("negative", "positive")
    assert re.search(r"^Epoch 1 of 1: loss \d\.\d{3}, \d+ s$", capsys.readouterr().err, re.MULTILINE)


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


def test_a_stopped_run_goes_on_where_it_was(
    encoder: Path,
    sentiment_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, out = read_examples(sentiment_data), tmp_path / "out"
    options = FinetuneOptions(epochs=2, batch_size=32, learning_rate=3e-3, precision="fp32")
    say = EpochLines.say

    def stop(lines: EpochLines, epoch: float, *rest: Any) -> None:
        say(lines, epoch, *rest)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "say", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(str(encoder), data, data, out, options)
    assert "Epoch 1 of 2" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="holds a run that was stopped; go on with --resume"):
        finetune(str(encoder), data, data, out, options)
    finetune(str(encoder), data, data, out, options, resume=True)
    said = capsys.readouterr().err
    assert "Epoch 2 of 2: loss 0." in said
    assert "Epoch 1 of 2" not in said
    assert not (out / "checkpoints").exists()


def test_what_out_holds_is_replaced_only_on_request(encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    finetune(str(encoder), GOOD, None, out, QUICK)
    assert {path.name for path in out.iterdir()} >= {"model.safetensors", "tokenizer.json", "finetune.json"}
    (out / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="holds a fine-tuned model; replace it with --overwrite"):
        finetune(str(encoder), GOOD, None, out, QUICK)
    finetune(str(encoder), GOOD, None, out, QUICK, overwrite=True)
    assert not {path.name for path in out.iterdir()} & {"notes.txt", "checkpoints"}


def test_what_cannot_be_written_is_said_before_the_work(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    monkeypatch.chdir(tmp_path)
    for out, message in {
        "mine": "holds files that lathe finetune has not written",
        "mine/thesis.txt/x": "mine/thesis.txt: is a file",
        ".": "holds the directory that you are in",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            finetune(str(tmp_path / "no such encoder"), GOOD, None, Path(out), QUICK, overwrite=True)


@pytest.mark.parametrize(("rank", "given", "used"), [(0, None, 5e-5), (2, None, 1e-3), (2, 2e-4, 2e-4)])
def test_the_learning_rate_follows_what_is_trained(
    encoder: Path, tmp_path: Path, rank: int, given: float | None, used: float
) -> None:
    options = FinetuneOptions(epochs=1, learning_rate=given, lora_rank=rank, precision="fp32")
    finetune(str(encoder), GOOD, None, tmp_path / "out", options)
    assert json.loads((tmp_path / "out" / "finetune.json").read_text())["learning_rate"] == used


def test_a_model_that_learned_next_to_nothing_is_said(
    encoder: Path, sentiment_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_examples(sentiment_data)
    for validation, rows in ((data, "400 rows"), (None, "400 training rows")):
        options = FinetuneOptions(epochs=0.1, learning_rate=1e-9, precision="fp32")
        finetune(str(encoder), data, validation, tmp_path / rows, options)
        said = capsys.readouterr().err
        assert re.search(rf"warning: right for \d+ % of {rows}, where 'negative' for every row is right for 50 %", said)
        assert "at a higher --learning-rate" in said


def test_progress_is_in_words(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_examples(sentiment_data)
    finetune(str(sentiment_parent), data, data, tmp_path / "out", QUICK)
    said = capsys.readouterr()
    assert re.search(r"^Epoch 1 of 1: loss \d\.\d{3}, validation accuracy \d+\.\d %, \d+ s$", said.err, re.MULTILINE)
    assert "{" not in said.out + said.err
    assert "warning" not in said.err


@pytest.mark.parametrize(("option", "value"), [("--epochs", "0"), ("--epochs", "-1"), ("--learning-rate", "0")])
def test_no_training_at_all_is_refused(option: str, value: str, sentiment_data: Path, tmp_path: Path) -> None:
    arguments = ["PARENT", "--data", str(sentiment_data), "--out", str(tmp_path / "out"), option, value]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': {float(value)} is not in the range x>0" in result.output


def test_doubt_of_learning_begins_near_the_commonest_label() -> None:
    labels = ["a"] * 80 + ["b"] * 20
    assert doubt_of_learning(0.83, labels, "rows") is not None
    assert doubt_of_learning(0.85, labels, "rows") is None


def test_a_head_of_other_labels_is_replaced(
    sentiment_parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(str(sentiment_parent), rows(("x", "a"), ("y", "b"), ("z", "c")), None, tmp_path / "out", QUICK)
    assert "has a head of 2 labels; a new one of 3 is trained" in " ".join(capsys.readouterr().err.split())
    assert load_parent(str(tmp_path / "out")).labels == ("a", "b", "c")
    finetune(str(sentiment_parent), rows(("x", "a"), ("y", "b")), None, tmp_path / "two", QUICK)
    assert "its head of 2 labels is trained on for as many others" in " ".join(capsys.readouterr().err.split())
    assert load_parent(str(tmp_path / "two")).labels == ("a", "b")


def test_labels_stay_in_the_order_of_the_head_that_has_them(sentiment_parent: Path, tmp_path: Path) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "parent")
    path = tmp_path / "parent" / "config.json"
    names = {"id2label": {"0": "positive", "1": "negative"}, "label2id": {"positive": 0, "negative": 1}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **names}))
    train = rows(("x", "negative"), ("y", "positive"))
    finetune(str(tmp_path / "parent"), train, None, tmp_path / "out", QUICK)
    assert load_parent(str(tmp_path / "out")).labels == ("positive", "negative")


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
