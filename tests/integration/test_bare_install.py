"""The wheel with nothing but what it depends on: `pip install .`, without extras."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compression.bundle import Bundle

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_wheel_without_extras_shows_bundles_and_makes_keys(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    # Nothing of the checkout may stand in for what the wheel lacks.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    source = tmp_path / "source"  # building leaves files behind, which a later wheel would hold
    for name in ("compression", "service"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "lathe.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)).check_returncode()
    (wheel,) = tmp_path.glob("lathe-*.whl")
    run(sys.executable, "-m", "venv", str(tmp_path / "venv")).check_returncode()
    programs = tmp_path / "venv" / "bin"
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    run(str(programs / "python"), *pip, "install", *constraints, str(wheel)).check_returncode()

    def lathe(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run(str(programs / "lathe"), *arguments)

    assert "compress" in lathe("--help").stdout
    assert lathe("--version").stdout.startswith("lathe, version ")
    assert sentiment_bundle.version in lathe("inspect", str(sentiment_bundle.path)).stdout
    assert "lathe 0." in lathe("doctor").stdout
    assert "step: quantize" in lathe("recipe", "show", "safe").stdout
    assert lathe("keys", "add", "shop").stdout.startswith("lathe_")
    rows = tmp_path / "rows.csv"
    rows.write_text("text\ngood\n")
    failed = lathe("compress", ".", "--data", str(rows), "--out", "out")
    assert (failed.returncode, failed.stderr) == (
        1,
        "error: this command needs the extra compress: pip install 'lathe[compress]'\n",
    )
