import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression.bundle import Bundle, Runtime, TextClassifier, open_bundle, softmax
from compression.data import Columns, read_examples, split_examples
from compression.errors import DataError, RecipeError, VerificationError
from compression.measure.evaluate import evaluate
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import ParentClassifier
from compression.pipeline import compress
from compression.recipe import Budget, ExportStep, QuantizeStep, Recipe, load_recipe
from tests.conftest import SENTIMENT, write_rows

pytestmark = pytest.mark.slow


def test_bundle_holds_what_the_design_says(sentiment_bundle: Bundle) -> None:
    names = {path.name for path in sentiment_bundle.path.iterdir()}
    assert names == {"model.onnx", "tokenizer.json", "bundle.json", "golden.json", "report.html", "README.md"}


def test_bundle_agrees_with_its_parent(sentiment_bundle: Bundle) -> None:
    figures = sentiment_bundle.manifest.figures
    assert figures.agreement >= 0.97
    assert figures.parent.accuracy is not None
    assert figures.bundle.accuracy is not None
    assert figures.bundle.accuracy >= figures.parent.accuracy - 0.02
    assert figures.max_logit_difference > 0  # int8 is not float


def test_int8_is_a_fraction_of_the_parent(sentiment_bundle: Bundle) -> None:
    model = sentiment_bundle.model_path.read_bytes()
    assert b"MatMulIntegerToFloat" in model
    assert sentiment_bundle.manifest.runtime.batch_exact


def test_a_text_gets_the_same_answer_alone_and_in_twenty_random_batches(intent_bundle: Bundle) -> None:
    runtime = Runtime.of(intent_bundle)  # three labels and mixed texts: its scores are sensitive
    choose = random.Random(0)
    words = ["the", "bank", "my", "card", "is", "in", "post", "or", "lost", "change", "a", "pin", "number", "xyz"]
    texts = [" ".join(choose.choices(words, k=choose.randint(1, 60))) for _ in range(200)]
    encoded = [runtime.encode(text) for text in texts]
    alone = np.concatenate([runtime.logits([one]) for one in encoded])
    for _ in range(20):
        batch = choose.sample(range(len(texts)), choose.randint(2, 48))
        together = runtime.logits([encoded[index] for index in batch])
        assert (together.argmax(1) == alone[batch].argmax(1)).all()
        assert np.abs(softmax(together) - softmax(alone[batch])).max() <= 1e-4


def test_same_inputs_give_the_same_version(sentiment_bundle: Bundle, sentiment_parent: Path, sentiment_data: Path,
                                         tmp_path: Path) -> None:  # fmt: skip
    again = compress(str(sentiment_parent), sentiment_data, load_recipe("safe"), tmp_path / "again")
    assert again.manifest.files["model.onnx"] == sentiment_bundle.manifest.files["model.onnx"]
    assert again.version == sentiment_bundle.version
    assert again.manifest.digest() != sentiment_bundle.manifest.digest()  # it ran in another time


