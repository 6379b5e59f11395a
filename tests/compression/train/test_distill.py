import dataclasses
from pathlib import Path

import pytest
import torch

from compression.data import read_examples
from compression.parent.checkpoint import Parent
from compression.recipe import RecoverStep
from compression.train import distill as module
from compression.train.distill import recover


@pytest.fixture(scope="module")
def texts(sentiment_data: Path) -> tuple[str, ...]:
    return read_examples(sentiment_data).single_texts[:96]


class Killed(BaseException):
    """Nothing catches it, like a signal."""


STEP = RecoverStep(step="recover", epochs=3, patience=3, learning_rate=1e-3)


def run(parent: Parent, texts: tuple[str, ...], unfinished: Path, step: RecoverStep = STEP) -> dict[str, torch.Tensor]:
    damaged = dataclasses.replace(parent, model=type(parent.model)(parent.model.config).eval())
    damaged.model.load_state_dict(
        {name: tensor * (0.5 if "output" in name else 1.0) for name, tensor in parent.model.state_dict().items()}
    )
    state: dict[str, torch.Tensor] = recover(
        parent, damaged, texts[:64], texts[64:], step, unfinished
    ).model.state_dict()
    return state


def require_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_killed_after_any_epoch_ends_as_it_would_have(
    epochs: int, parent: Parent, texts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(parent, texts, tmp_path / "whole")
    keep = module._Training.keep

    def kill(training: module._Training, path: Path) -> None:
        keep(training, path)
        if training.epochs == epochs:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module._Training, "keep", kill)
        with pytest.raises(Killed):
            run(parent, texts, tmp_path / "part")
    learned: list[int] = []

    def note(training: module._Training, path: Path) -> None:
        learned.append(training.epochs)
        keep(training, path)

    with monkeypatch.context() as patched:
        patched.setattr(module._Training, "keep", note)
        require_equal(run(parent, texts, tmp_path / "part"), whole)
    assert learned == list(range(epochs + 1, 4))  # what was done is not done again


def test_a_damaged_file_is_as_good_as_none(parent: Parent, texts: tuple[str, ...], tmp_path: Path) -> None:
    whole = run(parent, texts, tmp_path / "whole")
    (tmp_path / "damaged").write_bytes((tmp_path / "whole").read_bytes()[:1000])
    require_equal(run(parent, texts, tmp_path / "damaged"), whole)


def test_it_is_never_worse_than_what_came(parent: Parent, texts: tuple[str, ...], tmp_path: Path) -> None:
    wild = STEP.model_copy(update={"learning_rate": 10.0, "epochs": 1})
    came = run(parent, texts, tmp_path / "none", STEP.model_copy(update={"learning_rate": 1e-30, "epochs": 1}))
    require_equal(run(parent, texts, tmp_path / "wild", wild), came)
