"""A model that gives a number, from its rows to its bundle and what is said of it."""

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from compression.bundle import Bundle, Number, Runtime, open_bundle
from compression.data import read_examples
from compression.errors import VerificationError
from compression.measure.numbers import (
    number_figures,
    number_rows,
)
from compression.measure.verify import require_budget
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import ParentClassifier, load_classifier, predict
from compression.prune.layers import drop_layers
from compression.prune.observe import fisher_directions
from compression.recipe import Budget
from compression.train.finetune import FinetuneOptions, finetune
from compression.train.lessons import distillation_loss, lessons
from tests.commands import compressed, run, said
from tests.conftest import made_once
from tests.numbers.rows import SCALE, TEXTS
from tests.pages import Page, require_standalone


@pytest.mark.parametrize("kind", ["number_parent", "score_parent"])
def test_a_float_bundle_answers_as_transformers_pipeline(
    workspace: Path, data: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    from transformers import pipeline

    parent: Path = request.getfixturevalue(kind)
    expected = [one["score"] for one in pipeline("text-classification", str(parent))(TEXTS)]
    bundle = compressed(
        workspace, parent, data if kind == "number_parent" else without_labels(workspace, data), "float"
    )
    runtime = Runtime.of(bundle)
    logits = np.concatenate([runtime.logits([runtime.encode(text)]) for text in TEXTS])
    assert isinstance(bundle.task, Number)
    assert bundle.task.function == ("none" if kind == "number_parent" else "sigmoid")
    size = 1e-4 * max(map(abs, expected))
    assert bundle.task.scores(logits)[:, 0] == pytest.approx(expected, abs=size)
    assert max(expected) - min(expected) > 100 * size


def without_labels(workspace: Path, data: Path) -> Path:
    def write(path: Path) -> None:
        with data.open(encoding="utf-8") as rows:
            path.write_text("text\n" + "".join(f"{row['text']}\n" for row in csv.DictReader(rows)), "utf-8")

    return made_once(workspace / "numbers-without-labels.csv", write)


def test_training_gives_numbers_in_their_own_units(number_parent: Path, data: Path) -> None:
    model = load_classifier(str(number_parent))
    examples = read_examples(data)
    given = model.task.scores(predict(model, examples.texts, ""))[:, 0]
    rows, truth = number_rows(examples)
    assert len(rows) == len(given)
    figures = number_figures(truth, given)
    assert figures.spearman is not None
    assert figures.spearman.value > 0.95
    assert figures.mae.value < 0.3 * SCALE


def test_training_goes_on_from_a_head_that_gives_numbers(
    number_parent: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = read_examples(data)
    options = FinetuneOptions(epochs=0.1, learning_rate=1e-9, precision="fp32", number=True)
    figures = finetune(str(number_parent), examples, examples, tmp_path / "out", options)
    assert set(figures) == {"mae", "loss"}
    assert figures["mae"] < 0.3 * SCALE
    assert "validation mean absolute error " in capsys.readouterr().err
    answers = [predict(load_classifier(str(path)), TEXTS, "") for path in (number_parent, tmp_path / "out")]
    assert answers[0] == pytest.approx(answers[1], rel=1e-4)


def test_an_adapter_keeps_the_units(encoder: Path, data: Path, tmp_path: Path) -> None:
    examples = read_examples(data)
    options = FinetuneOptions(epochs=3, batch_size=16, lora_rank=4, learning_rate=1e-2, precision="fp32", number=True)
    figures = finetune(str(encoder), examples, examples, tmp_path / "out", options)
    model = load_classifier(str(tmp_path / "out"))
    given = model.task.scores(predict(model, examples.texts, ""))[:, 0]
    assert np.abs(given - number_rows(examples)[1]).mean() == pytest.approx(figures["mae"], rel=0.02)
    assert load_parent(str(tmp_path / "out")).task == Number(("number",), "none")


def test_the_proof_is_that_of_a_number(float_bundle: Bundle) -> None:
    manifest, figures = float_bundle.manifest, float_bundle.manifest.figures
    assert manifest.task == "text-regression"
    assert manifest.labels == ("number",)
    assert manifest.runtime.temperature == 1
    assert manifest.runtime.batch_exact
    assert figures.agreement == 1
    assert figures.bundle.accuracy is None
    assert figures.bundle.number is not None
    assert figures.bundle.number.spearman is not None
    assert figures.bundle.number.spearman.low < figures.bundle.number.spearman.value
    assert figures.differences is not None
    assert figures.differences.mae.value == pytest.approx(0, abs=1e-3)
    assert figures.deviation is not None
    assert figures.deviation.spearman == pytest.approx(1, abs=1e-4)
    assert manifest.runtime.number is not None
    assert figures.deviation.tolerance == pytest.approx(0.2 * manifest.runtime.number.spread)
    assert figures.calibration is None
    assert figures.classes == ()
    assert all(step.spearman is not None for step in figures.steps)
    page = (float_bundle.path / "report.html").read_text("utf-8")
    for sentence in ("mean absolute error (95 %)", "Spearman, difference (95 %)", "The number</h2>"):
        assert sentence in page
    assert "no labels" not in page
    require_standalone(page)
    assert sum(dict(found).get("class") == "point" for tag, found in Page(page).tags if tag == "circle") == min(
        1000, manifest.data.test_texts
    )
    assert "accuracy" not in page.replace("max_accuracy_drop", "")
    assert "A model that gives a text a number, compressed" in (float_bundle.path / "README.md").read_text("utf-8")


@pytest.mark.parametrize("recipe", ["safe", "balanced", "gpu"])
def test_smaller_bundles_keep_their_numbers(workspace: Path, number_parent: Path, data: Path, recipe: str) -> None:
    figures = compressed(workspace, number_parent, data, recipe).manifest.figures
    assert figures.deviation is not None
    assert figures.deviation.spearman is not None
    assert figures.deviation.spearman > 0.98
    assert figures.bundle.number is not None
    assert figures.bundle.number.mae.value < 0.4 * SCALE


EVERY_STEP = """
schema_version: 1
name: every step
steps:
  - {step: drop_layers, count: 1}
  - {step: sparsify, score: movement, sparsity: 0.3}
  - {step: recover, epochs: 1, quantization_aware: true}
  - {step: export}
  - {step: quantize, min_agreement: 0.5}
"""


@pytest.mark.parametrize("kind", ["number_parent", "score_parent"])
def test_every_step_takes_numbers(workspace: Path, data: Path, kind: str, request: pytest.FixtureRequest) -> None:
    recipe = made_once(workspace / "every-step.yaml", lambda path: path.write_text(EVERY_STEP, "utf-8"))
    parent, rows = request.getfixturevalue(kind), without_labels(workspace, data)
    out = workspace / f"every-step-{kind}"
    result = run("compress", parent, "--data", rows, "--recipe", recipe, "--out", out, "--cache", workspace / "kept")
    assert result.exit_code == 0, result.output
    figures = open_bundle(out).manifest.figures
    assert figures.deviation is not None
    assert figures.deviation.spearman is not None
    assert figures.deviation.spearman > 0.9
    assert figures.differences is None
    assert "no labels" in (out / "report.html").read_text("utf-8")


def test_a_lesson_is_the_same_in_any_units(number_parent: Path, data: Path) -> None:
    texts = read_examples(data).texts[:40]
    parent = load_parent(str(number_parent))
    assert isinstance(parent.task, Number)
    spread = float(parent.task.scores(predict(ParentClassifier(parent), texts, "")).std())
    student = drop_layers(parent, texts, 1)

    def losses(factor: float) -> list[float]:
        task = Number(parent.labels, "none", factor * spread)
        teaching, learning = (replace(one, model=copy.deepcopy(one.model), task=task) for one in (parent, student))
        for model in (teaching.model, learning.model):
            model.classifier.weight.data *= factor
            model.classifier.bias.data *= factor
        with torch.no_grad():
            return [float(distillation_loss(learning.model, one)) for one in lessons(teaching, learning, texts)]

    assert losses(0.01) == pytest.approx(losses(1.0), rel=1e-3)
    assert min(losses(1.0)) > 0
    assert fisher_directions(parent.model, torch.tensor([[3.0], [-1.0]]), torch.Generator())[0].tolist() == [[1], [1]]


def test_evaluate_and_compare_say_what_is_said_of_numbers(
    float_bundle: Bundle, number_parent: Path, data: Path, workspace: Path, tmp_path: Path
) -> None:
    path, examples = float_bundle.path, read_examples(data)
    figures = json.loads(run("evaluate", path, "--data", data, "--against", number_parent, "--json").stdout)
    model = load_classifier(str(path))
    given, (_, truth) = model.task.scores(predict(model, examples.texts, ""))[:, 0], number_rows(examples)
    assert figures["spearman"] == pytest.approx(stats.spearmanr(truth, given)[0])
    assert figures["mae"] == pytest.approx(np.abs(truth - given).mean())
    assert figures["rmse_low"] < figures["rmse"] < figures["rmse_high"]
    assert figures["agreement"] == 1
    assert figures["largest_difference"] < 0.1
    bare = json.loads(
        run("evaluate", number_parent, "--data", without_labels(workspace, data), "--against", path, "--json").stdout
    )
    assert set(bare) == {"texts", "agreement", "spearman_with_other", "mean_difference", "largest_difference"}
    assert bare["agreement"] == 1
    for options in ((), ("--data", data)):
        table = run("compare", path, *options)
        assert table.exit_code == 0, table.output
        assert {"Spearman", "MAE", "RMSE"} <= set(table.stdout.split())
        assert "accuracy" not in table.stdout
    assert run("compare", path, "--html", tmp_path / "compare.html").exit_code == 0
    page = (tmp_path / "compare.html").read_text("utf-8")
    require_standalone(page)
    assert {"Spearman's correlation", "Mean absolute error"} <= set(Page(page).texts_of("h3"))
    assert "No text has a label" not in page
    assert "accuracy" not in page.lower()
    (entry,) = json.loads(run("compare", path, "--data", data, "--json").stdout)["entries"]
    assert entry["number"]["mae"]["value"] == pytest.approx(figures["mae"])
    assert "text-regression" in run("inspect", path).stdout
    assert run("bench", path, "--batches", "1", "--tokens", "8", "--rounds", "2").exit_code == 0


def test_the_budget_is_of_the_number(float_bundle: Bundle, number_parent: Path, data: Path, tmp_path: Path) -> None:
    figures = float_bundle.manifest.figures
    number = figures.bundle.number
    assert number is not None
    assert number.spearman is not None
    worse = number.model_copy(
        update={
            "spearman": number.spearman.model_copy(update={"value": number.spearman.value - 0.03}),
            "mae": number.mae.model_copy(update={"value": number.mae.value + 2.5}),
        }
    )
    changed = figures.model_copy(update={"bundle": figures.bundle.model_copy(update={"number": worse})})
    require_budget(changed, Budget(max_spearman_drop=0.035, max_mae_rise=2.6))
    with pytest.raises(VerificationError, match=r"correlation dropped by 0\.03\d*, above max_spearman_drop 0\.02"):
        require_budget(changed, Budget(max_spearman_drop=0.02))
    with pytest.raises(VerificationError, match=r"error rose by 2\.5, above max_mae_rise 2"):
        require_budget(changed, Budget(max_mae_rise=2.0))
    refused = run(
        "compress", number_parent, "--data", data, "--out", tmp_path / "out", "--budget", "max_accuracy_drop=1"
    )
    assert "gives a number to a text; bound it by max_spearman_drop or max_mae_rise" in said(refused)
    assert not (tmp_path / "out").exists()


def test_a_search_keeps_bounds_of_the_number(number_parent: Path, data: Path, tmp_path: Path) -> None:
    bounds = ("--budget", "max_mae_rise=30", "--budget", "max_spearman_drop=0.2", "--trials", "2")
    result = run(
        "compress", number_parent, "--data", data, "--out", tmp_path / "out", "--cache", tmp_path / "kept", *bounds
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "search.json").read_text("utf-8"))
    assert all(trial["mae_rise"] is not None and trial["accuracy_drop"] is None for trial in record["trials"])