def test_float_recipe_keeps_the_logits(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> None:
    bundle = compress(str(sentiment_parent), sentiment_data, load_recipe("float"), tmp_path / "float")
    assert bundle.manifest.figures.max_logit_difference < 1e-3
    for latency in bundle.manifest.figures.latency:  # of the parent as it is in this bundle
        assert latency.onnx_ratio is not None
        assert latency.onnx_ratio > 0


def test_labels_are_not_needed(sentiment_parent: Path, tmp_path: Path) -> None:
    data = tmp_path / "texts.csv"
    rows = [f"{word} service number {n}" for n in range(20) for word in ("great", "awful", "my")]
    data.write_text("text\n" + "\n".join(rows) + "\n", "utf-8")
    bundle = compress(str(sentiment_parent), data, load_recipe("safe"), tmp_path / "bundle")
    assert bundle.manifest.figures.bundle.accuracy is None
    assert bundle.manifest.data.labelled_test_texts == 0
    assert bundle.manifest.runtime.temperature == 1.0


def test_a_threshold_to_abstain_below_is_chosen_on_selection_texts_where_there_are_enough(
    sentiment_parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "rows.csv", SENTIMENT, 2000, seed=7)
    bundle = compress(str(sentiment_parent), data, load_recipe("float"), tmp_path / "bundle", answer_error=0.1)
    assert "abstains from no answer" not in capsys.readouterr().err
    abstain, selective = bundle.manifest.runtime.abstain, bundle.manifest.figures.selective
    assert abstain is not None
    assert selective is not None
    assert abstain.error == 0.1
    examples = read_examples(data)
    splits = split_examples(examples, data)
    said = TextClassifier(bundle)(splits.test.texts, calibrated=True)
    assert sum(not answer.abstained for answer in said) == selective.answered
    right = [answer.label == label for answer, label in zip(said, splits.test.labels, strict=True)]
    assert sum(one for one, answer in zip(right, said, strict=True) if not answer.abstained) == selective.right
    chosen = TextClassifier(bundle)(splits.selection.texts, calibrated=True)
    assert min(answer.score for answer in chosen if not answer.abstained) == pytest.approx(abstain.below)


def test_texts_outside_count_as_errors_and_are_told_from_the_others(sentiment_parent: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv", SENTIMENT, 1500, seed=7)
    others = write_rows(tmp_path / "others.csv", {"oos": ["thief", "envelope", "digits"]}, 300, seed=8)
    with data.open("a", encoding="utf-8") as file:
        file.writelines(others.read_text("utf-8").splitlines(keepends=True)[1:])
    with pytest.raises(DataError, match=r"does not have: 'oos'.*--outside-label"):
        compress(str(sentiment_parent), data, load_recipe("float"), tmp_path / "bundle")
    columns = Columns(outside_labels=("positive", "oos"))
    with pytest.raises(DataError, match="has the label 'positive', so its texts are not outside"):
        compress(str(sentiment_parent), data, load_recipe("float"), tmp_path / "bundle", columns)
    columns = Columns(outside_labels=("oos",))
    bundle = compress(str(sentiment_parent), data, load_recipe("float"), tmp_path / "bundle", columns, answer_error=0.3)
    test = split_examples(read_examples(data, columns), data).test
    abstain, selective = bundle.manifest.runtime.abstain, bundle.manifest.figures.selective
    assert abstain is not None
    assert selective is not None
    assert selective.outside is not None
    assert selective.texts == len(test)
    assert selective.outside.texts == sum(test.outside)
    said = TextClassifier(bundle)(test.texts)
    abstained = [answer.abstained for answer, out in zip(said, test.outside, strict=True) if out]
    assert selective.outside.abstained == sum(map(bool, abstained))
    assert 0.6 < selective.outside.bundle_auroc.value < 1
    assert selective.outside.parent_auroc.value == pytest.approx(selective.outside.bundle_auroc.value, abs=0.01)
    assert "AUROC, inside against outside" in (bundle.path / "README.md").read_text("utf-8")
    figures = evaluate(str(bundle.path), test, data)
    assert figures["selective_accuracy"] == pytest.approx(selective.right / selective.answered)


def test_the_temperature_is_of_selection_texts_where_there_are_enough(sentiment_parent: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", SENTIMENT, 800, seed=9).read_text("utf-8").splitlines()
    other = {"positive": "negative", "negative": "positive"}
    splits = ["calibration"] * 300 + ["selection"] * 250 + ["test"] * 250
    lines = ["text,label,split"]
    for row, split in zip(rows[1:], splits, strict=True):
        text, label = row.rsplit(",", 1)
        lines.append(f"{text},{other[label] if split == 'calibration' else label},{split}")
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n", "utf-8")
    bundle = compress(str(sentiment_parent), tmp_path / "split.csv", load_recipe("float"), tmp_path / "bundle")
    assert bundle.manifest.runtime.temperature < 5  # with those that calibrate, it would be the highest there is


def test_too_few_labels_choose_no_threshold_and_that_is_said(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = compress(str(sentiment_parent), sentiment_data, load_recipe("float"), tmp_path / "bundle")
    said = " ".join(capsys.readouterr().err.split())
    assert f"on {bundle.manifest.data.selection_texts} selection texts with labels, that at most 5 % of what" in said
    assert "takes 59 without an error. Add texts, or allow more than --answer-error 0.05" in said
    assert bundle.manifest.runtime.abstain is None
    assert bundle.manifest.figures.selective is not None


def test_labels_that_the_parent_does_not_have_are_refused(sentiment_parent: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text,label\ngood,positive\nwell,neutral\n" + "bad,negative\n" * 4, "utf-8")
    with pytest.raises(DataError, match=r"'neutral'.*--ignore-label"):
        compress(str(sentiment_parent), data, load_recipe("safe"), tmp_path / "bundle")


def test_outside_the_budget_nothing_is_written(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(schema_version=1, name="tiny", steps=(ExportStep(step="export"),), budget=Budget(min_speedup=1000))
    with pytest.raises(VerificationError, match=r"below min_speedup 1000\.0\. Cut more: .*--budget min_speedup=\d"):
        compress(str(sentiment_parent), sentiment_data, recipe, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    assert "What was reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "budget", "message"),
    [
        ([{"step": "export"}], {"max_size_mb": 0.001}, r"lost after the step export.*above max_size_mb 0\.001"),
        (
            [{"step": "sparsify", "sparsity": 0.99, "score": "magnitude"}, {"step": "export"}],
            {"min_agreement": 0.99},
            r"lost after the step sparsify.*below min_agreement 0\.99\. Cut less",
        ),
    ],
)
def test_a_lost_candidate_is_not_judged(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    steps: list[dict[str, Any]], budget: dict[str, float], message: str,
) -> None:  # fmt: skip
    recipe = Recipe.model_validate({"schema_version": 1, "name": "lost", "steps": steps, "budget": budget})
    with pytest.raises(VerificationError, match=message):
        compress(str(sentiment_parent), sentiment_data, recipe, tmp_path / "bundle")
    said = capsys.readouterr().err
    assert said.index("Recipe lost: looks at no texts") < said.index("Step ") < said.index("What was reached")
    assert "Judge the bundle" not in said


def test_float_layers_stay_in_float(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> None:
    steps = (ExportStep(step="export"), QuantizeStep(step="quantize", float_layers=("intermediate",)))
    recipe = Recipe(schema_version=1, name="mixed", steps=steps)
    mixed = compress(str(sentiment_parent), sentiment_data, recipe, tmp_path / "mixed")
    assert b"intermediate/dense/MatMul_weight_i8" not in mixed.model_path.read_bytes()
    assert b"query/MatMul_weight_i8" in mixed.model_path.read_bytes()


def test_a_pattern_that_matches_nothing_fails(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> None:
    steps = (ExportStep(step="export"), QuantizeStep(step="quantize", float_layers=("encoder.layer.99",)))
    recipe = Recipe(schema_version=1, name="wrong", steps=steps)
    with pytest.raises(RecipeError, match=r"encoder\.layer\.99"):
        compress(str(sentiment_parent), sentiment_data, recipe, tmp_path / "bundle")


def test_an_older_bundle_is_replaced_whole(sentiment_bundle: Bundle, sentiment_parent: Path, sentiment_data: Path,
                                           tmp_path: Path) -> None:  # fmt: skip
    out = tmp_path / "bundle"
    compress(str(sentiment_parent), sentiment_data, load_recipe("float"), out)
    compress(str(sentiment_parent), sentiment_data, load_recipe("safe"), out)
    assert open_bundle(out).manifest.recipe["name"] == "safe"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


ALL: dict[str, list[dict[str, Any]]] = {
    "pruned": [
        {"step": "prune_vocabulary", "keep_most_frequent": 0},
        {"step": "drop_layers", "count": 1},
        {"step": "prune_structure", "keep": 0.6},
        {"step": "recover", "epochs": 1},
        {"step": "export"},
        {"step": "quantize", "min_agreement": 0.9},
    ],
    "sparse": [{"step": "sparsify", "sparsity": 0.6}, {"step": "export"}, {"step": "quantize"}],
    "dynamic": [{"step": "export"}, {"step": "quantize_dynamic"}],
    "weights": [{"step": "export"}, {"step": "quantize_weights", "bits": 4}],
    "half": [{"step": "export"}, {"step": "float16"}],
}


def recipe(name: str, **more: object) -> Recipe:
    return Recipe.model_validate({"schema_version": 1, "name": name, "steps": ALL[name], **more})


@pytest.mark.parametrize("name", ALL)
def test_every_step_makes_a_bundle_that_agrees(
    name: str, sentiment_parent: Path, sentiment_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = compress(str(sentiment_parent), sentiment_data, recipe(name), tmp_path / name)
    assert ("served one text at a time" in capsys.readouterr().err) == (name == "dynamic")
    figures = bundle.manifest.figures
    assert figures.agreement >= 0.9
    assert figures.bundle.size_mb < figures.parent.size_mb
    assert [step.step for step in figures.steps] == [step["step"] for step in ALL[name]]
    assert Runtime.of(open_bundle(tmp_path / name)).logits([Runtime.of(bundle).encode("a good day")]).shape == (1, 2)
    assert bundle.manifest.runtime.batch_exact == (name != "dynamic")


def test_zeros_pay_when_stored_compressed(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> None:
    plain = compress(str(sentiment_parent), sentiment_data, recipe("sparse"), tmp_path / "plain")
    packed = compress(str(sentiment_parent), sentiment_data, recipe("sparse", storage="zstd"), tmp_path / "packed")
    assert packed.manifest.figures.bundle.size_mb < 0.8 * plain.manifest.figures.bundle.size_mb
    assert packed.model_path.name == "model.onnx.zst"
    texts = [Runtime.of(plain).encode(text) for text in ("a good day", "an awful bank")]
    np.testing.assert_array_equal(Runtime.of(plain).logits(texts), Runtime.of(packed).logits(texts))


def test_a_second_run_takes_finished_steps_from_the_cache(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    first = compress(str(sentiment_parent), sentiment_data, recipe("pruned"), tmp_path / "a", cache=tmp_path / "cache")
    assert not any(step.cached for step in first.manifest.figures.steps)
    again = compress(str(sentiment_parent), sentiment_data, recipe("pruned"), tmp_path / "b", cache=tmp_path / "cache")
    assert all(step.cached for step in again.manifest.figures.steps)
    assert again.version == first.version
    steps = [*ALL["pruned"][:-1], {"step": "quantize", "embedding_bits": None}]
    other = compress(
        str(sentiment_parent), sentiment_data,
        Recipe.model_validate({"schema_version": 1, "name": "other", "steps": steps}), tmp_path / "c",
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert [step.cached for step in other.manifest.figures.steps] == [True] * 5 + [False]


def test_a_damaged_cache_is_done_again(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> None:
    first = compress(str(sentiment_parent), sentiment_data, recipe("sparse"), tmp_path / "a", cache=tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("model.*"):
        path.write_bytes(path.read_bytes()[:100])
    again = compress(str(sentiment_parent), sentiment_data, recipe("sparse"), tmp_path / "b", cache=tmp_path / "cache")
    assert not any(step.cached for step in again.manifest.figures.steps)
    assert again.manifest.files["model.onnx"] == first.manifest.files["model.onnx"]


def test_one_text_is_too_little(sentiment_parent: Path, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("text\na good day\n", "utf-8")
    with pytest.raises(DataError, match="each part needs some"):
        compress(str(sentiment_parent), tmp_path / "one.csv", load_recipe("safe"), tmp_path / "bundle")


def test_corrected_settings_make_the_steps_anew(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "parent")
    compress(str(tmp_path / "parent"), sentiment_data, recipe("half"), tmp_path / "a", cache=tmp_path / "cache")
    path = tmp_path / "parent" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 1e-3}))
    again = compress(str(tmp_path / "parent"), sentiment_data, recipe("half"), tmp_path / "b", cache=tmp_path / "cache")
    assert not any(step.cached for step in again.manifest.figures.steps)


def test_a_parent_that_keeps_the_end_of_a_text_makes_a_bundle_that_does(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "parent")
    path = tmp_path / "parent" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation_side": "left"}))
    bundle = compress(str(tmp_path / "parent"), sentiment_data, load_recipe("float"), tmp_path / "bundle")
    text = "awful " * 100 + "great " * 30
    parent = ParentClassifier(load_parent(str(tmp_path / "parent")))
    runtime = Runtime.of(bundle)
    encoded = runtime.encode(text)
    assert encoded.truncated
    assert encoded.ids == parent.encode(text).ids
    np.testing.assert_allclose(runtime.logits([encoded]), parent.forward([parent.encode(text)]), atol=1e-4)
