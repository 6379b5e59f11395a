"""A model that reads pairs of texts, from its rows to its bundle."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

import lathe
from compression.bundle import Bundle, read_golden
from compression.data import read_examples
from compression.errors import CheckpointError
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import load_classifier, predict
from compression.parent.inputs import require_reads
from compression.task import open_task
from compression.train.finetune import FinetuneOptions, finetune
from tests.commands import compressed, done
from tests.conftest import made_once
from tests.pairs.rows import COLUMNS, PAIRED, PAIRS, Pair, write_rows


def expected_scores(parent: Path, pairs: list[Pair]) -> list[dict[str, float]]:
    """What transformers' pipeline gives, by label."""
    classify = pipeline("text-classification", str(parent), top_k=None)
    given = [{"text": one, "text_pair": two} for one, two in pairs]
    return [{one["label"]: one["score"] for one in answer} for answer in classify(given, truncation=True)]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_float_bundle_answers_as_transformers_pipeline(
    workspace: Path, data: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    parent: Path = request.getfixturevalue(kind)
    bundle = compressed(workspace, parent, data, "float", *PAIRED)
    answers = lathe.load(bundle.path)(PAIRS, top_k=None)
    for answer, expected in zip(answers, expected_scores(parent, PAIRS), strict=True):
        assert answer.scores == pytest.approx(expected, abs=1e-4)
    assert [answer.truncated for answer in answers[-2:]] == [True, True]
    assert abs(answers[0].scores["first"] - answers[1].scores["first"]) > 0.01  # the order of the texts counts
    assert bundle.manifest.inputs == "pairs"


def test_training_learns_from_both_texts(bert: Path, data: Path) -> None:
    model = load_classifier(str(bert))
    examples = read_examples(write_rows(data.with_name("pairs-unseen.csv"), 200, seed=7), COLUMNS)
    right = predict(model, examples.texts, "").argmax(1) == [
        model.task.labels.index(str(one)) for one in examples.labels
    ]
    assert right.mean() > 0.95


def test_training_gives_the_model_the_types_of_tokens(pair_encoder: Path, data: Path, tmp_path: Path) -> None:
    examples = read_examples(data, COLUMNS).head(100)
    options = FinetuneOptions(epochs=1, learning_rate=1e-3, precision="fp32")
    figures = finetune(str(pair_encoder), examples, examples, tmp_path / "out", options)
    model = load_classifier(str(tmp_path / "out"))
    truth = torch.tensor([model.task.labels.index(str(label)) for label in examples.labels])
    logits = torch.from_numpy(predict(model, examples.texts, ""))
    assert figures["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, truth)), abs=1e-5)


def test_the_bundle_says_what_it_reads(float_bundle: Bundle, workspace: Path) -> None:
    golden = read_golden(float_bundle)
    assert golden is not None
    assert all(isinstance(one, tuple) for one in golden.texts)
    assert json.loads((float_bundle.path / "bundle.json").read_text("utf-8"))["inputs"] == "pairs"
    assert "A classifier of pairs of texts with 2 labels" in (float_bundle.path / "README.md").read_text("utf-8")
    assert "pairs of texts" in done("inspect", float_bundle.path).output
    assert float_bundle.manifest.figures.bundle.accuracy is not None
    assert float_bundle.manifest.figures.bundle.accuracy > 0.95
    assert float_bundle.manifest.figures.agreement == 1
    assert done("bench", float_bundle.path, "--batches", 1, "--tokens", 8, "--rounds", 2)


EVERY_STEP = """
schema_version: 1
name: every step
storage: zstd
steps:
  - {step: prune_vocabulary, keep_most_frequent: 20}
  - {step: drop_layers, count: 1}
  - {step: sparsify, score: movement, sparsity: 0.3}
  - {step: recover, epochs: 1, quantization_aware: true}
  - {step: export}
  - {step: quantize, min_agreement: 0.5, embedding_entropy: 4}
"""


@pytest.mark.parametrize("recipe", ["safe", "balanced", "every-step"])
def test_smaller_bundles_keep_their_answers(workspace: Path, bert: Path, data: Path, recipe: str) -> None:
    path = made_once(
        workspace / "every-step-of-pairs" / "every-step.yaml", lambda path: path.write_text(EVERY_STEP, "utf-8")
    )
    bundle = compressed(
        workspace, bert, data, path if recipe == "every-step" else recipe, *PAIRED, "--budget", "min_agreement=0.5"
    )
    assert bundle.manifest.figures.agreement > 0.95
    assert bundle.manifest.figures.robustness


@pytest.mark.parametrize("kind", ["number", "several"])
def test_pairs_get_numbers_and_several_labels(workspace: Path, pair_encoder: Path, kind: str, tmp_path: Path) -> None:
    labels = {
        "number": lambda is_first: f"{3.0 if is_first else -1.0}",
        "several": lambda is_first: "a;b" if is_first else "b;c",
    }
    rows = write_rows(tmp_path / "rows.csv", 200, 3, labels[kind])
    parent = tmp_path / f"{kind}-parent"
    options = ["--number"] if kind == "number" else ["--label-separator", ";"]
    done(
        "finetune", pair_encoder, "--data", rows, "--out", parent, *PAIRED, *options, "--epochs", 2, "--batch-size", 16,
        "--learning-rate", 3e-3, "--precision", "fp32",
    )  # fmt: skip
    bundle = compressed(tmp_path, parent, rows, "float", *PAIRED, *options[kind == "number" :])
    for answer, expected in zip(
        lathe.load(bundle.path)(PAIRS, top_k=None), expected_scores(parent, PAIRS), strict=True
    ):
        assert answer.scores == pytest.approx(expected, abs=1e-4)


def test_what_was_computed_of_other_pairs_is_not_taken_for_these(bert: Path, data: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(data.read_text("utf-8").splitlines()))
    other = tmp_path / "other.csv"
    with other.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "text_pair", "label"])
        writer.writeheader()
        writer.writerows({**row, "text_pair": row["text_pair"] + " ."} for row in rows)
    keys = {open_task(str(bert), path, COLUMNS, tmp_path).key for path in (data, other)}
    assert len(keys) == 2


