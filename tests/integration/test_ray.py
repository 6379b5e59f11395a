"""`lathe score --ray` on a cluster of two nodes writes what `lathe score` writes on one machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compression.bundle import Bundle
from tests.handmade import make_bundle
from tests.service.scoring.test_scoring import texts
from tests.test_stopped import KILLED_AT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = 10_000  # three chunks


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of its head."""
    command = [sys.executable, "-m", "tests.integration.ray_nodes"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [*texts(ROWS - 3), "", "\ud800 good", "good " * 500]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), "utf-8")
    return path


def score(
    bundle: Bundle, source: Path, out: Path, *options: str, start: tuple[str, ...] = ("-m", "lathe")
) -> tuple[int, str]:
    """Exit code and standard error."""
    command = [sys.executable, *start, "score", str(bundle.path), "--in", str(source), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    return done.returncode, done.stderr


def test_two_nodes_write_what_one_machine_does(
    cluster: str, sentiment_bundle: Bundle, source: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert score(sentiment_bundle, source, here)[0] == 0
    code, errors = score(sentiment_bundle, source, there, "--ray", cluster, "--streams", "1")
    assert code == 0, errors
    assert there.read_bytes() == here.read_bytes()
    assert "2 workers on 2 nodes" in errors


def test_pairs_are_scored_there_as_here(cluster: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "pairs", inputs="pairs")
    rows = [{"text": "good", "text_pair": other} for other in ("bad", "good", " ", "bad good", None)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert score(bundle, source, here, "--text-pair-column", "text_pair")[0] == 0
    code, errors = score(bundle, source, there, "--ray", cluster, "--streams", "1", "--text-pair-column", "text_pair")
    assert code == 0, errors
    assert there.read_bytes() == here.read_bytes()
    notes = [json.loads(line)["note"] for line in there.read_text("utf-8").splitlines()]
    assert notes == [None, None, "no_text", None, "no_text"]


def test_a_killed_run_goes_on_even_on_another_machine(
    cluster: str, sentiment_bundle: Bundle, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    killed = ("-c", KILLED_AT, "os.rename", "npz", "2")  # one chunk is kept, and the second about to be
    options = ("--ray", cluster, "--streams", "1")
    assert score(sentiment_bundle, source, out, *options, start=killed)[0] == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in Path(f"{out}.progress").glob("*.npz")}
    assert len(kept) == 1
    code, errors = score(sentiment_bundle, source, out)
    assert code == 0, errors
    assert len(out.read_bytes().splitlines()) == ROWS


def test_mistakes_are_one_sentence(cluster: str, sentiment_bundle: Bundle, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code, errors = score(sentiment_bundle, source, out, "--ray", cluster, "--streams", "64")
    assert code == 1
    assert "no node of the cluster has the 64 cores and 0 GPUs" in errors
    assert "its nodes have 1 cores and 0 GPUs, 1 cores and 0 GPUs" in errors
    code, errors = score(sentiment_bundle, source, out, "--ray", "127.0.0.1:1")
    assert code == 1
    assert "no Ray cluster there" in errors
    assert "Traceback" not in errors
    assert not out.exists()
