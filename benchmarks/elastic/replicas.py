"""Real replicas of the service on fixed ports, behind a real HAProxy, scraped by a real Prometheus."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from loadtests.run import CannotRun, free_port, stop

_START_S = 60

_HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  option redispatch
  retries 3
frontend all
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance leastconn
  option httpchk GET /readyz
  default-server check inter 500ms fall 1 rise 1
{servers}
"""

_PROMETHEUS = """
global: {{ scrape_interval: 1s }}
scrape_configs:
  - job_name: lathe
    static_configs: [{{ targets: [{targets}] }}]
"""


class Replicas:
    """As many as are wanted.

    Args:
        bundle: what they serve.
        seconds_per_text: see benchmarks/elastic/slow.py.
    """

    def __init__(self, folder: Path, bundle: Path, ports: Sequence[int], seconds_per_text: float) -> None:
        self._folder = folder
        self._ports = ports
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ, "LATHE_MODELS": f"sentiment={bundle.absolute()}", "LATHE_STREAMS": "2",
            "LATHE_DRAIN_PAUSE_MS": "2000", "SECONDS_PER_TEXT": str(seconds_per_text),
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self._running)

    def scale(self, wanted: int) -> None:
        """Starts more, or has the youngest end as Kubernetes does: by SIGTERM, and in their own time."""
        while len(self._running) < wanted:
            port = next(port for port in self._ports if port not in self._running)
            command = [sys.executable, "-m", "bentoml", "serve", "benchmarks.elastic.slow:Lathe", "--port", str(port)]
            with (self._folder / f"{port}.log").open("ab") as log:
                self._running[port] = subprocess.Popen(
                    command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
        while len(self._running) > wanted:
            _, process = self._running.popitem()
            process.terminate()
            self._leaving.append(process)

    def wait_until_ready(self) -> None:
        """Until all of them are.

        Raises:
            CannotRun: one is not in time.
        """
        for port in self._running:
            _wait_for(f"http://127.0.0.1:{port}/readyz")

    def stop(self) -> None:
        """Ends them all."""
        for process in (*self._running.values(), *self._leaving):
            stop(process)


@contextlib.contextmanager
def load_balancer(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """HAProxy before these ports; gives its address."""
    port = free_port()
    servers = "\n".join(f"  server replica-{number} 127.0.0.1:{number}" for number in ports)
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(port=port, servers=servers), "utf-8")
    with _running(folder, "haproxy", "-db", "-f", str(folder / "haproxy.cfg")):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def prometheus(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """Prometheus that scrapes these ports every second; gives its address."""
    port = free_port()
    targets = ", ".join(f'"127.0.0.1:{number}"' for number in ports)
    (folder / "prometheus.yml").write_text(_PROMETHEUS.format(targets=targets), "utf-8")
    with _running(
        folder, "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ):  # fmt: skip
        _wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield f"http://127.0.0.1:{port}"


def ask(address: str, query: str) -> float:
    """The one value of a query; NaN where there is none."""
    answer = httpx.get(f"{address}/api/v1/query", params={"query": query}, timeout=10, trust_env=False).json()
    result = answer["data"]["result"]
    return float(result[0]["value"][1]) if result else float("nan")


@contextlib.contextmanager
def _running(folder: Path, *command: str) -> Iterator[None]:
    program = shutil.which(command[0])
    if program is None:
        raise CannotRun(f"{command[0]} is not installed; on Debian: apt-get install {command[0]}")
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen([program, *command[1:]], stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        stop(process)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise CannotRun(f"{url} did not answer within {_START_S} s")
