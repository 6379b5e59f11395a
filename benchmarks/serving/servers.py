"""The servers that are measured: started as processes of their own, stopped with their descendants."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.serving.client import Connection
from loadtests.run import CannotRun, free_port, start, stop

ROOT = Path(__file__).resolve().parents[2]
_START_S = 120


@dataclass(frozen=True)
class Server:
    """One that is measured: where it answers, and its processes."""

    url: str
    processes: tuple[psutil.Process, ...]

    @classmethod
    def of(cls, url: str, process: "subprocess.Popen[bytes]") -> "Server":
        """A process and its descendants."""
        parent = psutil.Process(process.pid)
        return cls(url, (parent, *parent.children(recursive=True)))

    def cpu_seconds(self) -> float:
        """CPU time that its processes have taken so far."""
        return float(sum(sum(process.cpu_times()[:2]) for process in self.processes))

    def pause(self) -> None:
        """Stops its processes until `resume`: some take a quarter of a core while nobody asks."""
        for process in self.processes:
            process.suspend()

    def resume(self) -> None:
        """Lets them go on."""
        for process in reversed(self.processes):  # a supervisor last, so that it finds its workers well
            process.resume()

    @contextlib.contextmanager
    def resumed(self) -> Iterator[None]:
        """While this lasts, they run."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def rss_bytes(self) -> int:
        """Memory that its processes hold."""
        return sum(process.memory_info().rss for process in self.processes)


@contextlib.contextmanager
def served(target: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Runs a BentoML service."""
    settings = {"BENTOML_DO_NOT_TRACK": "True", "LATHE_STREAMS": "2", **(environment or {})}
    url, process = start(log, {**os.environ, **settings}, target)
    try:
        yield Server.of(url, process)
    finally:
        stop(process)


@contextlib.contextmanager
def launched(
    command: Sequence[str], log: Path, environment: Mapping[str, str], path: str, body: bytes
) -> Iterator[Server]:
    """Runs a server of another kind; ready once it answers a request.

    Args:
        command: `{port}` stands for a free port.
        path, body: that request.

    Raises:
        CannotRun: it ended or took too long.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in command], env={**os.environ, **environment}, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_S
        while not _answers(f"{url}{path}", body):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotRun(f"{command[0]} did not become ready; its log ends with:\n{_end_of(log)}")
            time.sleep(0.5)
        yield Server.of(url, process)
    finally:
        stop(process)


def _answers(url: str, body: bytes) -> bool:
    async def ask() -> bool:
        connection = await Connection.open(url)
        status, _ = await connection.post(body)
        connection.close()
        return status == 200

    try:
        return asyncio.run(ask())
    except OSError:
        return False


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-10:])
