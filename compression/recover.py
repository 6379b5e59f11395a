"""Recovers what pruning cost: a short distillation from the parent, on text without labels.

The pruned model learns the parent's predictions (Hinton et al. 2015), and if asked the last hidden state of the first
token too (as TinyBERT, Jiao et al. 2020). Embeddings stay as they are: training them would cost most of the time.
"""

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from compression.batches import Batch, by_length, collate, encode
from compression.checkpoint import Parent
from compression.finetune import has_bf16
from compression.progress import console, track
from compression.recipe import RecoverStep

_WARM_UP = 0.06  # share of the steps in which the learning rate rises


def recover(
    parent: Parent, pruned: Parent, texts: Sequence[str], selection: Sequence[str], step: RecoverStep
) -> Parent:
    """Trains a copy of the pruned model; the epoch with the smallest loss on the selection texts is kept.

    The pruned model as it came is the first candidate, so the result is never worse there.

    Args:
        parent: whose predictions are learned; its tokenizer may have more pieces.
    """
    torch.manual_seed(step.seed)
    generator = torch.Generator().manual_seed(step.seed)
    student = copy.deepcopy(pruned)
    model = student.model.eval()  # dropout only slows so short a training down
    half = has_bf16()
    lessons = _lessons(parent, pruned, texts, "Ask the parent")
    exam = _lessons(parent, pruned, selection, "Ask the parent again")
    trained = _trainable(model)
    optimizer = torch.optim.AdamW(trained, lr=step.learning_rate, weight_decay=0.01)
    steps = step.epochs * len(lessons)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _rate(done, steps))
    best, best_loss, without_gain = copy.deepcopy(model.state_dict()), _evaluate(model, exam, step.hidden), 0
    console.print(f"Recover: loss {best_loss:.4f} before")
    for epoch in range(1, step.epochs + 1):
        for position in torch.randperm(len(lessons), generator=generator).tolist():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss = _loss(model, lessons[position], step.hidden)
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
    model.load_state_dict(best)
    model.requires_grad_(False)
    return student


@dataclasses.dataclass(frozen=True)
class _Lesson:
    """A batch for the pruned model, and what the parent says of it.

    Attributes:
        log_probabilities: (texts, labels).
        hidden: the parent's last hidden state of the first token, (texts, width).
    """

    batch: Batch
    log_probabilities: torch.Tensor
    hidden: torch.Tensor


def _lessons(parent: Parent, pruned: Parent, texts: Sequence[str], description: str) -> list[_Lesson]:
    rows, parent_rows = encode(pruned, texts), encode(parent, texts)
    lessons = []
    with torch.inference_mode():
        for group in track(by_length(rows), description):
            logits, hidden = _run(parent.model, collate(parent, [parent_rows[position] for position in group]))
            batch = collate(pruned, [rows[position] for position in group])
            lessons.append(_Lesson(batch, logits.log_softmax(-1).clone(), hidden.clone()))
    return lessons


def _run(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the last hidden state of the first token."""
    output = model(**batch, output_hidden_states=True)
    return output.logits, output.hidden_states[-1][:, 0]


def _loss(model: PreTrainedModel, lesson: _Lesson, hidden_weight: float) -> torch.Tensor:
    logits, hidden = _run(model, lesson.batch)
    loss = functional.kl_div(
        logits.float().log_softmax(-1), lesson.log_probabilities, log_target=True, reduction="batchmean"
    )
    if hidden_weight:
        loss = loss + hidden_weight * functional.mse_loss(hidden.float(), lesson.hidden)
    return loss


@torch.inference_mode()
def _evaluate(model: PreTrainedModel, lessons: Sequence[_Lesson], hidden_weight: float) -> float:
    losses = [float(_loss(model, lesson, hidden_weight)) * len(lesson.hidden) for lesson in lessons]
    return sum(losses) / sum(len(lesson.hidden) for lesson in lessons)


def _trainable(model: PreTrainedModel) -> list[nn.Parameter]:
    model.requires_grad_(True)
    for name, module in model.base_model.named_children():
        if name.startswith("embeddings"):
            module.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _rate(done: int, steps: int) -> float:
    """Rises to 1, then falls in a line to 0."""
    return min((done + 1) / max(1.0, _WARM_UP * steps), (steps - done) / steps)
