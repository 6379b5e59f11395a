"""Recovers what pruning cost: a short distillation from the parent, on text without labels.

Embeddings stay as they are: training them would cost most of the time.
"""

import copy
import dataclasses
import io
import math
import random
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from compression.bundle import Input
from compression.bundle.atomic_files import CACHE_REMEDY, replacing
from compression.parent.batches import BATCH_SIZE
from compression.parent.checkpoint import Parent
from compression.progress import console, track
from compression.quantize import Activation
from compression.quantize.fake import fake_quantized
from compression.recipe import RecoverStep
from compression.train.finetune import has_bf16
from compression.train.lessons import Lesson, distillation_loss, lessons, vary

_WARM_UP = 0.06  # share of the steps in which the learning rate rises
_PROGRESS = ("best", "best_loss", "epochs", "without_gain")


def recover(
    parent: Parent,
    pruned: Parent,
    texts: Sequence[Input],
    selection: Sequence[Input],
    step: RecoverStep,
    unfinished: Path,
    activations: Mapping[str, Activation] | None = None,
) -> Parent:
    """Trains a copy of the pruned model; the epoch that is nearest to the parent on the selection texts is kept.

    The pruned model as it came is the first candidate, so the result is never worse there. Weights of linears that are
    exactly zero stay so: what `sparsify` made is kept.

    Args:
        parent: whose predictions are learned; its tokenizer may have more pieces.
        unfinished: file that is written after each epoch; where it is there, training goes on from it and ends as it
            would have without a stop. Whoever keeps the result removes it.
        activations: the linears that they name are trained, and the epochs compared, as they will be in int8.

    Raises:
        StorageError: the file cannot be written.
    """
    half = has_bf16()
    student = copy.deepcopy(pruned)
    model = student.model.eval()  # dropout only slows so short a training down
    exam = list(lessons(parent, pruned, selection))
    trained = _trainable(model)
    optimizer = torch.optim.AdamW(trained, lr=step.learning_rate, weight_decay=0.01)
    each = min(step.texts, len(texts))  # in an epoch
    steps = -(-each // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _rate(done, step.epochs * steps))
    choose = random.Random(step.seed)  # noqa: S311  (no secret)
    training = _Training(model, optimizer, schedule, choose, copy.deepcopy(model.state_dict()))
    with fake_quantized(model, activations or {}):
        if not training.go_on_from(unfinished):
            training.best_loss = _evaluate(model, exam)
        console.print(f"Recover: loss {training.best_loss:.4f} at best after epoch {training.epochs} of {step.epochs}")
        while training.epochs < step.epochs and training.without_gain < step.patience:
            start = training.epochs * each
            varied = [vary(text, texts, choose) for text in islice(cycle(texts), start, start + each)]
            taught = lessons(parent, pruned, varied, choose, hidden=step.hidden > 0)
            for lesson in track(taught, f"Recover, epoch {training.epochs + 1}", steps):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                    loss = distillation_loss(model, lesson, step.hidden)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
            loss_now = _evaluate(model, exam)
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


@torch.inference_mode()
def _evaluate(model: PreTrainedModel, exam: Sequence[Lesson]) -> float:
    losses = [float(distillation_loss(model, lesson)) * len(lesson.outcomes) for lesson in exam]
    return sum(losses) / sum(len(lesson.outcomes) for lesson in exam)


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
