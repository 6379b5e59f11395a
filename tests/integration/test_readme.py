"""The README's commands, run as they stand there, on tiny models in place of PARENT and of the user's data."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from loadtests.run import free_port, stop, wait_until_ready
from tests.conftest import SENTIMENT, write_rows
from tests.integration.conftest import LiveService, service_environment
from tests.test_docs import commands

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SERVE = "lathe serve "
# These install, build the defaults, or need a Docker engine: `.ci/run` and test_bento.py cover what can be run of them.
NOT_HERE = ("make ", "python3 -m venv ", ". .venv/bin/activate", "pip install ", "bentoml containerize ")


@pytest.fixture(scope="module")
def folder(workspace: Path, sentiment_parent: Path, sentiment_data: Path) -> Path:
    """A user's directory: a model and some data files."""
    folder = workspace / "readme"
    folder.mkdir()
    shutil.copytree(sentiment_parent, folder / "PARENT")
    for name in ("messages.csv", "labelled.csv"):
        shutil.copy(sentiment_data, folder / name)
    for seed, name in enumerate(("train.csv", "validation.csv")):
        write_rows(folder / name, SENTIMENT, 40, seed)
    return folder


def shell(command: str, folder: Path, **settings: str) -> str:
    """Runs a command in a shell that finds this environment's programs first; returns its standard output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command, shell=True, cwd=folder, env=service_environment(PATH=path, **settings), capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


def starting(*prefixes: str) -> list[str]:
    return [command for command in commands("README.md") if command.startswith(prefixes)]


def test_every_command_is_run_somewhere() -> None:
    known = {
        *starting(*NOT_HERE),
        *starting("lathe ", "curl "),
        *(line for line in commands("README.md") if SERVE in line),
    }
    assert set(commands("README.md")) == known


def test_lathe_commands(folder: Path) -> None:
    outputs = {command.split()[1]: shell(command, folder) for command in starting("lathe ") if SERVE not in command}
    assert (folder / "bundles" / "mine" / "bundle.json").is_file()
    assert json.loads(outputs["evaluate"])["agreement"] > 0.97
    assert (folder / "models" / "mine" / "adapter_model.safetensors").is_file()
    assert outputs["keys"].startswith("lathe_")


def test_curl_commands(folder: Path, live_service: LiveService) -> None:
    for command in starting("curl "):
        answer = json.loads(
            shell(command.replace("127.0.0.1:3000", live_service.url).replace('"mine"', '"sentiment"'), folder)
        )
        assert answer["results"]


@pytest.mark.parametrize("number", [0, 1])
def test_serve_commands(folder: Path, number: int) -> None:
    if not (folder / "bundles" / "mine").is_dir():
        test_lathe_commands(folder)
    command = [line for line in commands("README.md") if SERVE in line][number]
    port = free_port()
    # Tests listen on this machine only; with the keys that the command names, any address would do.
    command = f"exec env {command.replace('0.0.0.0', '127.0.0.1')} --port {port}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder / f"serve-{number}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, shell=True, cwd=folder, stdout=output, stderr=subprocess.STDOUT,
            env=service_environment(PATH=path),
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        status = httpx.get(f"{url}/v1/models", timeout=30).status_code
        assert status == (401 if "LATHE_KEYS_FILE" in command else 200)
    finally:
        stop(process)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_demo_asks_and_prints_until_it_is_stopped(number: int, code: int, models_setting: str) -> None:
    port = free_port()
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")  # where nothing listens
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--port", str(port)],
        env=service_environment(LATHE_MODELS=models_setting, PYTHONUNBUFFERED="1", **proxies),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        read: Callable[[], str] = process.stdout.readline
        lines: list[str] = []
        while "Ctrl-C stops it" not in (line := read()):
            assert line, "the demo ended: " + "".join(lines)
            lines.append(line)
        text = "".join(lines)
        assert "Question: POST" in text
        assert '"hand_to_person":' in text
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30).status_code == 200
        process.send_signal(number)
        assert process.wait(30) == code
    finally:
        stop(process)
        assert process.stdout is not None
        process.stdout.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5)


def test_the_demo_says_that_its_port_is_in_use_and_asks_nobody(live_service: LiveService) -> None:
    port = live_service.url.rpartition(":")[2]
    result = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--port", port], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another with --port, "
        "or make demo PORT=NUMBER\n"
    )
