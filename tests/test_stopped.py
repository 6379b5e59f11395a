"""`lathe compress` as a process of its own that is killed, or whose disk is full."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compression.bundle import Bundle, open_bundle

pytestmark = pytest.mark.slow

LEARNING = """
schema_version: 1
name: learning
steps:
  - {step: prune_vocabulary, keep_most_frequent: 0}
  - {step: recover, epochs: 3, patience: 3}
  - {step: export}
"""
# Python reports each file that it opens or moves before it does so; the third such report that fits kills, say.
KILLED_AT = """
import os, re, signal, sys
event, pattern, count = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
def watch(name, arguments):
    global count
    if name == event and re.search(pattern, str(arguments)):
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from lathe import main
main()
"""


class Runs:
    """Runs the command on the same input, each time with the same cache and destination."""

    def __init__(self, parent: Path, data: Path, folder: Path) -> None:
        self.out, self.cache = folder / "out" / "bundle", folder / "cache"
        self._learning = folder / "recipe.yaml"
        self._learning.write_text(LEARNING)
        self._arguments = [
            "compress", str(parent), "--data", str(data), "--out", str(self.out), "--cache", str(self.cache),
        ]  # fmt: skip

    def run(self, recipe: str, *start: str, largest_file: int | None = None) -> tuple[int, str]:
        """Exit code and standard error.

        Args:
            largest_file: in bytes; writing more fails, as it does on a full disk.
        """
        how = ["--recipe", str(self._learning) if recipe == "learning" else recipe]
        if recipe == "search":
            how = ["--budget", "min_agreement=0.5", "--trials", "2"]
        command = [sys.executable, *(start or ("-m", "lathe")), *self._arguments, *how]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            if largest_file is not None:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest_file, largest_file))
            _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    def finish(self, recipe: str) -> tuple[Bundle, str]:
        code, errors = self.run(recipe)
        assert code == 0, errors
        return open_bundle(self.out), errors

    def kill(self, recipe: str, event: str, pattern: str, count: int = 1) -> None:
        """Kills a run when this is about to happen for the `count`-th time."""
        code, errors = self.run(recipe, "-c", KILLED_AT, event, pattern, str(count))
        assert code == -signal.SIGKILL, errors


@pytest.fixture
def runs(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> Runs:
    return Runs(sentiment_parent, sentiment_data, tmp_path)


def test_a_killed_run_leaves_no_bundle_and_the_next_one_goes_on(runs: Runs) -> None:
    runs.kill("learning", "open", "/steps/.*/tokenizer_config.json")  # in the middle of keeping the first step
    runs.kill("learning", "os.rename", "/steps/.*unfinished", 3)  # after the third epoch, before that is kept
    assert not runs.out.exists()
    resumed, errors = runs.finish("learning")
    assert [step.cached for step in resumed.manifest.figures.steps] == [True, False, False]
    assert [f"epoch {epoch} of 3" in errors for epoch in (1, 2, 3)] == [False, True, True]  # 2: what it begins with
    assert not list((runs.cache / "steps").glob("*.unfinished"))
    shutil.rmtree(runs.cache)
    assert runs.finish("learning")[0].version == resumed.version  # as if none had been killed


def test_a_run_killed_while_it_writes_leaves_the_older_bundle(runs: Runs) -> None:
    older = runs.finish("float")[0].manifest
    runs.kill("float", "open", r"/\.bundle\..*/bundle/tokenizer\.json', 'w")
    assert open_bundle(runs.out).manifest == older
    runs.kill("float", "ctypes.dlsym", "renameat2")  # the next thing that it does is to let them change places
    assert open_bundle(runs.out).manifest == older
    left = list(runs.out.parent.iterdir())
    assert len(left) == 3  # the bundle, and what each of the two had written
    for path in left:
        os.utime(path, (0, 0))  # long ago
    assert runs.finish("float")[0].manifest.version() == older.version()
    assert list(runs.out.parent.iterdir()) == [runs.out]


@pytest.mark.parametrize(
    ("recipe", "largest_file", "place", "remedy"),
    [
        ("learning", 100_000, "/cache/steps/", "--cache"),  # a finished step
        ("learning", 900_000, ".unfinished", "--cache"),  # an epoch
        ("safe", 200_000, "/cache/steps/", "--cache"),  # the graph that is exported
        ("search", 100_000, "/cache/steps/", "--cache"),  # the graph of a candidate
    ],
)
def test_a_full_disk_is_one_sentence(runs: Runs, recipe: str, largest_file: int, place: str, remedy: str) -> None:
    code, errors = runs.run(recipe, largest_file=largest_file)
    assert code == 1
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    path, _, rest = sentence.partition(": cannot be written: File too large; make room there, or ")
    assert place in path
    assert remedy in rest
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
    code, errors = runs.run("float")
    assert code == 1
    assert f"error: {runs.out}: cannot be written: No space left on device; make room there, or name another" in errors
    assert "directory with --out" in errors
    assert list(tiny_disk.iterdir()) == []
    runs.out.parent.unlink()
    assert all(step.cached for step in runs.finish("float")[0].manifest.figures.steps)  # nothing was lost
