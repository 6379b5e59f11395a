"""A model that gives a number: its rows, parents and bundle."""

import shutil
from pathlib import Path

import pytest

from compression.bundle import Bundle
from compression.data import read_examples
from compression.train.finetune import FinetuneOptions, finetune
from tests.commands import compressed
from tests.conftest import made_once
from tests.numbers.rows import MIDDLE, SCALE, change, write_rows


@pytest.fixture(scope="session")
def data(workspace: Path) -> Path:
    return made_once(workspace / "numbers.csv", lambda path: write_rows(path, 600, seed=1))


@pytest.fixture(scope="session")
def number_parent(workspace: Path, encoder: Path, data: Path) -> Path:
    def train(out: Path) -> None:
        validation = read_examples(write_rows(out.with_suffix(".validation.csv"), 80, seed=2))
        options = FinetuneOptions(epochs=8, batch_size=16, learning_rate=3e-3, precision="fp32", number=True)
        finetune(str(encoder), read_examples(data), validation, out, options)

    return made_once(workspace / "number-parent", train)


@pytest.fixture(scope="session")
def score_parent(workspace: Path, number_parent: Path) -> Path:
    """The same with a sigmoid: what transformers' pipeline makes of one output without a problem_type."""

    def make(out: Path) -> None:
        shutil.copytree(number_parent, out)
        change(out, problem_type=None)
        from safetensors.torch import load_file, save_file

        state = load_file(out / "model.safetensors")
        state["classifier.weight"] /= SCALE
        state["classifier.bias"] = (state["classifier.bias"] - MIDDLE) / SCALE
        save_file(state, out / "model.safetensors", {"format": "pt"})

    return made_once(workspace / "score-parent", make)


@pytest.fixture(scope="session")
def float_bundle(workspace: Path, number_parent: Path, data: Path) -> Bundle:
    return compressed(workspace, number_parent, data, "float")
