import numpy as np
import pytest

from benchmarks.compression.common import measure_all, paired_interval
from benchmarks.compression.peer import PEERS
from benchmarks.compression.run import RESULTS
from benchmarks.compression.table import markdown
from compression.bundle import Bundle
from compression.checkpoint import Parent
from compression.data import Examples


def test_a_model_is_measured_against_its_parent(parent: Parent, sentiment_bundle: Bundle) -> None:
    texts = tuple(f"{word} service number {n}" for n in range(20) for word in ("great", "awful"))
    test = Examples(texts, ("positive", "negative") * 20, (None,) * 40)
    reference, row = measure_all(parent, [sentiment_bundle.path], test)
    assert (reference.difference, reference.agreement, reference.flips) == (0, 1, 0)
    assert row.accuracy > 0.9
    assert row.flips == 0
    assert row.batch_deviation < 1e-4
    files = [sentiment_bundle.model_path, sentiment_bundle.tokenizer_path]
    assert row.disk_mb == pytest.approx(sum(file.stat().st_size for file in files) / 1e6, abs=0.0006)
    assert [speed.ratio.median for speed in reference.speeds] == [1.0, 1.0, 1.0]


def test_the_interval_is_of_the_difference_on_the_same_texts() -> None:
    expected = np.arange(1000) < 900
    same = paired_interval(expected, expected)
    assert same == (0, 0)  # two independent samples would differ
    worse = expected.copy()
    worse[:50] = False
    low, high = paired_interval(worse, expected)
    assert low < -5 < high < 0


def test_every_peer_has_a_script_and_pinned_requirements() -> None:
    for peer in PEERS:
        assert peer.script.is_file()
        assert "torch==2.13.0" in peer.requirements.read_text("utf-8")


def test_the_committed_table_is_as_the_results_are() -> None:
    assert (RESULTS / "README.md").read_text("utf-8") == markdown(RESULTS)
