"""What goes wrong in production, done to the real service: nobody but the one at fault notices."""

import concurrent.futures
import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from tests.integration.conftest import LiveService, ServiceFactory, serve
from tests.wire.client import Client

pytestmark = pytest.mark.integration

# See faulty.py, which must not be imported here.
FAILS, FAILS_ONCE, HANGS, WAITS, KILLS = "good " * 5, "good " * 6, "good " * 7, "good " * 8, "good " * 500
JSON = {"content-type": "application/json"}


def ask(service: LiveService, inputs: object, model: str = "sentiment") -> httpx.Response:
    return httpx.post(f"{service.url}/v1/classify", json={"model": model, "inputs": inputs}, timeout=60)


def metric(service: LiveService, name: str) -> float:
    lines = httpx.get(f"{service.url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def until(condition: object, seconds: float = 30) -> None:
    """Waits until a function says yes."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def sending(
    service: LiveService, body: bytes, length: int | None = None, path: str = "/v1/classify", headers: str = ""
) -> Iterator[socket.socket]:
    """A connection on which a request was sent, or its beginning where it says it is longer."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}"
        connection.sendall(f"{head}content-length: {length or len(body)}\r\n\r\n".encode() + body)
        yield connection


@pytest.fixture
def faulty(models_setting: str, tmp_path: Path) -> Iterator[LiveService]:
    settings = {"LATHE_MODELS": models_setting, "LATHE_STREAMS": "1", "LATHE_HANG_MS": "2000"}
    settings |= {"LATHE_DRAIN_PAUSE_MS": "0", "LATHE_DRAIN_TIMEOUT_MS": "1000"}
    with serve(tmp_path / "service.log", settings, "tests.integration.faulty:Lathe") as service:
        yield service


def test_a_text_that_the_model_cannot_compute_fails_alone(faulty: LiveService) -> None:
    inputs: list[object] = [["good " * 60] * 200]  # while it is computed, the others gather to one batch
    inputs += [f"good number {number}" for number in range(31)]
    inputs.insert(16, FAILS)
    with concurrent.futures.ThreadPoolExecutor(len(inputs)) as threads:
        answers = list(threads.map(lambda text: ask(faulty, text), inputs))
    failed = answers.pop(16)
    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "inference_failed"
    assert {answer.status_code for answer in answers} == {200}
    assert metric(faulty, 'lathe_failed_texts_total{code="inference_failed",model="sentiment",role="live"}') == 1


def test_a_model_that_fails_once_is_asked_again(faulty: LiveService) -> None:
    assert [ask(faulty, [FAILS_ONCE, "bad"]).status_code for _ in range(2)] == [200, 200]
    assert httpx.get(f"{faulty.url}/livez").status_code == 200


def test_an_engine_that_dies_fails_the_liveness_probe_at_once_and_leaves_nobody_waiting(faulty: LiveService) -> None:
    assert httpx.get(f"{faulty.url}/livez").status_code == 200
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(faulty, ["good"] * 7 + [KILLS]), range(8)))
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"not_ready"}
    start = time.monotonic()
    assert httpx.get(f"{faulty.url}/livez").status_code == 503
    assert time.monotonic() - start < 1
    assert httpx.get(f"{faulty.url}/readyz").status_code == 503


def test_an_engine_that_hangs_fails_the_liveness_probe_and_does_not_keep_the_process(faulty: LiveService) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(
            httpx.post,
            f"{faulty.url}/v1/classify",
            json={"model": "sentiment", "inputs": HANGS},
            headers={"x-request-timeout-ms": "1000"},
            timeout=60,
        )
        assert hanging.result().json()["error"]["code"] == "deadline_exceeded"
        until(lambda: httpx.get(f"{faulty.url}/livez").status_code == 503)
        assert httpx.get(f"{faulty.url}/readyz").status_code == 503
        start = time.monotonic()
        answer = ask(faulty, "good")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert "restarted" in answer.json()["error"]["message"]
        assert time.monotonic() - start < 1
    faulty.process.terminate()
    assert faulty.process.wait(30) == 0


