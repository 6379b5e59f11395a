"""The real service, started by `bentoml serve` and called over HTTP."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from loadtests.run import CannotRun, start, stop
from tests.conftest import made_once
from tests.integration.alone import make_wheel


@dataclass(frozen=True)
class LiveService:
    """A running service: where it answers, its process, and the file that its output goes to."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path


def service_command(port: int, host: str = "127.0.0.1", target: str = "service.app:Lathe") -> list[str]:
    """What a user types to serve, with this interpreter."""
    return [sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port)]


def service_environment(**settings: str) -> dict[str, str]:
    """This process's environment with no LATHE_ variable but the given ones; no pause, since nothing balances here."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LATHE_") and name not in ("BENTOML_DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY")
    }
    return {**inherited, "LATHE_DRAIN_PAUSE_MS": "0", **settings}


@pytest.fixture(scope="session")
def wheel(workspace: Path) -> Path:
    """The wheel of this checkout."""
    (wheel,) = made_once(workspace / "wheel", make_wheel).glob("*.whl")
    return wheel


@contextlib.contextmanager
def serve(
    log: Path,
    settings: Mapping[str, str],
    target: str = "service.app:Lathe",
    cwd: Path | None = None,
    python: str = sys.executable,
) -> Iterator[LiveService]:
    """Starts the service, waits until it is ready, and stops it with SIGTERM."""
    try:
        url, process = start(log, service_environment(**settings), target, cwd, python)
    except CannotRun as error:
        pytest.fail(str(error))
    try:
        yield LiveService(url, process, log)
    finally:
        stop(process)


@pytest.fixture(scope="session")
def models_setting(sentiment_bundle: Bundle, intent_bundle: Bundle) -> str:
    """LATHE_MODELS for the two tiny models, under the names of the default ones."""
    return f"sentiment={sentiment_bundle.path},banking-intents={intent_bundle.path}"


ServiceFactory = Callable[..., AbstractContextManager[LiveService]]


@pytest.fixture
def service_factory(models_setting: str, tmp_path: Path) -> ServiceFactory:
    """Starts a service with the tiny models and the given further settings."""

    def start(**settings: str) -> AbstractContextManager[LiveService]:
        return serve(tmp_path / "service.log", {"LATHE_MODELS": models_setting, **settings})

    return start


@pytest.fixture(scope="session")
def live_service(models_setting: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """One service for the whole session, without keys."""
    log = tmp_path_factory.mktemp("service") / "service.log"
    with serve(log, {"LATHE_MODELS": models_setting}) as service:
        yield service


@pytest.fixture
def client(live_service: LiveService) -> Iterator[httpx.Client]:
    """An HTTP client of the shared service."""
    with httpx.Client(base_url=live_service.url, timeout=30) as client:
        yield client
