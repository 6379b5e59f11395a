"""What a person sees of a training: a bar, a line an epoch, and a warning where nothing was learned."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from compression.progress import console

_CHANCE = 0.2  # of the way from the commonest label's share to all right; below it, next to nothing was learned


class EpochLines(TrainerCallback):  # type: ignore[misc]
    """Prints a line for each epoch, above a bar of steps; takes the place of the Trainer's raw dicts.

    The bar is there inside its `with` block, however that ends.
    """

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("Train"), BarColumn(), MofNCompleteColumn(" of "),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("Train", total=None)
        self._losses: list[float] = []
        self._begun = time.monotonic()

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        if "loss" in logs:
            self._losses.append(logs["loss"])
        if "eval_accuracy" in logs:  # it comes behind the epoch's end
            self.say(state.epoch or 0, args.num_train_epochs, logs["eval_accuracy"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not control.should_evaluate:
            self.say(state.epoch or 0, args.num_train_epochs, None)

    def say(self, epoch: float, epochs: float, accuracy: float | None) -> None:
        """Prints what an epoch came to."""
        if not self._losses:  # the evaluation behind the training
            return
        words = [f"loss {sum(self._losses) / len(self._losses):.3f}"]
        if accuracy is not None:
            words.append(f"validation accuracy {100 * accuracy:.1f} %")
        words.append(f"{time.monotonic() - self._begun:.0f} s")
        console.print(f"Epoch {epoch:g} of {epochs:g}: {', '.join(words)}", highlight=False)
        self._losses.clear()


def doubt_of_learning(accuracy: float, labels: Sequence[str | None], rows: str) -> str | None:
    """What to say of a model that does little better than giving the commonest label to every row.

    Args:
        accuracy: fraction of these rows that get their label.
        labels: of the rows.
        rows: what the rows are, for the sentence.

    Returns:
        a warning with what to change, or None.
    """
    label, count = Counter(labels).most_common(1)[0]
    commonest = count / len(labels)
    if accuracy >= commonest + _CHANCE * (1 - commonest):
        return None
    return (
        f"right for {100 * accuracy:.0f} % of {len(labels)} {rows}, where {label!r} for every row is right for "
        f"{100 * commonest:.0f} %: it has learned next to nothing. Train longer (--epochs), at a higher "
        "--learning-rate, or on more rows"
    )
