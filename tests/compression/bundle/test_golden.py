"""Golden answers: kept in the bundle, and compared where it is loaded."""

from pathlib import Path

import numpy as np
import pytest

from compression.bundle import GOLDEN_WITHIN, BundleError, GoldenAnswers, read_golden
from compression.bundle.task import SingleLabel
from service.engine.engine import Engine
from tests.handmade import WORDS, make_bundle, without_golden

TASK = SingleLabel(("no", "yes"))


def logits(*scores: float) -> np.ndarray:
    """Logits whose softmax is these scores and the rest, (texts, 2)."""
    return np.array([[np.log(score), np.log(1 - score)] for score in scores], np.float32)


def golden(*scores: float) -> GoldenAnswers:
    return GoldenAnswers(texts=("",) * len(scores), logits=tuple(map(tuple, logits(*scores).tolist())))


def test_a_bundle_answers_as_it_did(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    kept = read_golden(bundle)
    assert kept is not None
    assert len(kept.texts) == len(kept.logits) == 16
    Engine(bundle).verify()


def test_other_answers_are_refused_and_named(tmp_path: Path) -> None:
    kept = read_golden(make_bundle(tmp_path / "bundle", {**WORDS, "not": (2.0, -2.0)}))
    assert kept is not None
    bundle = make_bundle(tmp_path / "bundle", golden=kept)
    with pytest.raises(BundleError, match=r"bundle: this machine .* text \d+ of 16"):
        Engine(bundle).verify()


def test_a_bundle_without_golden_answers_is_taken(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    bare = without_golden(bundle)
    assert read_golden(bare) is None
    assert bare.version == bundle.version  # what a machine computed is no part of what the bundle is
    Engine(bare).verify()


def test_another_processors_rounding_is_the_same_answer() -> None:
    assert golden(0.9, 0.3).difference(TASK, logits(0.9 - 0.9 * GOLDEN_WITHIN, 0.3 + 0.9 * GOLDEN_WITHIN)) is None
    assert golden(0.505).difference(TASK, logits(0.495)) is None


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (logits(0.9, 0.3 + 1.1 * GOLDEN_WITHIN), "text 2 of 2 is 0.055"),
        (logits(0.9, np.nan), "text 2 of 2 is nan"),
        (logits(0.9), "shape"),
    ],
)
def test_a_difference_is_found(now: np.ndarray, reason: str) -> None:
    assert reason in str(golden(0.9, 0.3).difference(TASK, now))


def test_a_clear_label_must_stay() -> None:
    assert "another label" in str(golden(0.53).difference(TASK, logits(0.485)))
