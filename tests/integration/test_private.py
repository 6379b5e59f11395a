"""Nothing leaves the machine that the user did not ask for.

Three watches: an audit hook in every Python process of ours sees what it connects to and which names it looks up; a
proxy sees what libraries in C send, which the hook does not; a new home directory shows what they keep.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from tests.integration.conftest import serve, service_environment

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent.parent
HOOK = """
import os, sys
def record(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        where = arguments[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        where = arguments[0]
    else:
        return
    with open(os.environ["WATCHED"], "a") as log:
        log.write(f"{event}\\t{where[0] if isinstance(where, tuple) else where}\\t{sys.argv[:2]}\\n")
sys.addaudithook(record)
"""
OURS = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "None", "/")  # the last begins a socket of the file system


@dataclass(frozen=True)
class Watch:
    """What processes with this environment did; `http_proxy` and the like are a listener that answers nothing."""

    environment: dict[str, str]
    home: Path
    log: Path
    proxied: list[bytes]

    def require_silence(self) -> None:
        """Fails where something was sent, or kept of what is to be sent."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        assert [line for line in lines if not line.split("\t")[1].startswith(OURS)] == []
        assert self.proxied == []
        assert [str(path) for path in self.home.rglob("*") if path.is_file() and "models" not in path.parts] == []


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """An environment that is watched."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    (tmp_path / "home").mkdir()
    proxied: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def listen() -> None:
            while True:
                try:
                    connection, _ = proxy.accept()
                except OSError:
                    return
                with connection:
                    proxied.append(connection.recv(1000))

        threading.Thread(target=listen, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = {
            name: address for kind in ("http", "https", "all") for name in (f"{kind}_proxy", f"{kind}_PROXY".upper())
        }
        environment = service_environment(
            HOME=str(tmp_path / "home"), WATCHED=str(tmp_path / "watched"), no_proxy="", NO_PROXY="", **proxies,
            PYTHONPATH=os.pathsep.join((str(tmp_path / "hook"), str(ROOT))),
        )  # fmt: skip
        for name in ("BENTOML_HOME", "XDG_CACHE_HOME"):
            environment.pop(name, None)
        yield Watch(environment, tmp_path / "home", tmp_path / "watched", proxied)
        proxy.shutdown(socket.SHUT_RDWR)


def test_the_watch_sees_what_it_is_for(watch: Watch) -> None:
    code = "import httpx, socket; socket.getaddrinfo('a.invalid', 80)"
    subprocess.run([sys.executable, "-c", code], env=watch.environment, check=False, capture_output=True)
    with pytest.raises(AssertionError, match=r"a\.invalid"):
        watch.require_silence()
    watch.log.unlink()
    code = "import httpx; httpx.get('http://b.invalid')"
    subprocess.run([sys.executable, "-c", code], env=watch.environment, check=False, capture_output=True)
    with pytest.raises(AssertionError, match=r"b\.invalid"):
        watch.require_silence()


def test_a_served_request_and_a_page_send_nothing(watch: Watch, models_setting: str, tmp_path: Path) -> None:
    with (
        serve(tmp_path / "log", {**watch.environment, "LATHE_MODELS": models_setting}) as service,
        httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client,
    ):
        assert client.post("/v1/triage", json={"inputs": "great"}).status_code == 200
        for path in ("/", "/docs", "/static_content/swagger-ui-bundle.js"):
            assert client.get(path).status_code == 200
    assert service.process.returncode == 0
    assert "127.0.0.1" in watch.log.read_text()  # where it listens
    watch.require_silence()


@pytest.mark.parametrize("arguments", [("store", "BUNDLE", "--name", "mine"), ("evaluate", "BUNDLE", "--data", "DATA")])
def test_commands_send_nothing(
    arguments: tuple[str, ...], watch: Watch, sentiment_bundle: Bundle, sentiment_data: Path
) -> None:
    places = {"BUNDLE": str(sentiment_bundle.path), "DATA": str(sentiment_data)}
    command = [sys.executable, "-m", "lathe", *(places.get(word, word) for word in arguments)]
    subprocess.run(command, env=watch.environment, check=True, capture_output=True)
    watch.require_silence()


def test_programs_send_nothing(watch: Watch, sentiment_bundle: Bundle) -> None:
    code = f"import lathe; lathe.load({str(sentiment_bundle.path)!r})(['good'])"
    subprocess.run([sys.executable, "-c", code], env=watch.environment, check=True, capture_output=True)
    watch.require_silence()
