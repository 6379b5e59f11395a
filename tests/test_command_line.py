"""The `lathe` command, run as a user runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compression.bundle import Bundle
from tests.conftest import REPOSITORY, SENTIMENT, write_rows

pytestmark = pytest.mark.slow


def lathe(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lathe", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_evaluate_prints_one_json_object(
    sentiment_bundle: Bundle, sentiment_parent: Path, sentiment_data: Path
) -> None:
    result = lathe(
        "evaluate",
        str(sentiment_bundle.path),
        "--data",
        str(sentiment_data),
        "--against",
        str(sentiment_parent),
        "--json",
    )
    figures = json.loads(result.stdout)
    assert set(figures) == {"texts", "labelled", "correct", "accuracy", "macro_f1", "agreement"}
    assert figures["texts"] == figures["labelled"] == 400
    assert figures["accuracy"] == figures["correct"] / 400 > 0.9
    assert figures["agreement"] > 0.97


def test_without_labels_evaluate_gives_agreement_alone(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    bundle, data = str(sentiment_bundle.path), tmp_path / "texts.csv"
    data.write_text("text\ngood\nbad\n")
    refused = lathe("evaluate", bundle, "--data", str(data), "--json")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        f"error: {data}: no row has a label, so there is nothing to count; name the column with --label-column, or "
        "pass --against with another bundle or the parent, which needs no labels\n"
    )
    compared = lathe("evaluate", bundle, "--data", str(data), "--against", bundle, "--json")
    assert json.loads(compared.stdout) == {"texts": 2, "agreement": 1.0}


def test_evaluate_takes_a_parent_too(sentiment_parent: Path, sentiment_data: Path) -> None:
    result = lathe("evaluate", str(sentiment_parent), "--data", str(sentiment_data), "--json")
    assert json.loads(result.stdout)["accuracy"] > 0.9


def test_inspect_gives_the_manifest(sentiment_bundle: Bundle) -> None:
    manifest = json.loads(lathe("inspect", str(sentiment_bundle.path), "--json").stdout)
    assert manifest["version"].startswith(sentiment_bundle.version)
    assert manifest["labels"] == ["negative", "positive"]
    assert sentiment_bundle.version in lathe("inspect", str(sentiment_bundle.path)).stdout


def test_a_user_without_a_home_directory_is_told_so(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import pwd\ndef none(_): raise KeyError\npwd.getpwuid = none\n")
    homes = ("HOME", "XDG_CACHE_HOME", "BENTOML_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in homes}
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), str(REPOSITORY)))
    (tmp_path / "empty").mkdir()
    for arguments in (("cache", "show"), ("store", str(sentiment_bundle.path), "--name", "mine")):
        result = subprocess.run(
            [sys.executable, "-m", "lathe", *arguments],
            env=environment, cwd=tmp_path / "empty", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 1
        assert result.stderr.startswith("error: this user has no home directory; ")
        assert result.stderr.count("\n") == 1
    assert list((tmp_path / "empty").iterdir()) == []


def test_failures_are_one_line_and_exit_code_1(tmp_path: Path, sentiment_parent: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("body\nx\n")
    for arguments in (
        ("inspect", str(tmp_path)),
        ("evaluate", str(sentiment_parent), "--data", str(data)),
        ("compress", str(tmp_path), "--data", str(data), "--out", str(tmp_path / "out")),
        ("compress", str(sentiment_parent), "--data", str(data), "--out", str(tmp_path / "out"), "--recipe", "none"),
    ):
        result = lathe(*arguments)
        assert result.returncode == 1, arguments
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_one_line(sentiment_bundle: Bundle, sentiment_data: Path, tmp_path: Path) -> None:
    bundle, data, file = str(sentiment_bundle.path), str(sentiment_data), tmp_path / "file"
    file.touch()
    for message, arguments in (
        ("is no directory", ("compare", bundle, "--html", str(tmp_path / "no" / "x.html"))),
        ("no name for a model", ("store", bundle, "--name", "My Model")),
        ("the directory that you are in", ("compress", "x", "--data", data, "--out", ".")),
        ("the directory that you are in", ("compress", "x", "--data", data, "--out", "..")),
        (f"{file}: is a file", ("compress", "x", "--data", data, "--out", str(file / "x"))),
        (str(file), ("keys", "add", "shop", "--file", str(file / "keys.json"))),
        (f"{file}: is a file", ("compress", "x", "--data", data, "--out", str(file / "x"))),
        ("No such option", ("compare", bundle, "--htlm", "x")),
        ("Missing argument", ("compare",)),
        ("No such command", ("compres",)),
        ("'0' is not a list of whole numbers", ("bench", bundle, "--batches", "0")),
    ):
        result = lathe(*arguments)
        assert result.returncode in (1, 2), arguments
        assert result.stderr.splitlines()[-1].startswith("error: "), result.stderr
        assert message in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr


def test_a_name_with_a_comma_is_a_name(sentiment_bundle: Bundle, sentiment_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "a, b=c"
    shutil.copytree(sentiment_bundle.path, place)
    for command in (("inspect",), ("compare",), ("evaluate", "--data", str(sentiment_data))):
        result = lathe(command[0], str(place), *command[1:])
        assert result.returncode == 0, result.stderr


def interrupted(arguments: list[str], started: Callable[[], bool]) -> tuple[int, str]:
    """Exit code and last line on standard error of a command that gets Ctrl-C once it has started."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, "-m", "lathe", *arguments], stderr=errors)
        try:
            while not started():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
        finally:
            process.kill()
        errors.seek(0)
        return code, errors.read().splitlines()[-1]


def test_after_ctrl_c_it_says_how_to_go_on(
    sentiment_bundle: Bundle, sentiment_parent: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    compress = ["compress", str(sentiment_parent), "--data", str(sentiment_data), "--out", str(out), "--recipe", "safe"]
    said = interrupted([*compress, "--cache", str(cache)], lambda: any(cache.glob("steps/*")))
    assert said == (130, "error: stopped; run the same command again to go on from the last finished step")
    rows = write_rows(tmp_path / "rows.csv", SENTIMENT, 100_000, seed=1)
    score = ["score", str(sentiment_bundle.path), "--in", str(rows), "--out", str(tmp_path / "scored.csv")]
    said = interrupted(score, (tmp_path / "scored.csv.progress").is_dir)
    assert said == (130, "error: stopped; run the same command again to go on")
    resume = ["finetune", str(sentiment_parent), "--data", str(sentiment_data), "--out", str(out), "--epochs", "1000"]
    said = interrupted([*resume, "--precision", "fp32"], lambda: any(out.glob("checkpoints/*/trainer_state.json")))
    assert said == (130, "error: stopped; add --resume to go on from the last finished epoch")


def test_keys_are_added_listed_and_revoked(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    key = lathe("keys", "add", "shop", "--file", file).stdout.strip()
    assert key.startswith("lathe_")
    assert "shop" in lathe("keys", "list", "--file", file).stdout
    assert "revoked" in lathe("keys", "revoke", "shop", "--file", file).stdout
    assert lathe("keys", "list", "--file", file).stdout == ""
    assert lathe("keys", "revoke", "shop", "--file", file).stderr.startswith("error: ")
