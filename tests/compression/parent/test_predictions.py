"""What a parent's logits say: of one label, of several, and of a number."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from compression.parent.predictions import divergence, outcomes
from compression.prune.observe import fisher_directions

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.0, 0.0]])
OTHER = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 3.0, 4.0]])


def model(problem: str | None, outputs: int = 3) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        problem_type=problem, num_labels=outputs,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def test_a_divergence_of_several_labels_is_the_sum_of_theirs() -> None:
    apart = model("multi_label_classification")
    found = divergence(apart, outcomes(apart, LOGITS), outcomes(apart, OTHER))
    bernoullis = (torch.distributions.Bernoulli(logits=logits) for logits in (LOGITS, OTHER))
    assert torch.allclose(found, torch.distributions.kl_divergence(*bernoullis).sum(-1))


def test_a_divergence_of_one_label_is_that_of_the_classes() -> None:
    found = divergence(model(None), outcomes(model(None), LOGITS), outcomes(model(None), OTHER))
    classes = (torch.distributions.Categorical(logits=logits) for logits in (LOGITS, OTHER))
    assert torch.allclose(found, torch.distributions.kl_divergence(*classes))


def test_a_divergence_of_numbers_is_that_of_normal_distributions() -> None:
    one, other = LOGITS[:, :1], OTHER[:, :1]
    number = model("regression", 1)
    found = divergence(number, outcomes(number, one), outcomes(number, other), spread=1.7)
    normals = (torch.distributions.Normal(logits, 1.7) for logits in (one, other))
    assert torch.allclose(found, torch.distributions.kl_divergence(*normals)[:, 0])


def test_a_number_that_is_a_sigmoid_is_the_probability_of_one_label() -> None:
    one = model(None, 1)
    found = divergence(one, outcomes(one, LOGITS[:, :1]), outcomes(one, OTHER[:, :1]))
    bernoullis = (torch.distributions.Bernoulli(logits=logits[:, 0]) for logits in (LOGITS, OTHER))
    assert torch.allclose(found, torch.distributions.kl_divergence(*bernoullis))


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_of_one_label_it_is_that_of_the_softmax(problem: str | None) -> None:
    assert torch.equal(outcomes(model(problem), LOGITS), LOGITS.log_softmax(-1))


def test_directions_have_the_covariance_of_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = LOGITS[:1].repeat(40_000, 1)
    (first, _) = fisher_directions(model("multi_label_classification"), rows, generator)
    probability = LOGITS[0].sigmoid()
    assert first.T.cov() == pytest.approx(torch.diag(probability * (1 - probability)).numpy(), abs=0.01)