# Data


def test_labels_of_pairs_are_not_read_from_single_texts(bert: Path) -> None:
    parent = load_parent(str(bert))
    nli = replace(parent, task=replace(parent.task, labels=("contradiction", "entailment")))
    require_reads(nli, "pairs")
    require_reads(parent, "texts")
    with pytest.raises(CheckpointError, match=r"judges pairs of texts .* name the column .* --text-pair-column"):
        require_reads(nli, "texts")


def test_a_token_type_that_the_model_does_not_know_is_refused(bert: Path) -> None:
    parent = load_parent(str(bert))
    parent.model.config.type_vocab_size = 1
    with pytest.raises(CheckpointError, match="token type 1, and the model knows 1 types"):
        require_reads(parent, "pairs")


def test_a_window_without_room_for_a_pair_is_refused(bert: Path) -> None:
    parent = replace(load_parent(str(bert)), max_length=3)
    with pytest.raises(CheckpointError, match="the 3 special ones of a pair leave no room"):
        require_reads(parent, "pairs")


def test_a_search_takes_pairs(bert: Path, data: Path, tmp_path: Path, workspace: Path) -> None:
    done(
        "compress", bert, "--data", data, *PAIRED, "--budget", "min_agreement=0.5", "--trials", 1, "--out",
        tmp_path / "out", "--cache", workspace / "kept",
    )  # fmt: skip
    assert lathe.load(tmp_path / "out")(PAIRS)[0].label == "first"


def test_a_tokenizer_without_a_frame_for_pairs_is_doubted(
    sentiment_parent: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "a.csv", 60, 1, lambda is_first: "positive" if is_first else "negative")
    open_task(str(sentiment_parent), rows, COLUMNS, tmp_path)
    assert "none around or between the two of a pair" in capsys.readouterr().err
    examples = read_examples(rows, COLUMNS)
    finetune(str(sentiment_parent), examples, None, tmp_path / "out", FinetuneOptions(epochs=0.1, precision="fp32"))
    assert "none around or between the two of a pair" in capsys.readouterr().err


def test_answers_do_not_depend_on_the_batch(float_bundle: Bundle) -> None:
    classify = lathe.load(float_bundle.path)
    together = np.array([answer.score for answer in classify(PAIRS)])
    assert together == pytest.approx(np.array([classify([pair])[0].score for pair in PAIRS]), abs=1e-5)
