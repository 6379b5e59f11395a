"""What is refused of numbers, and what is a doubt that is said."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from compression.bundle import Bundle
from compression.data import Examples, read_examples
from compression.errors import DataError, RecipeError
from compression.measure.verify import require_bounds_of
from compression.parent.checkpoint import load_parent
from compression.recipe import Budget
from compression.train.finetune import FinetuneOptions, finetune
from tests.commands import run, said


def test_bounds_of_numbers_are_refused_for_labels(parent: Any) -> None:
    with pytest.raises(
        RecipeError, match="max_mae_rise: mine gives one label to a text; bound it by max_accuracy_drop"
    ):
        require_bounds_of(parent.task, Budget(max_mae_rise=1), "mine")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("good", "line 3: has the label 'good', which is no number, and the model gives a number"),
        ("nan", "line 3: has the label 'nan', which is no number"),
        ("1_000", "line 3: has the label '1_000', which is no number"),
        ('"4,5"', "line 3: has the label '4,5', which is no number"),
    ],
)
def test_a_label_that_is_no_number_is_named_with_its_row(
    float_bundle: Bundle, tmp_path: Path, cell: str, message: str
) -> None:
    (tmp_path / "rows.csv").write_text(f"text,label\na,3\nb,{cell}\n", "utf-8")
    assert message in said(run("evaluate", float_bundle.path, "--data", tmp_path / "rows.csv"))


def test_lists_are_no_numbers(float_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": ["1", "2"]}\n', "utf-8")
    assert "line 1: has 2 labels in a list, and the model gives a number" in said(
        run("evaluate", float_bundle.path, "--data", tmp_path / "rows.jsonl")
    )


def test_a_model_of_labels_refuses_numbers(sentiment_parent: Path, data: Path) -> None:
    assert "They are numbers, and the model gives labels" in said(run("evaluate", sentiment_parent, "--data", data))


def test_a_number_and_labels_do_not_compare(float_bundle: Bundle, sentiment_parent: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\na\nb\n", "utf-8")
    result = run("evaluate", float_bundle.path, "--data", tmp_path / "rows.csv", "--against", sentiment_parent)
    assert "gives a number to a text, and" in said(result)


def rows(*labels: str | None) -> Examples:
    return Examples(tuple(map(str, range(len(labels)))), labels, (None,) * len(labels))


@pytest.mark.parametrize(
    ("train", "validation", "options", "message"),
    [
        (rows("1", "two"), None, {}, "train: has the label 'two', which is no number"),
        (rows("1", "2"), rows("x"), {}, "validation: has the label 'x'"),
        (rows("1", None), None, {}, "train: has no label"),
        (rows("2", "2.0"), None, {}, "the number 2 in every row"),
        (rows("1", "2"), None, {"label_smoothing": 0.1}, "these rows have numbers"),
        (rows("1", "2"), rows("3"), {"number": False}, "pass --number"),
    ],
)
def test_rows_that_teach_no_number_are_refused(
    encoder: Path, tmp_path: Path, train: Examples, validation: Examples | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        finetune(str(encoder), train, validation, tmp_path / "out", FinetuneOptions(**{"number": True, **options}))


def test_a_row_of_training_that_has_no_number_is_named(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,1\nb,2\nc,three\n", "utf-8")
    result = run("finetune", encoder, "--data", tmp_path / "rows.csv", "--out", tmp_path / "out", "--number")
    assert "rows.csv: line 4: has the label 'three', which is no number, and --number asks for numbers" in said(result)


def test_a_number_has_the_name_of_its_column(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,stars\na,1\nb,2.5\n", "utf-8")
    options = ("--number", "--label-column", "stars", "--epochs", "1")
    result = run("finetune", encoder, "--data", tmp_path / "rows.csv", "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert load_parent(str(tmp_path / "out")).labels == ("stars",)


@pytest.mark.parametrize("labels", [range(11), (1, 2, 2.5)])
def test_many_numbers_that_are_trained_as_labels_are_a_doubt_that_is_said(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: Sequence[float]
) -> None:
    finetune(str(encoder), rows(*map(str, labels)), None, tmp_path / "out", FinetuneOptions(epochs=1))
    assert "all of them numbers" in " ".join(capsys.readouterr().err.split())


def test_a_model_that_learned_next_to_nothing_is_said(
    encoder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = FinetuneOptions(epochs=0.1, learning_rate=1e-9, precision="fp32", number=True)
    finetune(str(encoder), read_examples(data), None, tmp_path / "out", options)
    assert "has a mean absolute error of" in " ".join(capsys.readouterr().err.split())


def test_a_parent_that_gives_one_number_is_refused(number_parent: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(number_parent, tmp_path / "parent")
    state = load_file(tmp_path / "parent" / "model.safetensors")
    state["classifier.weight"].zero_()
    save_file(state, tmp_path / "parent" / "model.safetensors", {"format": "pt"})
    result = run("compress", tmp_path / "parent", "--data", data, "--out", tmp_path / "out", "--cache", tmp_path / "c")
    assert "gives the same number to all of" in said(result)


def test_numbers_and_labels_side_by_side_are_not_cut(float_bundle: Bundle, sentiment_bundle: Bundle) -> None:
    table = run("compare", float_bundle.path, sentiment_bundle.path)
    assert table.exit_code == 0, table.output
    assert {"accuracy,", "Spearman", "RMSE"} <= set(table.stdout.split())
    assert "…" not in table.stdout
