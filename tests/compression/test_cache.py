from pathlib import Path

import pytest
from click.testing import CliRunner

from lathe import main


def fill(folder: Path) -> Path:
    for name in (
        "steps/one/model.onnx",
        "steps/two.unfinished",
        "searches/a.log",
        "attention-price-64.txt",
        "mine.txt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1_000_000))
    return folder


def test_the_cache_is_shown_and_cleared(tmp_path: Path) -> None:
    cache = fill(tmp_path / "cache")
    shown = CliRunner().invoke(main, ["cache", "show", "--cache", str(cache)]).stdout
    assert [line.split()[:3] for line in shown.splitlines()[:3]] == [
        ["steps", "2", "2.0"],
        ["searches", "1", "1.0"],
        ["attention-price-*.txt", "1", "1.0"],
    ]
    assert shown.endswith(f"{cache}: 4.0 MB; steps are kept up to 8 GB\n")
    assert CliRunner().invoke(main, ["cache", "clear", "--cache", str(cache)]).exit_code == 0
    assert [path.name for path in cache.iterdir()] == ["mine.txt"]  # not ours
    assert CliRunner().invoke(main, ["cache", "show", "--cache", str(tmp_path / "none")]).exit_code == 0


@pytest.mark.parametrize(("variable", "place"), [("/there", "/there/lathe"), ("", "/home/.cache/lathe"),
                                                 ("not/absolute", "/home/.cache/lathe")])  # fmt: skip
def test_the_cache_lies_where_the_user_keeps_caches(
    variable: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", variable and variable.replace("/there", f"{tmp_path}/there"))
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    shown = CliRunner().invoke(main, ["cache", "show"]).stdout
    assert shown.startswith(f"{tmp_path}{place}: 0.0 MB")
