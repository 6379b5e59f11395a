from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.compression.chinese import train_chinese_parent
from benchmarks.compression.common import measure_all, paired_interval
from benchmarks.compression.peer import PEERS
from benchmarks.compression.run import RESULTS
from benchmarks.compression.table import markdown
from compression.bundle import Bundle
from compression.data import Examples
from compression.parent.checkpoint import Parent, load_parent
from compression.prune.vocabulary import prune_parent_vocabulary


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


def test_the_chinese_parent_reads_characters_and_is_trained_once(tmp_path: Path) -> None:
    texts = ["送餐很快KFC味道好", "菜都凉了太难吃", "KFC好吃还会再来", "等了很久味道太差"]
    for split in ("train", "validation"):
        table = pyarrow.table({"text": texts * 2, "label": ["positive", "negative"] * 4})
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    folder = tmp_path / "parent"
    train_chinese_parent(tmp_path, folder)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    train_chinese_parent(tmp_path, folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    parent = load_parent(str(folder))
    assert parent.labels == ("negative", "positive")
    pieces = ["味", "道", "很", "好", "kfc"]
    assert parent.tokenizer.tokenize("味道很好KFC") == pieces
    assert prune_parent_vocabulary(parent, texts[:1], 0).tokenizer.tokenize("味道很好KFC") == pieces
