"""An engine with several sessions."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compression.bundle import Encoded, Logits, Runtime
from service.engine import devices
from service.engine.engine import Engine
from tests.handmade import make_bundle


def test_each_thread_keeps_to_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "placements", lambda *_: [["CPUExecutionProvider"], ["CPUExecutionProvider"]])
    several = Engine(make_bundle(tmp_path / "bundle"))
    used: set[tuple[int, Runtime]] = set()
    compute = Runtime.logits

    def logits(runtime: Runtime, batch: list[Encoded]) -> Logits:
        used.add((threading.get_ident(), runtime))
        return compute(runtime, batch)

    monkeypatch.setattr(Runtime, "logits", logits)
    several.verify()
    several.warm_up()
    assert len(used) == 2  # both were, on this thread
    used.clear()
    together = threading.Barrier(2)

    def work() -> None:
        together.wait()
        for _ in range(3):
            several.infer([several.encode("good")])

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work) for _ in range(2)]:
            done.result()
    assert len(used) == len({thread for thread, _ in used}) == len({runtime for _, runtime in used}) == 2
