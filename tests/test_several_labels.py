"""A classifier that gives a text any number of labels, from its rows to its bundle and what is said of it."""

import csv
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from compression.bundle import Bundle, Runtime, SeveralLabels
from compression.data import Columns, Examples, read_examples
from compression.errors import DataError, VerificationError
from compression.measure.evaluate import fit_thresholds, labelled_rows, quality
from compression.measure.significance import compare_answers
from compression.measure.verify import require_budget
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import load_classifier, predict
from compression.recipe import Budget
from compression.train.finetune import FinetuneOptions, finetune
from compression.train.watching import doubt_of_learning
from tests.commands import compressed, run
from tests.conftest import FILLER, INTENTS, made_once

LABELS = tuple(sorted(INTENTS))
TASK = SeveralLabels.of(LABELS)
TEXTS = ["my card was stolen today", "please change the pin", "the bank is very", "lost wallet with the pin and a card"]


def write_rows(path: Path, count: int, seed: int) -> Path:
    """Texts that hold words of any number of intents, which are their labels."""
    choose = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            labels = [label for label in LABELS if choose.random() < 0.4]
            text = choose.choices(FILLER, k=choose.randint(1, 8))
            text += [word for label in labels for word in choose.choices(INTENTS[label], k=2)]
            choose.shuffle(text)
            file.write(json.dumps({"text": " ".join(text), "label": labels}) + "\n")
    return path


@pytest.fixture(scope="module")
def data(workspace: Path) -> Path:
    return made_once(workspace / "several.jsonl", lambda path: write_rows(path, 600, seed=1))


@pytest.fixture(scope="module")
def several_parent(workspace: Path, encoder: Path, data: Path) -> Path:
    def train(out: Path) -> None:
        validation = read_examples(write_rows(out.with_suffix(".validation.jsonl"), 80, seed=2))
        options = FinetuneOptions(epochs=12, batch_size=16, learning_rate=3e-3, precision="fp32")
        finetune(str(encoder), read_examples(data), validation, out, options)

    return made_once(workspace / "several-parent", train)


@pytest.fixture(scope="module")
def float_bundle(workspace: Path, several_parent: Path, data: Path) -> Bundle:
    return compressed(workspace, several_parent, data, "float")


def test_a_float_bundle_answers_as_transformers_pipeline(float_bundle: Bundle, several_parent: Path) -> None:
    from transformers import pipeline

    expected = pipeline("text-classification", str(several_parent), top_k=None)(TEXTS)
    runtime = Runtime.of(float_bundle)
    logits = np.concatenate([runtime.logits([runtime.encode(text)]) for text in TEXTS])
    scores = float_bundle.task.scores(logits)
    for row, answer in zip(scores, expected, strict=True):
        by_label = {one["label"]: one["score"] for one in answer}
        assert row == pytest.approx([by_label[label] for label in float_bundle.manifest.labels], abs=1e-4)


def test_the_proof_is_that_of_several_labels(float_bundle: Bundle) -> None:
    manifest = float_bundle.manifest
    assert manifest.task == "multi-label-text-classification"
    assert manifest.runtime.thresholds is not None
    figures = manifest.figures
    assert figures.agreement == 1
    assert figures.bundle.micro_f1 is not None
    assert figures.bundle.micro_f1 > 0.9
    assert figures.significance is not None
    assert figures.significance.micro_f1 is not None
    assert figures.calibration is not None
    page = (float_bundle.path / "report.html").read_text("utf-8")
    assert "exact match, %" in page
    assert "micro-F1, points of difference (95 %)" in page
    assert "micro F1" in page
    assert "A text has any number of them" in page
    assert "of which a text may have any number" in (float_bundle.path / "README.md").read_text("utf-8")


@pytest.mark.parametrize("recipe", ["safe", "balanced"])
def test_smaller_bundles_keep_their_labels(workspace: Path, several_parent: Path, data: Path, recipe: str) -> None:
    figures = compressed(workspace, several_parent, data, recipe).manifest.figures
    assert figures.agreement > 0.85
    assert figures.bundle.micro_f1 is not None
    assert figures.bundle.micro_f1 > 0.85


def test_the_budget_is_of_micro_f1(float_bundle: Bundle) -> None:
    figures = float_bundle.manifest.figures
    assert figures.parent.micro_f1 is not None
    worse = figures.bundle.model_copy(update={"micro_f1": figures.parent.micro_f1 - 0.02})
    with pytest.raises(VerificationError, match=r"micro F1 dropped by 2\.00 points, above max_accuracy_drop 1"):
        require_budget(figures.model_copy(update={"bundle": worse}), Budget(max_accuracy_drop=1))


