"""What a parent's logits say: of one label, and of several."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from compression.parent.predictions import log_probabilities
from compression.prune.observe import fisher_directions

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.0, 0.0]])
OTHER = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 3.0, 4.0]])


def model(problem: str | None) -> Any:
    return SimpleNamespace(config=SimpleNamespace(problem_type=problem))


def test_a_divergence_of_several_labels_is_the_sum_of_theirs() -> None:
    one, other = (log_probabilities(model("multi_label_classification"), logits) for logits in (LOGITS, OTHER))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=LOGITS), torch.distributions.Bernoulli(logits=OTHER)
    ).sum()
    assert float(functional.kl_div(other, one, log_target=True, reduction="batchmean")) == pytest.approx(
        float(expected) / 2
    )


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_of_one_label_it_is_that_of_the_softmax(problem: str | None) -> None:
    assert torch.equal(log_probabilities(model(problem), LOGITS), LOGITS.log_softmax(-1))


def test_directions_have_the_covariance_of_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = LOGITS[:1].repeat(40_000, 1)
    (first, _) = fisher_directions(model("multi_label_classification"), rows, generator)
    probability = LOGITS[0].sigmoid()
    assert first.T.cov() == pytest.approx(torch.diag(probability * (1 - probability)).numpy(), abs=0.01)
