"""A directory takes the place of another without a moment in which there is neither."""

import os
import threading
from pathlib import Path

import pytest

from compression.bundle import atomic_files as writing
from compression.errors import StorageError


def write(path: Path, content: str) -> None:
    with writing.replacing(path, "make room") as new:
        new.mkdir()
        (new / "file").write_text(content)


def test_whoever_looks_meanwhile_finds_the_old_or_the_new(tmp_path: Path) -> None:
    path, ended, missing = tmp_path / "bundle", threading.Event(), 0
    write(path, "0")

    def look() -> None:
        nonlocal missing
        while not ended.is_set():
            missing += not os.path.isdir(path)

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(500):
        write(path, str(number))
    ended.set()
    looking.join()
    assert missing == 0
    assert (path / "file").read_text() == "499"
    assert list(tmp_path.iterdir()) == [path]


def test_without_such_a_step_the_old_one_comes_back_where_the_new_one_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_exchange", lambda one, other: False)
    path, replace = tmp_path / "bundle", os.replace
    write(path, "old")
    write(path, "new")
    assert (path / "file").read_text() == "new"

    def refuse_into_place(source: Path, target: Path) -> None:
        if target == path and source.name == "bundle":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_into_place)
    with pytest.raises(StorageError, match="make room"):
        write(path, "newest")
    assert (path / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
