"""SIGTERM, and Ctrl-C: who was accepted is answered, and no client keeps the process."""

import concurrent.futures
import contextlib
import http.client
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
import pytest

from compression.bundle import Bundle
from tests.integration.conftest import serve
from tests.wire.client import Client
from tests.wire.test_bounds import LONG, NOWHERE
from tests.wire.test_conformance import BODY, CHUNKED, POST, SIZED

pytestmark = pytest.mark.integration

PAUSE_S, TIMEOUT_S = 0.3, 2.0
SLACK_S = 5.0  # for the process itself to end, on a busy machine
NASTY = [
    b"",
    b"POST / HT",
    POST + SIZED + b"\r\n{",
    POST + CHUNKED + b"\r\n1\r\n{",
    NOWHERE + b"Content-Length: 100\r\n\r\n",
    LONG * 2000,  # whose answers it does not fetch
    b"no request\r\n\r\n",
]


def ask_until_refused(host: str, port: int, asked: "threading.Semaphore") -> list[str]:
    """Asks again and again, on a connection for as long as it is kept; what went wrong before there was no service."""
    faults: list[str] = []
    while True:
        connection = http.client.HTTPConnection(host, port, timeout=30)
        try:
            connection.connect()
        except ConnectionRefusedError:
            return faults
        with contextlib.closing(connection):
            try:
                for _ in range(1000):
                    connection.request("POST", "/v1/classify", BODY, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    asked.release()
                    if answer.status != 200:
                        faults.append(f"status {answer.status}")
                    if answer.getheader("connection") == "close":
                        break
                    time.sleep(0.01)
            except (OSError, http.client.HTTPException) as error:
                faults.append(repr(error))


def ctrl_c(process: psutil.Process) -> None:
    """As a terminal does."""
    for one in (process, *process.children(recursive=True)):
        one.send_signal(signal.SIGINT)


@pytest.mark.parametrize("stop", [psutil.Process.terminate, ctrl_c])
def test_at_the_end_nobody_is_reset_and_nobody_keeps_the_process(
    sentiment_bundle: Bundle, tmp_path: Path, stop: Callable[[psutil.Process], None]
) -> None:
    settings = {
        "LATHE_MODELS": f"sentiment={sentiment_bundle.path}",
        "LATHE_DRAIN_PAUSE_MS": str(int(PAUSE_S * 1e3)),
        "LATHE_DRAIN_TIMEOUT_MS": str(int(TIMEOUT_S * 1e3)),
    }
    asked = threading.Semaphore(0)
    with (
        serve(tmp_path / "service.log", settings) as service,
        concurrent.futures.ThreadPoolExecutor(24) as threads,
        contextlib.ExitStack() as stack,
    ):
        host, port = str(urlsplit(service.url).hostname), int(urlsplit(service.url).port or 0)
        for said in NASTY:
            client = stack.enter_context(Client(host, port, receive_bytes=4096))
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.socket.send(said)
        honest = [threads.submit(ask_until_refused, host, port, asked) for _ in range(24)]
        for _ in range(100):
            asked.acquire()
        start = time.monotonic()
        stop(psutil.Process(service.process.pid))
        assert [client.result() for client in honest] == [[]] * 24
        assert service.process.wait(60) == 0
        assert time.monotonic() - start < PAUSE_S + TIMEOUT_S + SLACK_S
    assert "Traceback" not in (tmp_path / "service.log").read_text()
