"""What a person sees of a training: a bar, a line an epoch, and a warning where nothing was learned."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from compression.data import Labels, names_of
from compression.progress import console

LITTLE = 0.2  # of the way from the commonest label's share to all right; below it, next to nothing was learned


class EpochLines(TrainerCallback):  # type: ignore[misc]
    """Prints a line for each epoch, above a bar of steps; takes the place of the Trainer's raw dicts.

    The bar is there inside its `with` block, however that ends.

    Args:
        measure: what the Trainer measures on the validation rows.
        spoken: that figure for people.
    """

    def __init__(self, measure: str, spoken: Callable[[float], str]) -> None:
        self._measure = measure
        self._spoken = spoken
        self._bar = Progress(
            TextColumn("Train"), BarColumn(), MofNCompleteColumn(" of "),
            TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,  # else it leaves an empty line
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
        if f"eval_{self._measure}" in logs:  # it comes behind the epoch's end
            self.say(state.epoch or 0, args.num_train_epochs, logs[f"eval_{self._measure}"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not control.should_evaluate:
            self.say(state.epoch or 0, args.num_train_epochs, None)

    def say(self, epoch: float, epochs: float, measured: float | None) -> None:
        """Prints what an epoch came to."""
        if not self._losses:  # the evaluation behind the training
            return
        words = [f"loss {sum(self._losses) / len(self._losses):.3f}"]
        if measured is not None:
            words.append(f"validation {self._spoken(measured)}")
        words.append(f"{time.monotonic() - self._begun:.0f} s")
        console.print(f"Epoch {epoch:g} of {epochs:g}: {', '.join(words)}", highlight=False)
        self._losses.clear()


def doubt_of_learning(measured: float, labels: Sequence[Labels], rows: str) -> str | None:
    """What to say of a model that does little better than giving the commonest answer to every row.

    Args:
        measured: fraction of these rows that get their label; the micro F1 where rows have lists of them.
        labels: of the rows.
        rows: what the rows are, for the sentence.

    Returns:
        a warning with what to change, or None.
    """
    several = any(isinstance(label, tuple) for label in labels)
    answer, commonest = _commonest(labels) if several else _commonest_label(labels)
    if measured >= commonest + LITTLE * (1 - commonest):
        return None
    did, constant = ("a micro F1 of", "has") if several else ("right for", "is right for")
    rows = f"{'on' if several else 'of'} {len(labels)} {rows}"
    return (
        f"{did} {100 * measured:.0f} % {rows}, where {answer} for every row {constant} {100 * commonest:.0f} %: it has "
        "learned next to nothing. Train longer (--epochs), at a higher "
        "--learning-rate, or on more rows"
    )


def _commonest_label(labels: Sequence[Labels]) -> tuple[str, float]:
    """The label of most rows, and their share."""
    label, count = Counter(labels).most_common(1)[0]
    return repr(label), count / len(labels)


def _commonest(labels: Sequence[Labels]) -> tuple[str, float]:
    """The answer that has the highest micro F1 where every row gets it, and that."""
    counts = Counter(name for label in labels for name in names_of(label)).most_common()
    total, hits, best = sum(count for _, count in counts), 0, ("no label", 0.0)
    for given, (_, count) in enumerate(counts, start=1):
        hits += count
        f1 = 2 * hits / (total + given * len(labels))
        if f1 > best[1]:
            best = ", ".join(repr(name) for name, _ in counts[:given]), f1
    return best
