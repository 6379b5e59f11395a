"""What each command does where extras are not installed: their packages cannot be imported."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from compression.bundle import Bundle, extra

ROOT = Path(__file__).resolve().parent.parent
COMPRESS = ("torch", "transformers", "optimum", "peft", "onnx", "scipy", "sklearn", "optuna", "safetensors", "pyarrow")
SERVE = ("onnxruntime", "bentoml", "prometheus_client", "orjson", "httpx", "uvicorn", "jinja2", "yaml", "starlette")
BLOCKED = """
import sys
absent = set(sys.argv.pop(1).split(","))
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Block())
from lathe import main
main()
"""


def lathe(absent: tuple[str, ...], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BLOCKED, ",".join(absent), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def require_line(result: "subprocess.CompletedProcess[str]", line: str) -> None:
    assert result.returncode == 1
    (said,) = [part for part in result.stderr.splitlines() if not part.startswith("Timed without")]
    assert said.startswith(f"error: {line}")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("inspect", "BUNDLE"), ("compare", "BUNDLE"),
                                       ("keys", "add", "shop", "--file", "KEYS")])  # fmt: skip
def test_without_extras(arguments: tuple[str, ...], sentiment_bundle: Bundle, tmp_path: Path) -> None:
    places = {"BUNDLE": str(sentiment_bundle.path), "KEYS": str(tmp_path / "keys.json")}
    result = lathe((*COMPRESS, *SERVE), *(places.get(word, word) for word in arguments))
    assert result.returncode == 0, result.stderr
    assert result.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("compress", "DIR", "--data", "DATA", "--out", "OUT"), "this command needs the extra compress"),
        (("finetune", "DIR", "--data", "DATA", "--out", "OUT"), "this command needs the extra compress"),
        (("store", "BUNDLE", "--name", "mine"), "this command needs the extra serve"),
        (("score", "BUNDLE", "--in", "DATA", "--out", "OUT"), "this command needs the extra serve"),
        (("evaluate", "BUNDLE", "--data", "DATA"), "running a bundle needs the extra serve"),
        (("bench", "BUNDLE"), "running a bundle needs the extra serve"),
        (("compare", "BUNDLE", "--data", "DATA"), "running a bundle needs the extra serve"),
        (("compare", "BUNDLE", "--html", "OUT"), "a page needs the extra serve"),
    ],
)
def test_a_command_says_which_extra_it_lacks(
    arguments: tuple[str, ...], line: str, sentiment_bundle: Bundle, sentiment_data: Path, tmp_path: Path
) -> None:
    places = {
        "BUNDLE": str(sentiment_bundle.path),
        "DATA": str(sentiment_data),
        "DIR": str(tmp_path),
        "OUT": str(tmp_path / "out"),
    }
    name = line.rpartition(" ")[2]
    result = lathe((*COMPRESS, *SERVE), *(places.get(word, word) for word in arguments))
    require_line(result, f"{line}: pip install 'lathe[{name}]'")


def test_bundles_are_evaluated_compared_and_timed_where_they_are_served(
    sentiment_bundle: Bundle, sentiment_data: Path
) -> None:
    bundle, data = str(sentiment_bundle.path), str(sentiment_data)
    for arguments in (
        ("evaluate", bundle, "--data", data, "--against", bundle),
        ("compare", bundle, bundle, "--data", data),
        ("bench", bundle, "--batches", "1", "--tokens", "16", "--rounds", "2"),
    ):
        result = lathe(COMPRESS, *arguments)
        assert result.returncode == 0, result.stderr
    assert "Timed without its parent" in result.stderr  # by bench


def test_what_needs_more_than_a_bundle_says_so(
    sentiment_bundle: Bundle, sentiment_data: Path, sentiment_parent: Path, tmp_path: Path
) -> None:
    bundle, parent = str(sentiment_bundle.path), str(sentiment_parent)
    remedy = "needs the extra compress: pip install 'lathe[compress]'"
    result = lathe(COMPRESS, "evaluate", bundle, "--data", str(sentiment_data), "--against", parent)
    assert f"error: {parent}: a parent {remedy} (" in result.stderr
    require_line(lathe(COMPRESS, "bench", bundle, "--against", parent), f"{parent}: a parent {remedy}")
    rows = tmp_path / "rows.parquet"
    rows.touch()
    line = "parquet files need pyarrow: pip install pyarrow, or use csv or jsonl"
    require_line(lathe(COMPRESS, "evaluate", bundle, "--data", str(rows)), line)


def test_a_module_of_ours_that_is_not_there_is_no_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError), extra("compress"):
        importlib.import_module("compression.nothing")
