from itertools import combinations

import pytest
import torch
from transformers import PreTrainedModel

from compression.prune.encoder import Kind, sublayers
from compression.prune.masks import Line, mask_gradients, rearrange, search_masks
from tests.compression.architectures import classifier

BATCH = {
    "input_ids": torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_fisher_information_is_the_curvature_of_the_divergence(kind: str) -> None:
    model = classifier(kind).eval()
    step = 1e-2
    for at, known in enumerate(mask_gradients(model, [BATCH])):
        for unit in (0, 3):
            part = sublayers(model)[at]
            weight = part.output.weight.data.clone()
            expected = torch.stack([logits.log_softmax(-1) for logits in forward(model)])
            part.output.weight.data[:, part.columns([unit])] *= 1 - step
            moved = torch.stack([logits.log_softmax(-1) for logits in forward(model)])
            part.output.weight.data = weight
            moves = (expected.exp() * (expected - moved)).sum(-1).mean()
            assert float(known.square().mean(0)[unit]) * step**2 / 2 == pytest.approx(float(moves), rel=0.2)


def forward(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model.double()(**BATCH).logits  # type: ignore[no-any-return]


def gradients_of(*fisher: float) -> torch.Tensor:
    return torch.tensor([fisher]).sqrt()


def test_the_search_gives_up_as_little_information_as_the_time_allows() -> None:
    known = [gradients_of(9, 4, 3), gradients_of(5, 1, 1, 1), gradients_of(8, 2, 1), gradients_of(6, 2, 1.5, 0)]
    kinds: list[Kind] = ["attention", "ffn"] * 2
    lines = [Line(1, 4), Line(1, 1)] * 2
    # 19 of 36 may stay, of which the fixed parts and the best units take 14: a head and a neuron, or five neurons.
    assert search_masks(known, lines, kinds, 19 / 36) == [[0], [0, 1, 2, 3], [0], [0, 1, 2]]
    known[0] = gradients_of(9, 8, 3)
    assert search_masks(known, lines, kinds, 19 / 36) == [[0, 1], [0], [0], [0, 1]]


def test_rearrangement_sees_that_two_units_make_up_for_each_other() -> None:
    signal = torch.randn(200, generator=torch.Generator().manual_seed(0))
    other = torch.randn(200, generator=torch.Generator().manual_seed(1))
    # Without the first two nothing changes; the third is the least of all when it goes alone.
    gradients = torch.stack([signal, -signal, 0.5 * other, 2 * other], dim=1)
    assert rearrange(gradients, [0, 3]) == [2, 3]
    losses = {
        pair: float(gradients[:, [unit for unit in range(4) if unit not in pair]].sum(1).square().sum())
        for pair in combinations(range(4), 2)
    }
    assert min(losses, key=losses.__getitem__) == (2, 3)
    assert rearrange(gradients, range(4)) == [0, 1, 2, 3]


def test_neurons_go_in_groups_that_matter_alike() -> None:
    gradients = [gradients_of(1), gradients_of(9, 1, 8, 2, 7, 3, 6)]
    lines = [Line(1, 4), Line(1, 1)]
    kinds: list[Kind] = ["attention", "ffn"]
    # 11 of 13 may stay: the fixed parts, the head, and 5 neurons, of which only two groups of two fit.
    assert search_masks(gradients, lines, kinds, 11 / 13, multiple=2) == [[0], [0, 2, 4, 6]]
    assert search_masks(gradients, lines, kinds, 0.01, multiple=2) == [[0], [0, 2]]  # the least there is
    assert search_masks(gradients, lines, kinds, 1.0, multiple=2) == [[0], list(range(7))]
