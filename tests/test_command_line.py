"""The `lathe` command, run as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

from compression.bundle import Bundle


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


def test_evaluate_takes_a_parent_too(sentiment_parent: Path, sentiment_data: Path) -> None:
    result = lathe("evaluate", str(sentiment_parent), "--data", str(sentiment_data), "--json")
    assert json.loads(result.stdout)["accuracy"] > 0.9


def test_inspect_gives_the_manifest(sentiment_bundle: Bundle) -> None:
    manifest = json.loads(lathe("inspect", str(sentiment_bundle.path), "--json").stdout)
    assert manifest["version"].startswith(sentiment_bundle.version)
    assert manifest["labels"] == ["negative", "positive"]
    assert sentiment_bundle.version in lathe("inspect", str(sentiment_bundle.path)).stdout


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


def test_keys_are_added_listed_and_revoked(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    key = lathe("keys", "add", "shop", "--file", file).stdout.strip()
    assert key.startswith("lathe_")
    assert "shop" in lathe("keys", "list", "--file", file).stdout
    assert "revoked" in lathe("keys", "revoke", "shop", "--file", file).stdout
    assert lathe("keys", "list", "--file", file).stdout == ""
    assert lathe("keys", "revoke", "shop", "--file", file).stderr.startswith("error: ")
