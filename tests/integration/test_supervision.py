"""Nobody else gives orders to what starts the workers; a killed worker is replaced, and none outlives its parent."""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from tests.integration.conftest import ServiceFactory

pytestmark = pytest.mark.integration


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def worker_of(parent: psutil.Process) -> psutil.Process:
    """The worker that it has, or will have soon."""

    def running() -> list[psutil.Process]:
        found = []
        for child in parent.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if "--worker-id" in child.cmdline():
                    found.append(child)
        return found

    wait_until(lambda: len(running()) == 1, "there is not one worker")
    return running()[0]


def test_nobody_else_gives_orders_and_processes_end_together(service_factory: ServiceFactory) -> None:
    with service_factory() as service:
        parent, url = psutil.Process(service.process.pid), httpx.URL(service.url)
        processes = [parent, worker_of(parent)]
        listening = {
            (place.laddr.ip, place.laddr.port)
            for process in processes
            for place in process.net_connections("tcp")
            if place.status == psutil.CONN_LISTEN
        }
        assert listening == {(url.host, url.port)}
        named = [Path(place.laddr) for process in processes for place in process.net_connections("unix") if place.laddr]
        sockets = [path for path in named if path.name in ("commands", "events")]
        assert sockets
        for path in sockets:
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

        worker = worker_of(parent)
        worker.kill()
        worker.wait(30)
        wait_until(lambda: ready(service.url), "no worker came in place of the one that was killed")

        worker = worker_of(parent)
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(
            lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker was left over"
        )


def test_what_it_made_goes_with_it(service_factory: ServiceFactory) -> None:
    with service_factory(LATHE_ALLOWED_HOSTS="api.example, b.example") as service:
        for host, status in (("api.example", 200), ("b.example:443", 200), ("evil.example", 403)):
            assert httpx.get(f"{service.url}/v1/models", headers={"Host": host}).status_code == status
        process = psutil.Process(service.process.pid)
        folder = next(
            Path(place.laddr).parent
            for place in process.net_connections("unix")
            if str(place.laddr).endswith("/commands")
        )
    assert not folder.exists()
