"""Nothing that was accepted is lost while versions change, crowds come and the worker is killed: the short form of
benchmarks/serving/faults.py."""

import asyncio
import json
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from benchmarks.serving.faults import LATE, REJECTED, Faults, Plan, prepare
from compression.bundle import Bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration


def test_nothing_that_was_accepted_is_lost(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    settings = prepare(sentiment_bundle.path, tmp_path / "bundles") | {"LATHE_QUEUE_TEXTS": "100"}
    with serve(tmp_path / "service.log", settings) as service:
        faults = Faults(
            service.url, psutil.Process(service.process.pid), Plan(load=0.7, crowd=1.5, kill=5.0, clients=40)
        )
        seen = asyncio.run(faults.run(4000))
    assert (seen.lost, seen.wrong) == (0, 0), seen
    assert set(seen.answers) <= {200, REJECTED, LATE}
    assert min(seen.faults[kind] for kind in ("load", "crowd", "kill")) >= 1, seen
    assert seen.answers[REJECTED] > 0
    assert seen.left > 0
    assert json.loads(json.dumps(seen.figures()))["answers"]["200"] == seen.answers[200]
    assert " [ERROR] " not in (tmp_path / "service.log").read_text("utf-8")
