"""What ships is as good as its cards say: measured on the public test sets, and on the messages that ship beside it."""

from pathlib import Path

import pytest

from compression.bundle import open_bundle
from compression.data import Columns, read_examples
from compression.measure.evaluate import agreement, batch_invariance, quality
from compression.parent.classifier import load_classifier, predict
from compression.pipeline import compress
from compression.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = ROOT / "examples" / "customer_messages.csv"


def test_the_messages_are_labelled_and_split() -> None:
    sentiment = read_examples(MESSAGES, Columns(label="sentiment"))
    intent = read_examples(MESSAGES, Columns(label="intent"))
    banking = load_classifier(str(ROOT / "models" / "banking-intents"))
    assert len(sentiment) >= 600
    assert set(sentiment.labels) == {"negative", "neutral", "positive"}
    assert {label for label in intent.labels if label} == set(banking.task.labels)
    assert {len(sentiment.of_split(split)) for split in ("calibration", "test")} == {len(sentiment) // 2}
    assert all(3 <= len(text.split()) <= 120 for text in sentiment.single_texts)
    assert len({text.casefold() for text in sentiment.single_texts}) == len(sentiment)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("adapter", "data", "column", "ignored", "least_accuracy", "least_agreement"),
    [
        ("sentiment", "sst2", "sentiment", ("neutral",), 0.90, 0.97),
        ("banking-intents", "banking77", "intent", (), 0.925, 0.97),
    ],
)
def test_adapter_and_bundle_on_the_public_test_set(
    adapter: str, data: str, column: str, ignored: tuple[str, ...], least_accuracy: float, least_agreement: float,
    shared_data: Path, tmp_path: Path,
) -> None:  # fmt: skip
    rows = read_examples(shared_data / data / "test.parquet")
    parent = load_classifier(str(ROOT / "models" / adapter))
    columns = Columns(label=column, ignored_labels=ignored)
    compress(str(ROOT / "models" / adapter), MESSAGES, load_recipe("safe"), tmp_path / "bundle", columns)
    bundle = load_classifier(str(tmp_path / "bundle"))
    expected, got = (predict(model, rows.texts, adapter) for model in (parent, bundle))
    accuracy = quality(expected, parent.task, rows).accuracy
    compressed = quality(got, bundle.task, rows).accuracy
    assert accuracy is not None
    assert compressed is not None
    assert accuracy >= least_accuracy
    assert compressed >= accuracy - 0.01
    assert agreement(expected, got, parent.task) >= least_agreement
    changes, deviation = batch_invariance(bundle, rows.texts[:320])
    assert changes == 0
    assert deviation <= 1e-4
    assert open_bundle(tmp_path / "bundle").manifest.figures.bundle.size_mb < 25
