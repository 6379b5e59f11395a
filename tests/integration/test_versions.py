"""Versions change under load, and SIGTERM is announced before it is obeyed: with the real server."""

import concurrent.futures
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.handmade import make_bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration


def test_versions_change_under_load_without_a_dropped_request_and_sigterm_is_announced(tmp_path: Path) -> None:
    first = make_bundle(tmp_path / "first")
    other = make_bundle(tmp_path / "root" / "other", {"good": (1.0, -1.0), "bad": (-1.0, 1.0)})
    settings = {
        "LATHE_MODELS": f"mine={first.path}", "LATHE_BUNDLES_ROOT": str(tmp_path / "root"),
        "LATHE_DRAIN_PAUSE_MS": "3000",
    }  # fmt: skip
    body = {"model": "mine", "inputs": ["good"] * 4}
    enough, seen = threading.Event(), set()

    with serve(tmp_path / "service.log", settings) as service:

        def ask() -> list[int]:
            statuses = []
            with httpx.Client(base_url=service.url, timeout=60) as client:
                while not enough.is_set():
                    answer = client.post("/v1/classify", json=body)
                    statuses.append(answer.status_code)
                    if answer.status_code == 200:
                        seen.add((answer.json()["version"], answer.json()["results"][0]["label"]))
            return statuses

        def change(name: str, **request: object) -> httpx.Response:
            return httpx.post(f"{service.url}/v1/models/mine/{name}", json=request, timeout=60)

        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(ask) for _ in range(4)]
            try:
                for _ in range(3):
                    assert change("load", bundle="other").status_code == 200
                    assert change("load", bundle="missing").status_code == 422
                    assert change("rollback").status_code == 200
            finally:
                enough.set()
            statuses = [status for answers in asking for status in answers.result()]
        assert set(statuses) == {200}
        assert seen == {(first.version, "positive"), (other.version, "negative")}

        service.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 30
        while httpx.get(f"{service.url}/readyz").status_code == 200 and time.monotonic() < until:
            time.sleep(0.01)
        announced = httpx.get(f"{service.url}/readyz")
        assert announced.status_code == 503
        assert announced.json()["error"]["code"] == "not_ready"
        assert httpx.get(f"{service.url}/livez").status_code == 200
        assert httpx.post(f"{service.url}/v1/classify", json=body).status_code == 200
        assert service.process.wait(60) == 0
