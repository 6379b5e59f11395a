"""Recovers what pruning cost: a short distillation from the parent, on text without labels.

The pruned model learns the parent's predictions (Hinton et al. 2015), and if asked the last hidden state of the first
token too (as TinyBERT, Jiao et al. 2020). Embeddings stay as they are: training them would cost most of the time.
"""

import copy
import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from compression.batches import BATCH_SIZE, Batch, by_length, collate, encode
from compression.checkpoint import Parent
from compression.finetune import has_bf16
from compression.progress import console, track
from compression.quantize import Activation
from compression.quantize.fake import fake_quantized
from compression.recipe import RecoverStep
from compression.words import words

_WARM_UP = 0.06  # share of the steps in which the learning rate rises
_AS_IT_IS = 0.3  # share of the texts that are not varied
_FEWEST_WORDS = 4  # of a text that is


def recover(
    parent: Parent,
    pruned: Parent,
    texts: Sequence[str],
    selection: Sequence[str],
    step: RecoverStep,
    activations: Mapping[str, Activation] | None = None,
) -> Parent:
    """Trains a copy of the pruned model; the epoch with the smallest loss on the selection texts is kept.

    The pruned model as it came is the first candidate, so the result is never worse there. Weights of linears that are
    exactly zero stay so: what `sparsify` made is kept.

    Args:
        parent: whose predictions are learned; its tokenizer may have more pieces.
        activations: the linears that they name are trained, and the epochs compared, as they will be in int8.
    """
    torch.manual_seed(step.seed)
    choose = random.Random(step.seed)  # noqa: S311  (no secret)
    half = has_bf16()
    student = copy.deepcopy(pruned)
    model = student.model.eval()  # dropout only slows so short a training down
    exam = list(lessons(parent, pruned, selection))
    trained = _trainable(model)
    rounding = ExitStack()
    rounding.enter_context(fake_quantized(model, activations or {}))
    optimizer = torch.optim.AdamW(trained, lr=step.learning_rate, weight_decay=0.01)
    steps = step.epochs * -(-len(texts) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _rate(done, steps))
    best, best_loss, without_gain = copy.deepcopy(model.state_dict()), _evaluate(model, exam, step.hidden), 0
    console.print(f"Recover: loss {best_loss:.4f} before")
    for epoch in range(1, step.epochs + 1):
        varied = [_vary(text, texts, choose) for text in texts]
        for lesson in track(lessons(parent, pruned, varied, choose), f"Recover, epoch {epoch}", steps // step.epochs):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss = distillation_loss(model, lesson, step.hidden)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
        loss_now = _evaluate(model, exam, step.hidden)
        console.print(f"Recover: loss {loss_now:.4f} after epoch {epoch} of {step.epochs}")
        if loss_now < best_loss:
            best, best_loss, without_gain = copy.deepcopy(model.state_dict()), loss_now, 0
        else:
            without_gain += 1
            if without_gain >= step.patience:
                break
    rounding.close()
    model.load_state_dict(best)
    model.requires_grad_(False)
    return student


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A batch for the pruned model, and what the parent says of it.

    Attributes:
        log_probabilities: (texts, labels).
        hidden: the parent's last hidden state of the first token, (texts, width).
    """

    batch: Batch
    log_probabilities: torch.Tensor
    hidden: torch.Tensor


def _vary(text: str, texts: Sequence[str], choose: random.Random) -> str:
    """A text as it is, a stretch of it, or its beginning with another text's end.

    A parent is sure of the very texts that it was trained on, and its certainty teaches little; on variations of them
    it hesitates where it would on new ones (after data augmentation in TinyBERT, Jiao et al. 2020, but without a
    language model).
    """
    own = words(text)
    kind = choose.random()
    if kind < _AS_IT_IS or len(own) < _FEWEST_WORDS:
        return text
    if kind < (1 + _AS_IT_IS) / 2:
        length = choose.randint(_FEWEST_WORDS - 1, len(own))
        start = choose.randint(0, len(own) - length)
        return text[own[start].start() : own[start + length - 1].end()]
    other = choose.choice(texts)
    beginning = text[: choose.choice(own).end()]
    end = other[choose.choice(words(other)).start() :]
    return f"{beginning} {end}" if " " in text else beginning + end


def lessons(
    parent: Parent, pruned: Parent, texts: Sequence[str], choose: random.Random | None = None
) -> Iterator[Lesson]:
    """Batches of similar length, in random order if there is something to choose it."""
    rows, parent_rows = encode(pruned, texts), encode(parent, texts)
    groups = by_length(rows)
    if choose is not None:
        choose.shuffle(groups)
    for group in groups:
        with torch.inference_mode():
            logits, hidden = _run(parent.model, collate(parent, [parent_rows[position] for position in group]))
        batch = collate(pruned, [rows[position] for position in group])
        yield Lesson(batch, logits.log_softmax(-1).clone(), hidden.clone())


def _run(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the last hidden state of the first token."""
    output = model(**batch, output_hidden_states=True)
    return output.logits, output.hidden_states[-1][:, 0]


def distillation_loss(model: PreTrainedModel, lesson: Lesson, hidden_weight: float = 0.0) -> torch.Tensor:
    logits, hidden = _run(model, lesson.batch)
    loss = functional.kl_div(
        logits.float().log_softmax(-1), lesson.log_probabilities, log_target=True, reduction="batchmean"
    )
    if hidden_weight:
        loss = loss + hidden_weight * functional.mse_loss(hidden.float(), lesson.hidden)
    return loss


@torch.inference_mode()
def _evaluate(model: PreTrainedModel, lessons: Sequence[Lesson], hidden_weight: float) -> float:
    losses = [float(distillation_loss(model, lesson, hidden_weight)) * len(lesson.hidden) for lesson in lessons]
    return sum(losses) / sum(len(lesson.hidden) for lesson in lessons)


def _trainable(model: PreTrainedModel) -> list[nn.Parameter]:
    model.requires_grad_(True)
    for name, module in model.base_model.named_children():
        if name.startswith("embeddings"):
            module.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not module.weight.all():
            kept = module.weight.detach() != 0
            module.weight.register_hook(partial(torch.mul, kept))  # type: ignore[no-untyped-call]
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _rate(done: int, steps: int) -> float:
    """Rises to 1, then falls in a line to 0."""
    return min((done + 1) / max(1.0, _WARM_UP * steps), (steps - done) / steps)
