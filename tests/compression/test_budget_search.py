import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compression.budget_search import Search, Trial, broken_bounds, candidate_recipe, search
from compression.bundle import Encoded, Logits, Runtime
from compression.data import Columns, read_examples
from compression.errors import VerificationError
from compression.parent.checkpoint import Parent
from compression.parent.classifier import BundleClassifier, ParentClassifier, predict
from compression.recipe import Budget

pytestmark = pytest.mark.slow

LIMITS = Search(trials=3, time_limit_s=600)


@pytest.fixture(scope="module")
def cache(workspace: Path) -> Path:
    return workspace / "search-cache"


def test_the_fastest_inside_the_budget_is_written_with_every_candidate(
    sentiment_parent: Path, sentiment_data: Path, cache: Path, tmp_path: Path
) -> None:
    budget = Budget(min_agreement=0.9, max_size_mb=1.0)
    bundle = search(str(sentiment_parent), sentiment_data, budget, tmp_path / "out", Columns(), cache, LIMITS)
    record = json.loads((tmp_path / "out" / "search.json").read_text("utf-8"))
    assert len(record["trials"]) == 3
    assert bundle.manifest.figures.agreement >= 0.9
    inside = [trial for trial in record["trials"] if not trial["broken"]]
    if record["judged"] == 1:
        assert record["chosen"] == max(inside, key=lambda trial: trial["speedup"])["number"]
    chosen = next(trial for trial in inside if trial["number"] == record["chosen"])
    assert chosen["recipe"]["steps"] == bundle.manifest.recipe["steps"]
    assert any(trial["on_front"] for trial in record["trials"])


def test_a_search_that_finds_nothing_says_what_stopped_it_and_is_not_repeated(
    sentiment_parent: Path, sentiment_data: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    budget = Budget(max_size_mb=0.001)
    for run in range(2):
        with pytest.raises(VerificationError, match=r"none of 3 candidates .* above max_size_mb 0\.001"):
            search(str(sentiment_parent), sentiment_data, budget, tmp_path / "out", Columns(), cache, LIMITS)
        assert capfd.readouterr().err.count("Candidate ") == (3 if run == 0 else 0)
    assert not (tmp_path / "out").exists()


def test_no_time_is_an_error_that_says_so(sentiment_parent: Path, sentiment_data: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="--time-limit"):
        search(
            str(sentiment_parent), sentiment_data, Budget(max_size_mb=1), tmp_path / "out", Columns(), tmp_path / "c",
            Search(trials=3, time_limit_s=0),
        )  # fmt: skip


def test_a_collapsed_candidate_is_kept_out_and_quotes_no_text(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_alike(self: BundleClassifier, batch: Sequence[Encoded]) -> Logits:
        return np.tile(np.array([[3.0, -3.0]], np.float32), (len(batch), 1))

    monkeypatch.setattr(Runtime, "logits", answer_alike)
    texts = read_examples(sentiment_data).single_texts
    with pytest.raises(VerificationError, match="answers 'negative' to all") as failure:
        search(
            str(sentiment_parent), sentiment_data, Budget(max_size_mb=9), tmp_path / "out", Columns(), tmp_path / "c",
            Search(trials=1),
        )  # fmt: skip
    assert not any(text in str(failure.value) for text in texts)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(), ()),
        (Budget(max_size_mb=9), ("size_mb 10 above max_size_mb 9",)),
        (
            Budget(min_speedup=5, min_agreement=0.99),
            ("agreement 0.95 below min_agreement 0.99", "speedup 4 below min_speedup 5"),
        ),
        (Budget(max_accuracy_drop=1), ("accuracy drop 1.5 above max_accuracy_drop 1",)),
        (Budget(max_size_mb=10, min_speedup=4, min_agreement=0.95, max_accuracy_drop=1.5), ()),
    ],
)  # fmt: skip
def test_each_broken_bound_is_named(budget: Budget, expected: tuple[str, ...]) -> None:
    trial = Trial(number=1, recipe={}, size_mb=10, speedup=4, agreement=0.95, accuracy_drop=1.5)
    assert broken_bounds(trial, budget) == expected


def test_where_only_answers_fail_the_best_is_recovered_in_int8_once(
    parent: Parent, sentiment_data: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unsure = copy.deepcopy(parent)  # knows nothing: many texts are near the border between its labels
    generator = torch.Generator().manual_seed(2)
    for weight in unsure.model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.2, generator=generator)
    logits = predict(ParentClassifier(unsure), read_examples(sentiment_data).texts, "Judge")
    head = unsure.model.get_submodule("classifier")
    assert isinstance(head, nn.Linear)
    head.bias.data[0] -= float(np.median(logits[:, 0] - logits[:, 1]))
    unsure.model.save_pretrained(tmp_path / "unsure")
    unsure.tokenizer.save_pretrained(tmp_path / "unsure")
    for run in range(2):
        with pytest.raises(VerificationError, match=r"none of 2 candidates .* below min_agreement 1"):
            search(
                str(tmp_path / "unsure"), sentiment_data, Budget(min_agreement=1), tmp_path / "out", Columns(), cache,
                Search(trials=1),
            )  # fmt: skip
        assert capfd.readouterr().err.count("one more: recover in int8, int8") == (1 if run == 0 else 0)


def test_choices_that_mean_the_same_are_the_same_recipe() -> None:
    budget = Budget(max_size_mb=3)
    choices = {"vocabulary": "all", "keep": 1.0, "numbers": "int8"}
    one, other = (candidate_recipe({**choices, "recover": recover}, budget) for recover in ("float32", "no"))
    assert one == other
    assert one.storage == "zstd"
    assert [step.step for step in one.steps] == ["export", "quantize"]
    less = {**choices, "keep": 0.5, "numbers": "float32"}
    one, other = (candidate_recipe({**less, "recover": recover}, budget) for recover in ("float32", "int8"))
    assert one == other


def test_coarse_numbers_are_stored_compressed_whatever_the_budget() -> None:
    choices = {"vocabulary": "all", "keep": 1.0, "recover": "no", "numbers": "int8, coarse"}
    assert candidate_recipe(choices, Budget(min_agreement=0.9)).storage == "zstd"
