"""The wheel in an environment of its own: with nothing but what it depends on, then with what serving needs."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from loadtests.run import free_port, stop, wait_until_ready
from tests.conftest import REPOSITORY as ROOT
from tests.integration.alone import PIP

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONSTRAINED = ("--constraint", str(ROOT / "constraints.txt"))
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing of the checkout."""
    return tmp_path_factory.mktemp("wheel")


def _environment() -> dict[str, str]:
    """Nothing of the checkout may stand in for what the wheel lacks."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """Runs a command there."""

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False, timeout=300
        )

    return run


@pytest.fixture(scope="module")
def programs(folder: Path, run: Run, wheel: Path) -> Path:
    """Where the programs of an environment are that has the wheel without extras."""
    run(sys.executable, "-m", "venv", str(folder / "venv")).check_returncode()
    programs = folder / "venv" / "bin"
    run(str(programs / "python"), *PIP, "install", "--no-compile", *CONSTRAINED, str(wheel)).check_returncode()
    return programs


def test_a_wheel_holds_the_two_packages_and_every_file_that_they_read(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        str(path.relative_to(ROOT))
        for package in ("compression", "service")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == {"lathe.py", *files}


def test_without_extras_it_shows_bundles_and_makes_keys(
    sentiment_bundle: Bundle, folder: Path, run: Run, programs: Path
) -> None:
    def lathe(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run(str(programs / "lathe"), *arguments)

    assert "compress" in lathe("--help").stdout
    assert lathe("--version").stdout.startswith("lathe, version ")
    assert sentiment_bundle.version in lathe("inspect", str(sentiment_bundle.path)).stdout
    assert "lathe 0." in lathe("doctor").stdout
    assert "step: quantize" in lathe("recipe", "show", "safe").stdout
    assert lathe("keys", "add", "shop").stdout.startswith("lathe_")
    rows = folder / "rows.csv"
    rows.write_text("text\ngood\n")
    failed = lathe("compress", ".", "--data", str(rows), "--out", "out")
    assert (failed.returncode, failed.stderr) == (
        1,
        "error: this command needs the extra compress: pip install 'lathe[compress]' (torch is not installed)\n",
    )


def test_with_the_extra_serve_it_serves_a_bundle_from_an_empty_directory(
    sentiment_bundle: Bundle, folder: Path, run: Run, wheel: Path, programs: Path
) -> None:
    installed = run(str(programs / "python"), *PIP, "install", "--no-compile", *CONSTRAINED, f"{wheel}[serve]")
    assert installed.returncode == 0, installed.stderr
    empty, log, port = folder / "empty", folder / "service.log", free_port()
    empty.mkdir()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [programs / "lathe", "serve", sentiment_bundle.path, "--port", str(port)], cwd=empty,
            env={**_environment(), "LATHE_DRAIN_PAUSE_MS": "0"}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until_ready(url, process, log)
        body = {"model": sentiment_bundle.path.name, "inputs": "great"}
        answer = httpx.post(f"{url}/v1/classify", json=body, timeout=30).json()
        assert answer["version"] == sentiment_bundle.version
        for page in ("/", "/docs"):
            assert httpx.get(f"{url}{page}", timeout=30).status_code == 200
    finally:
        stop(process)
    assert process.returncode == 0
    assert list(empty.iterdir()) == []
