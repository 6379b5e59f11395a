import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from compression.bundle import Bundle, BundleError
from compression.measure.bench import bench
from compression.measure.machine import this_machine
from lathe import main
from tests.test_imports import BLOCKED


def test_every_shape_is_timed_against_the_parent_of_the_manifest(sentiment_bundle: Bundle) -> None:
    result = bench(sentiment_bundle.path, batches=(1, 3), tokens=(8, 16), rounds=3)
    assert [(timed.batch, timed.tokens) for timed in result.shapes] == [(1, 8), (1, 16), (3, 8), (3, 16)]
    assert result.against == sentiment_bundle.manifest.parent.name
    assert result.version == sentiment_bundle.version
    for timed in result.shapes:
        assert timed.other_ms is not None
        assert timed.ratio is not None
        assert timed.bundle_ms.low <= timed.bundle_ms.median <= timed.bundle_ms.high
        assert timed.ratio.low <= timed.ratio.median <= timed.ratio.high
        assert timed.texts_per_s == pytest.approx(1e3 * timed.batch / timed.bundle_ms.median, rel=0.05)


def test_it_can_be_held_against_another_bundle(sentiment_bundle: Bundle) -> None:
    result = bench(sentiment_bundle.path, (1,), (8,), 2, threads=2, against=str(sentiment_bundle.path))
    assert result.against == str(sentiment_bundle.path)
    assert result.threads == 2


def test_default_lengths_stay_inside_the_window(sentiment_bundle: Bundle) -> None:
    assert sentiment_bundle.manifest.max_length == 64
    assert [timed.tokens for timed in bench(sentiment_bundle.path, (1,), rounds=2).shapes] == [16, 32, 64]


def test_a_length_beyond_the_window_is_refused(sentiment_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="65 tokens do not fit the window of 64"):
        bench(sentiment_bundle.path, (1,), (8, 65), 2)


def test_without_torch_the_bundle_is_timed_alone_and_says_so(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    bundle = shutil.copytree(sentiment_bundle.path, tmp_path / "bundle")
    arguments = ["bench", str(bundle), "--batches", "1,2", "--tokens", "8", "--rounds", "2", "--json"]
    result = subprocess.run(
        [sys.executable, "-c", f"{BLOCKED}\nimport lathe; lathe.main({arguments!r})"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    figures = json.loads(result.stdout)
    assert figures["against"] is None
    assert [timed["batch"] for timed in figures["shapes"]] == [1, 2]
    assert all(timed["ratio"] is None and timed["texts_per_s"] > 0 for timed in figures["shapes"])
    assert "Timed without its parent" in result.stderr


def test_the_machine_is_described() -> None:
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.python == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("value", ["0,8", "1;8", "one", "", "8,"])
def test_a_list_that_is_none_is_refused(value: str, sentiment_bundle: Bundle) -> None:
    result = CliRunner().invoke(main, ["bench", str(sentiment_bundle.path), "--batches", value])
    assert result.exit_code == 2
    assert f"{value!r} is not a list of whole numbers" in result.output