def test_a_client_that_leaves_costs_the_others_nothing(models_setting: str, tmp_path: Path) -> None:
    body = json.dumps({"model": "sentiment", "inputs": ["good " * 60] * 200}).encode()
    gone = 'lathe_shed_texts_total{model="sentiment",reason="client_gone",role="live"}'
    settings = {"LATHE_MODELS": models_setting, "LATHE_STREAMS": "1", "LATHE_REQUEST_TIMEOUT_MS": "60000"}
    go = tmp_path / "go"
    with (
        serve(tmp_path / "service.log", {**settings, "GO": str(go)}, "tests.integration.faulty:Lathe") as service,
        concurrent.futures.ThreadPoolExecutor(9) as threads,
    ):
        threads.submit(ask, service, WAITS)
        until(lambda: metric(service, 'lathe_batch_texts_count{model="sentiment",role="live"}') == 1)
        others = [threads.submit(ask, service, ["good " * 60] * 200) for _ in range(8)]
        with sending(service, body):
            until(lambda: metric(service, "lathe_queue_texts") == 1800)
        until(lambda: metric(service, gone) == 200)
        go.touch()
        assert [len(answer.result().json()["results"]) for answer in others] == [200] * 8
        assert metric(service, "lathe_queue_texts") == 0
        assert "rror" not in service.log.read_text()


def test_where_there_is_no_time_a_request_is_refused_by_its_head(models_setting: str, tmp_path: Path) -> None:
    paths = ("/v1/classify", "/v1/triage", "/predict", "/", "/v2/models/sentiment/infer")
    settings = {"LATHE_MODELS": models_setting, "LATHE_STREAMS": "1"}
    settings |= {"LATHE_DRAIN_PAUSE_MS": "0", "LATHE_DRAIN_TIMEOUT_MS": "1000"}
    with (
        concurrent.futures.ThreadPoolExecutor(4) as threads,
        serve(tmp_path / "service.log", settings, "tests.integration.faulty:Lathe") as service,
    ):
        for model in ("sentiment", "banking-intents"):
            threads.submit(ask, service, HANGS, model)
            until(lambda: metric(service, f'lathe_batch_texts_count{{model="{model}",role="live"}}') == 1)  # noqa: B023
            threads.submit(ask, service, ["good " * 60] * 200, model)
            until(lambda: metric(service, f'lathe_queue_texts{{model="{model}",role="live"}}') == 200)  # noqa: B023
        for path in paths:
            with sending(service, b"", 100, path, "x-request-timeout-ms: 1\r\n") as connection:
                assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")
        assert metric(service, 'lathe_requests_total{code="overloaded"') == len(paths)


def test_a_client_that_sends_slowly_is_given_up_and_holds_nobody_up(service_factory: ServiceFactory) -> None:
    with service_factory(LATHE_REQUEST_TIMEOUT_MS="2000") as service, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(sending(service, b'{"model": "senti', 100)) for _ in range(50)]
        assert [ask(service, "good").status_code for _ in range(20)] == [200] * 20
        for connection in slow:
            answer = connection.makefile("rb").read()  # to the end: the service closes
            assert answer.startswith(b"HTTP/1.1 408")
            assert b'"body_timeout"' in answer


