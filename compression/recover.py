"""Recovers what pruning cost: a short distillation from the parent, on text without labels.

The pruned model learns the parent's predictions (Hinton et al. 2015), and if asked the last hidden state of the first
token too (as TinyBERT, Jiao et al. 2020). Embeddings stay as they are: training them would cost most of the time.
"""

import copy
import dataclasses
import io
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from compression.batches import BATCH_SIZE, Batch, by_length, collate, encode
from compression.checkpoint import Parent
from compression.finetune import has_bf16
from compression.progress import console, track
from compression.recipe import RecoverStep
from compression.writing import CACHE_REMEDY, replacing

_WARM_UP = 0.06  # share of the steps in which the learning rate rises
_AS_IT_IS = 0.3  # share of the texts that are not varied
_FEWEST_WORDS = 4  # of a text that is
_PROGRESS = ("best", "best_loss", "epochs", "without_gain")


def recover(
    parent: Parent, pruned: Parent, texts: Sequence[str], selection: Sequence[str], step: RecoverStep, unfinished: Path
) -> Parent:
    """Trains a copy of the pruned model; the epoch with the smallest loss on the selection texts is kept.

    The pruned model as it came is the first candidate, so the result is never worse there.

    Args:
        parent: whose predictions are learned; its tokenizer may have more pieces.
        unfinished: file that is written after each epoch; where it is there, training goes on from it and ends as it
            would have without a stop. Whoever keeps the result removes it.

    Raises:
        StorageError: the file cannot be written.
    """
    half = has_bf16()
    student = copy.deepcopy(pruned)
    model = student.model.eval()  # dropout only slows so short a training down
    exam = list(_lessons(parent, pruned, selection))
    trained = _trainable(model)
    optimizer = torch.optim.AdamW(trained, lr=step.learning_rate, weight_decay=0.01)
    steps = step.epochs * -(-len(texts) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _rate(done, steps))
    choose = random.Random(step.seed)  # noqa: S311  (no secret)
    training = _Training(model, optimizer, schedule, choose, copy.deepcopy(model.state_dict()))
    if not training.go_on_from(unfinished):
        training.best_loss = _evaluate(model, exam, step.hidden)
    console.print(f"Recover: loss {training.best_loss:.4f} at best after epoch {training.epochs} of {step.epochs}")
    while training.epochs < step.epochs and training.without_gain < step.patience:
        varied = [_vary(text, texts, choose) for text in texts]
        lessons = _lessons(parent, pruned, varied, choose)
        for lesson in track(lessons, f"Recover, epoch {training.epochs + 1}", steps // step.epochs):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss = _loss(model, lesson, step.hidden)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
        loss_now = _evaluate(model, exam, step.hidden)
        training.end_epoch(loss_now)
        console.print(f"Recover: loss {loss_now:.4f} after epoch {training.epochs} of {step.epochs}")
        training.keep(unfinished)
    model.load_state_dict(training.best)
    model.requires_grad_(False)
    return student


@dataclasses.dataclass
class _Training:
    """All that decides how training goes on.

    Attributes:
        choose: the only chance in it.
        best: weights of the best epoch so far.
        best_loss: theirs, on the selection texts.
        epochs: how many are done.
        without_gain: the last so many of them were no better.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    choose: random.Random
    best: dict[str, torch.Tensor]
    best_loss: float = math.inf
    epochs: int = 0
    without_gain: int = 0

    def end_epoch(self, loss: float) -> None:
        self.epochs += 1
        if loss < self.best_loss:
            self.best, self.best_loss, self.without_gain = copy.deepcopy(self.model.state_dict()), loss, 0
        else:
            self.without_gain += 1

    def keep(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "choose": self.choose.getstate(),
            "progress": {name: getattr(self, name) for name in _PROGRESS},
        }
        content = io.BytesIO()
        torch.save(state, content)  # not to the file: on a full disk it says only "unexpected pos"
        with replacing(path, CACHE_REMEDY) as staging:
            staging.write_bytes(content.getbuffer())

    def go_on_from(self, path: Path) -> bool:
        """Whether there was something to go on from; what cannot be read is as good as nothing."""
        if not path.is_file():
            return False
        try:
            state = torch.load(path, weights_only=True)
        except Exception:  # a damaged zip, pickle or tensor: each has its own
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.choose.setstate(state["choose"])
        for name in _PROGRESS:
            setattr(self, name, state["progress"][name])
        return True


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


def _vary(text: str, texts: Sequence[str], choose: random.Random) -> str:
    """A text as it is, a stretch of it, or its beginning with another text's end.

    A parent is sure of the very texts that it was trained on, and its certainty teaches little; on variations of them
    it hesitates where it would on new ones (after data augmentation in TinyBERT, Jiao et al. 2020, but without a
    language model). Words are what stands between spaces; a text without any is taken as it is.
    """
    words = text.split()
    kind = choose.random()
    if kind < _AS_IT_IS or len(words) < _FEWEST_WORDS:
        return text
    if kind < (1 + _AS_IT_IS) / 2:
        length = choose.randint(_FEWEST_WORDS - 1, len(words))
        start = choose.randint(0, len(words) - length)
        return " ".join(words[start : start + length])
    other = choose.choice(texts).split()
    return " ".join([*words[: choose.randint(1, len(words))], *other[choose.randint(0, len(other) - 1) :]])


def _lessons(
    parent: Parent, pruned: Parent, texts: Sequence[str], choose: random.Random | None = None
) -> Iterator[_Lesson]:
    """Batches of similar length, in random order if there is something to choose it."""
    rows, parent_rows = encode(pruned, texts), encode(parent, texts)
    groups = by_length(rows)
    if choose is not None:
        choose.shuffle(groups)
    for group in groups:
        with torch.inference_mode():
            logits, hidden = _run(parent.model, collate(parent, [parent_rows[position] for position in group]))
        batch = collate(pruned, [rows[position] for position in group])
        yield _Lesson(batch, logits.log_softmax(-1).clone(), hidden.clone())


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
