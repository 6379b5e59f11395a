"""The real service, started by `bentoml serve` and called over HTTP."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from loadtests.run import stop

START_SECONDS = 60


@dataclass(frozen=True)
class LiveService:
    """A running service: where it answers, its process, and the file that its output goes to."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def service_command(port: int, host: str = "127.0.0.1", target: str = "service.app:Lathe") -> list[str]:
    """What a user types to serve, with this interpreter."""
    return [sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port)]


def service_environment(**settings: str) -> dict[str, str]:
    """This process's environment with no LATHE_ variable but the given ones."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATHE_")}
    return {**inherited, "BENTOML_DO_NOT_TRACK": "True", **settings}


@contextlib.contextmanager
def serve(
    log: Path, target: str = "service.app:Lathe", cwd: Path | None = None, **settings: str
) -> Iterator[LiveService]:
    """Starts the service, waits until it is ready, and stops it with SIGTERM."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            service_command(port, target=target), stdout=output, stderr=subprocess.STDOUT, cwd=cwd,
            env=service_environment(**settings),
        )  # fmt: skip
    service = LiveService(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until_ready(service)
        yield service
    finally:
        stop(process)


def wait_until_ready(service: LiveService) -> None:
    """Polls /readyz; fails with the service's output when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{service.url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"the service did not become ready:\n{service.log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def models_setting(sentiment_bundle: Bundle, intent_bundle: Bundle) -> str:
    """LATHE_MODELS for the two tiny models, under the names of the default ones."""
    return f"sentiment={sentiment_bundle.path},banking-intents={intent_bundle.path}"


ServiceFactory = Callable[..., AbstractContextManager[LiveService]]


@pytest.fixture
def service_factory(models_setting: str, tmp_path: Path) -> ServiceFactory:
    """Starts a service with the tiny models and the given further settings."""

    def start(**settings: str) -> AbstractContextManager[LiveService]:
        return serve(tmp_path / "service.log", LATHE_MODELS=models_setting, **settings)

    return start


@pytest.fixture(scope="session")
def live_service(models_setting: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """One service for the whole session, without keys."""
    log = tmp_path_factory.mktemp("service") / "service.log"
    with serve(log, LATHE_MODELS=models_setting) as service:
        yield service


@pytest.fixture
def client(live_service: LiveService) -> Iterator[httpx.Client]:
    """An HTTP client of the shared service."""
    with httpx.Client(base_url=live_service.url, timeout=30) as client:
        yield client