def test_evaluate_and_compare_say_both_f1s_and_exact_matches(
    float_bundle: Bundle, several_parent: Path, data: Path
) -> None:
    path = float_bundle.path
    figures = json.loads(run("evaluate", path, "--data", data, "--against", path, "--json").stdout)
    examples = read_examples(data)
    runtime = Runtime.of(float_bundle)
    logits = np.concatenate([runtime.logits([runtime.encode(text)]) for text in examples.texts])
    given, (_, truth) = float_bundle.task.decide(logits), labelled_rows(float_bundle.task, examples)
    assert figures["accuracy"] == pytest.approx((given == truth).all(axis=1).mean())
    assert figures["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, given, average="macro"))
    assert figures["agreement"] == 1
    assert "exact match" in run("compare", path).stdout
    (entry,) = json.loads(run("compare", path, "--data", data, "--json").stdout)["entries"]
    assert entry["micro_f1"] == pytest.approx(figures["micro_f1"])
    assert "multi-label-text-classification" in run("inspect", path).stdout


def test_a_file_with_joined_labels_says_the_same_as_one_with_lists(
    float_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    joined = tmp_path / "joined.csv"
    with joined.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in map(json.loads, data.read_text("utf-8").splitlines()):
            writer.writerow([row["text"], "; ".join(row["label"]) or ";"])
    lists = json.loads(run("evaluate", float_bundle.path, "--data", data, "--json").stdout)
    separated = run("evaluate", float_bundle.path, "--data", joined, "--label-separator", ";", "--json")
    assert json.loads(separated.stdout) == lists
    refused = run("evaluate", float_bundle.path, "--data", joined)
    assert refused.exit_code == 1
    assert "with ';' between them: pass --label-separator ';'" in " ".join(refused.output.split())


def test_parquet_has_lists_of_labels(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["a", "b", "c"], "label": [["x", "y"], [], None]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert read_examples(tmp_path / "rows.parquet").labels == (("x", "y"), (), None)


def test_an_empty_cell_is_no_label_known_and_a_separator_alone_is_none_given(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,x|y\nb,|\nc,\nd,x\n", "utf-8")
    assert read_examples(path, Columns(label_separator="|")).labels == (("x", "y"), (), None, ("x",))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["card_arrival", "refund"], "rows.jsonl: line 2: labels that the model does not have: 'refund'"),
        (["card_arrival", ""], "line 2: has a list in 'label' with nothing in one of its places"),
    ],
)
def test_a_label_that_cannot_be_used_is_named_with_its_row(
    float_bundle: Bundle, tmp_path: Path, labels: list[str], message: str
) -> None:
    rows = [{"text": "a", "label": ["card_arrival"]}, {"text": "b", "label": labels}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    result = run("evaluate", float_bundle.path, "--data", tmp_path / "rows.jsonl")
    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")


def test_rows_of_one_label_each_are_a_doubt_that_is_said(float_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,card_arrival\nb,change_pin\n", "utf-8")
    result = run("evaluate", float_bundle.path, "--data", tmp_path / "rows.csv")
    assert result.exit_code == 0, result.output
    assert "warning" in result.stderr
    assert "--label-separator" in result.stderr


def test_a_model_of_one_label_refuses_rows_of_several(sentiment_parent: Path, tmp_path: Path) -> None:
    row = {"text": "good", "label": ["positive", "negative"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), "utf-8")
    result = run("evaluate", sentiment_parent, "--data", tmp_path / "rows.jsonl")
    assert result.exit_code == 1
    assert "line 1: has 2 labels, and the model gives one label to a text" in result.output


def test_the_kind_comes_from_the_config(several_parent: Path, tmp_path: Path) -> None:
    assert load_parent(str(several_parent)).task == TASK
    shutil.copytree(several_parent, tmp_path / "parent")
    path = tmp_path / "parent" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"problem_type": None}), "utf-8")
    assert not load_parent(str(tmp_path / "parent")).task.several


def test_training_says_micro_f1(encoder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples, options = read_examples(data), FinetuneOptions(epochs=1, learning_rate=3e-3)  # in bf16 where there is it
    figures = finetune(str(encoder), examples, examples, tmp_path / "out", options)
    assert set(figures) == {"micro_f1", "loss"}
    assert "validation micro F1 " in capsys.readouterr().err
    model = load_classifier(str(tmp_path / "out"))
    measured = quality(predict(model, examples.texts, ""), model.task, examples)
    assert measured.micro_f1 == pytest.approx(figures["micro_f1"], abs=0.02)


def test_label_smoothing_is_refused(encoder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label smoothing is for one label to a text"):
        finetune(str(encoder), read_examples(data), None, tmp_path / "out", FinetuneOptions(label_smoothing=0.1))


def rows_of(*labels: Sequence[str]) -> Examples:
    return Examples(tuple(map(str, range(len(labels)))), tuple(map(tuple, labels)), (None,) * len(labels))


def test_a_threshold_is_the_one_of_the_highest_f1_and_a_half_where_few_texts_say_so() -> None:
    scores = np.array([[0.9, 0.2, 0.4]] * 15 + [[0.2, 0.1, 0.1]] * 15)
    examples = rows_of(*[LABELS[:2]] * 9, *[(*LABELS[:2], LABELS[2])] * 6, *[()] * 15)
    fitted = fit_thresholds(TASK, TASK.logits_of(scores).astype(np.float32), examples)
    assert fitted.thresholds == pytest.approx((0.5, 0.15, 0.5))
    assert quality(TASK.logits_of(scores).astype(np.float32), fitted, examples).accuracy == 24 / 30


def test_differences_of_micro_f1_are_those_of_the_plain_figures() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((300, 4)) < 0.3
    parent, bundle = (truth ^ (rng.random(truth.shape) < share) for share in (0.05, 0.1))
    result = compare_answers(truth, parent, bundle, several=True)
    assert result.micro_f1 is not None
    one, other = (f1_score(truth, answers, average="micro") for answers in (parent, bundle))
    assert result.micro_f1.value == pytest.approx(other - one)
    assert result.micro_f1.low < other - one < result.micro_f1.high
    assert result.accuracy.value == pytest.approx((bundle == truth).all(1).mean() - (parent == truth).all(1).mean())


def test_doubt_of_learning_begins_near_the_best_constant_answer() -> None:
    labels = [("a", "b"), ("a",), ("a",), ()]  # all get a: 2 x 3 / (4 + 4)
    assert "where 'a' for every row has 75 %" in str(doubt_of_learning(0.79, labels, "rows"))
    assert doubt_of_learning(0.81, labels, "rows") is None
