"""`lathe serve`: from where users call it, and what it says when it cannot start."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from loadtests.run import free_port, stop, wait_until_ready
from service.access.keys import add_key
from tests.integration.conftest import LiveService, service_environment

pytestmark = pytest.mark.integration

SERVE = [sys.executable, "-P", "-m", "lathe", "serve"]  # -P: as the script `lathe`, which does not import from here
KUBERNETES = {
    "LATHE_SERVICE_HOST": "10.0.0.5", "LATHE_SERVICE_PORT": "3000", "LATHE_PORT": "tcp://10.0.0.5:3000",
    "LATHE_PORT_3000_TCP_ADDR": "10.0.0.5",
}  # fmt: skip


@pytest.fixture
def folder(sentiment_bundle: Bundle, tmp_path: Path) -> Path:
    """A user's directory with a bundle, and with files that have our packages' names."""
    shutil.copytree(sentiment_bundle.path, tmp_path / "mine")
    for package in ("service", "compression"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "bentoml.py").write_text("raise RuntimeError('not this one')")
    return tmp_path


def test_serves_from_a_directory_that_has_files_of_our_names(folder: Path) -> None:
    key = add_key(folder / "keys.json", "shop")
    port, log = free_port(), folder / "service.log"
    (folder / "tmp").mkdir()
    nowhere = {"HOME": "/proc/nowhere", "TMPDIR": str(folder / "tmp")}  # as in a container with a user id of its own
    environment = service_environment(LATHE_KEYS_FILE="keys.json", **nowhere, **KUBERNETES)
    environment.pop("BENTOML_HOME", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*SERVE, "mine", "other=mine", "--host", "localhost", "--port", str(port)],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=30)
    finally:
        stop(process)
    assert process.returncode == 0
    assert not list((folder / "tmp").glob("lathe-*"))
    assert {model["name"] for model in answer.json()["models"]} == {"mine", "other"}


def refused(folder: Path, *arguments: str, **settings: str) -> str:
    """The one line that `lathe serve` says when it does not start."""
    result = subprocess.run(
        [*SERVE, *arguments], cwd=folder, env=service_environment(**settings), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_what_cannot_start_is_one_line(folder: Path, live_service: LiveService) -> None:
    taken = live_service.url.rpartition(":")[2]
    assert f"127.0.0.1 port {taken}: Address already in use" in refused(folder, "mine", "--port", taken)
    assert "'no.such.invalid' has no address" in refused(folder, "mine", "--host", "no.such.invalid")
    assert "LATHE_KEYS_FILE" in refused(folder, "mine", "--host", "0.0.0.0")
    assert "has no bundle.json" in refused(folder, "service")
    assert "lathe compress" in refused(folder, "nowhere")
    assert "is not cpu, cuda, tensorrt" in refused(folder, "mine", "--device", "abacus")
    assert "nowhere.json" in refused(folder, "mine", LATHE_KEYS_FILE="nowhere.json")
    assert "BENTOML_CONFIG='nowhere.yaml'" in refused(folder, "mine", BENTOML_CONFIG="nowhere.yaml")
    for content, fault in (
        ("unknown: {a: 1}", "Wrong key 'unknown'"),
        ("version: 1", "Key 'version'"),
        ("{", "parsing"),
    ):
        (folder / "bad.yaml").write_text(content)
        assert fault in refused(folder, "mine", BENTOML_CONFIG="bad.yaml")
    assert "BENTOML_HOME='/proc/nowhere'" in refused(folder, "mine", BENTOML_HOME="/proc/nowhere")


def test_python_is_refused_an_open_address_too(folder: Path) -> None:
    code = "from service.app import Lathe; Lathe.serve_http(host='0.0.0.0')"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=folder, env=service_environment(LATHE_MODELS="mine=mine"),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "ConfigurationError: the address 0.0.0.0" in result.stderr
