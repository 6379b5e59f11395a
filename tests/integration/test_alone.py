"""Commands where nothing is installed but what the wheel asks for with the extras that README names for them."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from compression.bundle import Bundle
from tests.conftest import SENTIMENT, write_rows
from tests.integration.alone import make_environment
from tests.integration.conftest import LiveService

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Run = Callable[..., str]


@pytest.fixture
def run(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> Run:
    """Runs a Python there, in an empty directory; returns its standard output."""
    python = make_environment(tmp_path / "environment", wheel, request.param)
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.mark.parametrize("run", [["compress"]], indirect=True, ids=repr)
def test_a_model_is_trained_compressed_and_measured(run: Run, encoder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv", SENTIMENT, 300, seed=1)
    lathe = ("-m", "lathe")
    run(*lathe, "finetune", encoder, "--data", data, "--out", "full", "--learning-rate", "3e-3", "--epochs", "2")
    run(*lathe, "finetune", "full", "--data", data, "--out", "mine", "--lora-rank", "4", "--epochs", "1")
    run(*lathe, "compress", "mine", "--data", data, "--out", "bundle")
    assert "agreement" in run(*lathe, "evaluate", "bundle", "--data", data, "--against", "mine")
    run(*lathe, "bench", "bundle", "--batches", "1", "--tokens", "16", "--rounds", "2")
    run(*lathe, "compare", "bundle", "bundle", "--data", data, "--html", "compare.html")
    said = run("-c", "import lathe; print(lathe.load('bundle')(['good'])[0].label)")
    assert said.strip() in SENTIMENT


@pytest.mark.parametrize("run", [["serve", "ray"]], indirect=True, ids=repr)
def test_a_file_is_scored(run: Run, sentiment_bundle: Bundle, sentiment_data: Path) -> None:
    run(
        "-m",
        "lathe",
        "score",
        sentiment_bundle.path,
        "--in",
        sentiment_data,
        "--out",
        "scored.csv",
        "--prefix",
        "mine_",
    )
    run("-c", "import ray.data")  # test_ray.py scores on a cluster


@pytest.mark.parametrize("run", [["client"]], indirect=True, ids=repr)
def test_a_service_is_asked(run: Run, live_service: LiveService) -> None:
    ask = f"import lathe; print(lathe.Client({live_service.url!r}).classify(['good'], model='sentiment')[0].label)"
    assert run("-c", ask).strip() in SENTIMENT
