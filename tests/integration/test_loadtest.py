"""The load test's exit codes and report, against a real service."""

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from loadtests.answers import problem
from loadtests.run import free_port
from loadtests.shapes import SHAPES
from service.access.keys import add_key
from tests.integration.conftest import LiveService, ServiceFactory, service_environment

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


def load_test(
    *arguments: str, cwd: Path = ROOT, settings: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs the front end as a user does: four users, five seconds."""
    command = [sys.executable, "-m", "loadtests.run", "--users", "4", "--seconds", "5", *arguments]
    environment = service_environment(**(settings or {}))
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_that_reaches_its_thresholds_ends_with_0_and_a_report(live_service: LiveService, tmp_path: Path) -> None:
    result = load_test("--host", live_service.url, "--report", str(tmp_path), "--max-p95-ms", "20000")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "reached its thresholds" in result.stdout
    html = (tmp_path / "loadtest.html").read_text(encoding="utf-8")
    for kind in ("/v1/classify one", "/v1/classify many", "/v1/triage"):
        assert kind in html
    assert re.search(r'<section id="verdict"[^>]*><strong>load test reached its thresholds: \d+ requests', html)
    assert (tmp_path / "loadtest_stats.csv").is_file()


def test_a_missed_threshold_is_named_and_ends_with_1(live_service: LiveService, tmp_path: Path) -> None:
    result = load_test("--host", live_service.url, "--report", str(tmp_path), "--max-p95-ms", "0.001")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "threshold missed: max_p95_ms:" in result.stdout
    assert "is above 0.001 (POST /v1/classify one)" in result.stdout
    assert "max_failure_ratio" not in result.stdout
    html = (tmp_path / "loadtest.html").read_text(encoding="utf-8")
    assert re.search(r'<section id="verdict"[^>]*><strong>load test missed its thresholds', html)
    assert "<li>threshold missed: max_p95_ms:" in html


def test_a_host_where_nothing_listens_is_refused_in_seconds(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    start = time.monotonic()
    result = load_test("--host", url, "--report", str(tmp_path))
    assert time.monotonic() - start < 10
    assert result.returncode == 2
    assert f"no service is ready at {url}" in result.stderr
    assert "refused" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_service_is_started_and_stopped_where_no_host_is_given(models_setting: str, tmp_path: Path) -> None:
    settings = {"LATHE_MODELS": models_setting, "LOADTEST_KEY": "not-a-setting-of-the-service", "MARK": str(tmp_path)}
    result = load_test("--report", str(tmp_path), "--max-p95-ms", "20000", "--shape", "steps", settings=settings)
    assert result.returncode == 0, result.stdout + result.stderr
    left = [process.pid for process in psutil.process_iter(["environ"]) if marked(process, str(tmp_path))]
    assert left == []


def marked(process: psutil.Process, mark: str) -> bool:
    """Whether a process, or what started it, was given this mark in its environment."""
    return (process.info["environ"] or {}).get("MARK") == mark


def test_missing_bundles_are_named_with_what_makes_them(tmp_path: Path) -> None:
    result = load_test("--report", str(tmp_path), cwd=tmp_path, settings={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 2
    assert "no bundle in bundles/sentiment and bundles/banking-intents" in result.stderr
    assert "make demo or lathe compress" in result.stderr


def test_the_key_is_sent_and_answers_without_one_count_as_failed(
    service_factory: ServiceFactory, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "load-test")
    arguments = ["--report", str(tmp_path), "--max-p95-ms", "20000"]
    with service_factory(LATHE_KEYS_FILE=str(tmp_path / "keys.json")) as service:
        allowed = load_test("--host", service.url, *arguments, settings={"LOADTEST_KEY": key})
        refused = load_test("--host", service.url, *arguments)
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    assert refused.returncode == 1
    assert "threshold missed: max_failure_ratio: 1.0000 is above 0" in refused.stdout
    assert "status 401 unauthorized" in refused.stderr


def test_later_is_counted_apart_from_failed(tmp_path: Path) -> None:
    with always_later() as url:
        strict = load_test("--host", url, "--report", str(tmp_path))
        lenient = load_test("--host", url, "--report", str(tmp_path), "--max-later-ratio=1", "--min-requests-per-s=0")
    assert strict.returncode == 1
    assert "threshold missed: max_later_ratio: 1.0000 is above 0" in strict.stdout
    assert "max_failure_ratio" not in strict.stdout
    assert ", 0 failed," in strict.stdout
    assert lenient.returncode == 0, lenient.stdout + lenient.stderr


class _Later(BaseHTTPRequestHandler):
    """Is ready, and answers every request with 429."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(429)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def always_later() -> Iterator[str]:
    """The address of a server whose queue is always full."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Later) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (200, b'{"results": [{"label": "a"}, {"label": "b"}]}', None),
        (200, b'{"results": [{"label": "a"}]}', "the number of results is not the number of inputs"),
        (200, b'{"results": [{"label": "a"}, {"score": 1}]}', "a result without label"),
        (200, b'{"results": [{"label": "a"}, {"label": ""}]}', "a result without label"),
        (200, b"{}", "no results"),
        (200, b"<html>", "status 200, and the body is not a JSON object"),
        (503, b'{"error": {"code": "not_ready"}}', "status 503 not_ready"),
        (429, b'{"error": {"code": "overloaded"}}', "429"),
        (0, None, "no answer"),
    ],
)
def test_what_counts_as_a_failed_answer(status: int, content: bytes | None, expected: str | None) -> None:
    assert problem(status, content, 2, ["label"]) == expected


def test_shapes_go_where_their_names_say() -> None:
    moments = [0.0, 0.1, 0.3, 0.5, 0.7, 0.99]
    users = {name: [shape(moment, 16) for moment in moments] for name, shape in SHAPES.items()}
    assert users == {
        "steady": [1, 8, 16, 16, 16, 16],
        "steps": [1, 1, 2, 4, 8, 16],
        "spike": [1, 1, 1, 16, 1, 1],
    }
    assert [SHAPES["steps"](moment, 10) for moment in (0.1, 0.3, 0.6, 0.9)] == [1, 2, 5, 10]