def test_a_worker_that_is_killed_is_replaced_while_the_other_goes_on(
    models_setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_CONFIG_OPTIONS", "services.lathe.workers=2")
    with serve(tmp_path / "service.log", {"LATHE_MODELS": models_setting}) as service:

        def workers() -> list[int]:
            found = []
            for child in psutil.Process(service.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                    if "--worker-id" in child.cmdline():
                        found.append(child.pid)
            return found

        until(lambda: len(workers()) == 2)
        address = urlsplit(service.url)
        assert address.hostname is not None
        assert address.port is not None
        with contextlib.ExitStack() as clients:
            opened = [clients.enter_context(Client(address.hostname, address.port)) for _ in range(16)]
            until(lambda: all(client.in_step() for client in opened))
            victim = workers()[0]
            lost = {one.raddr.port for one in psutil.Process(victim).net_connections() if one.raddr}
            os.kill(victim, signal.SIGKILL)
            for client in opened:
                if client.socket.getsockname()[1] in lost:
                    assert client.closed()
                else:
                    assert client.in_step()  # the other worker's
        statuses = []
        while victim in workers() or len(workers()) < 2:
            with contextlib.suppress(httpx.TransportError):  # of what the dead one had accepted
                statuses.append(ask(service, "good").status_code)
        assert statuses
        assert set(statuses) <= {200, 503}  # 503: the new one, while it loads
        until(lambda: [ask(service, "good").status_code for _ in range(10)] == [200] * 10)


def test_ten_thousand_paths_add_no_series(live_service: LiveService) -> None:
    address = urlsplit(live_service.url)
    httpx.get(f"{live_service.url}/metrics")  # its own series
    before = 0
    with contextlib.closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)) as connection:
        for number in range(10_000):
            method = ("GET", "POST", "DELETE")[number % 3]
            connection.request(method, f"/v2/models/{number}/{number * 7919}?q={number}")
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (404, 405)
            if number == 100:
                before = len(httpx.get(f"{live_service.url}/metrics").text.splitlines())
    assert len(httpx.get(f"{live_service.url}/metrics").text.splitlines()) == before


ROUTES = {
    "/v1/classify": '{"model": "sentiment", "inputs": [%s]}',
    "/v1/triage": '{"inputs": [%s]}',
    "/predict": '{"inputs": [[%s]]}',
    "/v2/models/sentiment/infer": '{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": [%s]}]}',
}
HOSTILE = {
    "NUL": '"\\u0000"', "lone surrogate": '"\\ud800 good"', "reversed pair": '"\\udc00\\ud800"', "empty": '""',
    "1 MB word": '"' + "x" * 1_000_000 + '"', "10,000 emoji": '"' + "😀" * 10_000 + '"', "spaces": '" \\t\\n"',
    "right to left": '"\\u202e שלום"', "number": "1" + "0" * 4000, "float": "1e400", "NaN": "NaN",
    "nested": "[" * 100_000, "objects": '{"a":' * 100_000, "closed": "[" * 5000 + "]" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_never_a_fault_of_the_service(live_service: LiveService, path: str, name: str) -> None:
    body = (ROUTES[path] % HOSTILE[name]).encode()
    answer = httpx.post(live_service.url + path, content=body, headers=JSON, timeout=60)
    assert answer.status_code in (200, 400, 413)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ROUTES)
def test_keys_that_come_twice_and_huge_numbers_are_refused(live_service: LiveService, path: str) -> None:
    body = ROUTES[path] % '"good"'
    twice = body[:-1] + ', "inputs": 5}'
    huge = body[:-1] + f', "top_k": {"9" * 5000}, "id": -1e999}}'
    for content in (twice, huge):
        answer = httpx.post(live_service.url + path, content=content, headers=JSON, timeout=60)
        assert answer.status_code == 400


@pytest.mark.parametrize("path", ROUTES)
def test_a_compressed_body_is_unpacked_no_further_than_a_plain_one_may_be_long(
    live_service: LiveService, path: str
) -> None:
    headers = {**JSON, "content-encoding": "gzip"}
    bomb = gzip.compress(b" " * 200_000_000)
    before = _memory(live_service)
    answer = httpx.post(live_service.url + path, content=bomb, headers=headers)
    assert answer.status_code == 413
    assert _memory(live_service) - before < 50_000_000
    body = (ROUTES[path] % '"good"').encode()
    plain = httpx.post(live_service.url + path, content=body, headers=JSON)
    assert plain.status_code == 200
    assert httpx.post(live_service.url + path, content=gzip.compress(body), headers=headers).json() == plain.json()
    assert httpx.post(live_service.url + path, content=body, headers=headers).status_code == 400


def _memory(service: LiveService) -> int:
    processes = [psutil.Process(service.process.pid)]
    processes += processes[0].children(recursive=True)
    return sum(process.memory_info().rss for process in processes)
