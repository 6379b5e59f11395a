"""`lathe compress` as a process of its own that is killed, or whose disk is full."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compression.bundle import Bundle, open_bundle

RECIPE = """
schema_version: 1
name: stopped
steps:
  - {step: prune_vocabulary, keep_most_frequent: 0}
  - {step: recover, epochs: 3, patience: 3}
  - {step: export}
  - {step: quantize}
"""


class Runs:
    """Starts the command on the same input, each time with the same cache and destination."""

    def __init__(self, parent: Path, data: Path, folder: Path) -> None:
        self.out, self.cache = folder / "out" / "bundle", folder / "cache"
        (folder / "recipe.yaml").write_text(RECIPE)
        self._command = [
            sys.executable, "-m", "lathe", "compress", str(parent), "--data", str(data), "--out", str(self.out),
            "--cache", str(self.cache), "--recipe", str(folder / "recipe.yaml"),
        ]  # fmt: skip

    def start(self, largest_file: int | None = None) -> "subprocess.Popen[str]":
        """`largest_file`, in bytes: writing more fails, as it does on a full disk."""

        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        return subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit
        )

    def finish(self) -> Bundle:
        process = self.start()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        return open_bundle(self.out)

    def kill_when(self, there: Callable[[], bool]) -> None:
        """Kills a run as soon as this is so; a run that ends before it shows nothing."""
        with self.start() as process:
            while not there():
                assert process.poll() is None, "it ended too soon"
                time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL


@pytest.fixture
def runs(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> Runs:
    return Runs(sentiment_parent, sentiment_data, tmp_path)


def steps(cache: Path) -> list[Path]:
    return [path for path in (cache / "steps").glob("[0-9a-f]*") if path.is_dir()]


def test_a_killed_run_leaves_no_bundle_and_the_next_one_goes_on(runs: Runs) -> None:
    def unfinished() -> list[Path]:
        return list((runs.cache / "steps").glob("*.unfinished"))

    runs.kill_when(lambda: len(steps(runs.cache)) == 1)
    assert not runs.out.exists()
    runs.kill_when(lambda: bool(unfinished()))
    assert not runs.out.exists()
    assert len(steps(runs.cache)) == 1  # killed within the second step, after an epoch
    with runs.start() as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Step prune_vocabulary, done before" in errors
    assert "epoch 1 of 3" not in errors.split("at best")[-1].partition("\n")[2]
    assert not unfinished()
    resumed = open_bundle(runs.out)
    assert [step.cached for step in resumed.manifest.figures.steps] == [True, False, False, False]
    shutil.rmtree(runs.cache)
    assert runs.finish().version == resumed.version  # as if it had not been killed


def test_a_run_killed_while_it_writes_leaves_the_older_bundle_or_the_new_one(runs: Runs) -> None:
    older = runs.finish().manifest.digest()
    runs.kill_when(lambda: any(path.name != runs.out.name for path in runs.out.parent.iterdir()))
    if runs.out.exists():  # between two moves of whole directories there is none
        open_bundle(runs.out)
    for left in runs.out.parent.glob(".*"):
        os.utime(left, (0, 0))  # long ago
    assert runs.finish().manifest.digest() != older
    assert [path.name for path in runs.out.parent.iterdir()] == [runs.out.name]


@pytest.mark.parametrize("largest_file", [3_000, 100_000, 400_000, 900_000])
def test_a_full_disk_is_one_sentence(runs: Runs, largest_file: int) -> None:
    with runs.start(largest_file) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "cannot be written: File too large; make room there, or" in sentence
    assert "Traceback" not in errors
    assert not runs.out.exists()
    assert not list(runs.cache.rglob(".*"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 kB, which a bundle does not fit in."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a filesystem")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_bundle_that_does_not_fit_on_its_disk_is_not_there(runs: Runs, tiny_disk: Path) -> None:
    runs.out.parent.symlink_to(tiny_disk)
    with runs.start() as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"error: {runs.out}: cannot be written: No space left on device; make room there, or name another" in errors
    assert "--out" in errors
    assert list(tiny_disk.iterdir()) == []
    runs.out.parent.unlink()
    assert all(step.cached for step in runs.finish().manifest.figures.steps)  # nothing was lost
