"""What the parent teaches a smaller model: its predictions and hidden states, on variations of unlabelled texts.

Hinton et al. 2015 for the predictions; hidden states of all layers as in TinyBERT (Jiao et al. 2020), which a pruned
model can be compared with directly, since its hidden size is the parent's.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from compression.bundle import Input, Number, texts_of
from compression.parent.batches import Batch, by_length, collate, encode
from compression.parent.checkpoint import Parent
from compression.parent.predictions import divergence, outcomes
from compression.words import words

_AS_IT_IS = 0.3  # share of the texts that are not varied
_FEWEST_WORDS = 4  # of a text that is


@dataclass(frozen=True)
class Lesson:
    """A batch for the pruned model, and what the parent says of it.

    Attributes:
        outcomes: see `compression.parent.predictions`.
        spread: of the parent's numbers, where it gives numbers.
        hidden: the parent's output of each layer, (texts, tokens, width) each; none where they were not asked for.
        compared: (texts, tokens), which tokens' hidden states both models have: all of a text that both cut alike, else
            the first.
    """

    batch: Batch
    outcomes: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    compared: torch.Tensor
    spread: float = 1.0


def lessons(
    parent: Parent,
    pruned: Parent,
    texts: Sequence[Input],
    choose: random.Random | None = None,
    hidden: bool = False,
) -> Iterator[Lesson]:
    """Batches of similar length, in random order if there is something to choose it.

    Args:
        hidden: whether the hidden states are wanted.
    """
    # Of several windows the first: where later ones begin depends on the vocabulary, which is not the same in both.
    rows, parent_rows = ([one.windows[0] for one in encode(model, texts)] for model in (pruned, parent))
    groups = by_length(rows)
    if choose is not None:
        choose.shuffle(groups)
    for group in groups:
        batch = collate(pruned, [rows[position] for position in group])
        with torch.inference_mode():
            output = parent.model(
                **collate(parent, [parent_rows[position] for position in group]), output_hidden_states=hidden
            )
        compared = batch["attention_mask"].clone()
        for row, position in enumerate(group):
            if len(rows[position]) != len(parent_rows[position]):
                compared[row, 1:] = 0
        longest = compared.shape[1]
        yield Lesson(
            batch,
            outcomes(parent.model, output.logits).clone(),
            tuple(
                functional.pad(layer, (0, 0, 0, longest - layer.shape[1])).clone()
                for layer in (output.hidden_states[1:] if hidden else ())
            ),
            compared,
            parent.task.spread if isinstance(parent.task, Number) and parent.task.spread else 1.0,
        )


def distillation_loss(model: PreTrainedModel, lesson: Lesson, hidden_weight: float = 0.0) -> torch.Tensor:
    """Divergence from the parent's predictions, KL(parent || model), mean over texts; and from its hidden states.

    Args:
        hidden_weight: of the relative squared error of the hidden states, summed over the layers. Of the last layer
            only the first token counts, which is all that a classifier reads; a model with fewer layers is compared
            there alone.
    """
    output = model(**lesson.batch, output_hidden_states=bool(hidden_weight))
    loss = divergence(model, lesson.outcomes, outcomes(model, output.logits.float()), lesson.spread).mean()
    if hidden_weight:
        mine, *lower = reversed(output.hidden_states[1:])
        theirs, *lower_theirs = reversed(lesson.hidden)
        loss = loss + hidden_weight * _relative_error(mine[:, :1], theirs[:, :1], lesson.compared[:, :1])
        if len(lower) == len(lower_theirs):
            for layer, expected in zip(lower, lower_theirs, strict=True):
                loss = loss + hidden_weight * _relative_error(layer, expected, lesson.compared)
    return loss


def _relative_error(layer: torch.Tensor, expected: torch.Tensor, compared: torch.Tensor) -> torch.Tensor:
    weights = compared.unsqueeze(-1)
    return ((layer.float() - expected).square() * weights).sum() / (expected.square() * weights).sum()


def vary(given: Input, others: Sequence[Input], choose: random.Random) -> Input:
    """A text as it is, a stretch of it, or its beginning with another text's end. Of a pair, each of both so.

    A parent is sure of the very texts that it was trained on, and its certainty teaches little; on variations of them
    it hesitates where it would on new ones (after data augmentation in TinyBERT, but without a language model).
    """
    if isinstance(given, str):
        return _varied(given, lambda: texts_of(choose.choice(others))[0], choose)
    one, two = given
    return (
        _varied(one, lambda: texts_of(choose.choice(others))[0], choose),
        _varied(two, lambda: texts_of(choose.choice(others))[-1], choose),
    )


def _varied(text: str, another: Callable[[], str], choose: random.Random) -> str:
    own = words(text)
    kind = choose.random()
    if kind < _AS_IT_IS or len(own) < _FEWEST_WORDS:
        return text
    if kind < (1 + _AS_IT_IS) / 2:
        length = choose.randint(_FEWEST_WORDS - 1, len(own))
        start = choose.randint(0, len(own) - length)
        return text[own[start].start() : own[start + length - 1].end()]
    other = another()
    beginning = text[: choose.choice(own).end()]
    end = other[choose.choice(words(other)).start() :]
    return f"{beginning} {end}" if " " in text else beginning + end
