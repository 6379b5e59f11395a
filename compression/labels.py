"""Whether the labels of a data file are those that a model gives."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from compression.bundle.task import Number, Task
from compression.data import Examples, names_of
from compression.errors import DataError
from compression.progress import warn

NUMBERS_WANTED = "--number asks for numbers"
_SEPARATORS = (";", ",", "|", " ")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)  # float() takes 1_000 and nan too


def number_of(label: str) -> float | None:
    """The number that a label is; None where it is none."""
    value = float(label) if _NUMBER.fullmatch(label) else math.inf
    return value if math.isfinite(value) else None


def require_numbers(examples: Examples, source: Path | str, why: str) -> None:
    """Refuses labels that are no numbers.

    Args:
        source: the file, or what it is for.
        why: numbers are wanted.

    Raises:
        DataError: names the first one and its row.
    """
    for row, label in enumerate(examples.labels):
        if label is None or (isinstance(label, str) and number_of(label) is not None):
            continue
        where = f"{source}: {examples.places[row]}" if examples.places else str(source)
        what = (
            f"the label {label!r}, which is no number" if isinstance(label, str) else f"{len(label)} labels in a list"
        )
        raise DataError(
            f"{where}: has {what}, and {why}; write numbers like 3 or 4.5, or leave the label out with --ignore-label"
        )


def require_known_labels(examples: Examples, task: Task, path: Path) -> None:
    """Refuses labels that the model does not have, or cannot give, rather than counting them as mistakes.

    Raises:
        DataError: names an unknown label and its row, and those of the model; or the row that has more labels than one,
            or no number where the model gives one.
    """
    if isinstance(task, Number):
        require_numbers(examples, path, "the model gives a number")
        return
    rows = [
        (names_of(label), f"{path}: {examples.places[row]}" if examples.places else str(path))
        for row, label in enumerate(examples.labels)
        if label is not None
    ]
    if not task.several:
        for found, where in rows:
            if len(found) != 1:
                raise DataError(
                    f"{where}: has {len(found)} labels, and the model gives one label to a text; a model that gives "
                    "several says problem_type multi_label_classification in its config.json"
                )
    known = set(task.labels)
    places = {name: where for found, where in reversed(rows) for name in found if name not in known}
    if places:
        unknown = sorted(places)
        raise DataError(
            f"{places[unknown[0]]}: labels that the model does not have: {', '.join(map(repr, unknown[:5]))}"
            f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}; it has {', '.join(sorted(known)[:10])}"
            f"{', ...' if len(known) > 10 else ''}. "
            f"{_remedy(unknown, known, task)}"
        )
    if task.several and rows and not examples.several:
        warn(
            f"{path}: every row has one label, and the model gives any number to a text; if a cell holds several, say "
            "what stands between them with --label-separator"
        )


def _remedy(unknown: Sequence[str], known: set[str], task: Task) -> str:
    """What to do about labels that the model does not have."""
    if all(number_of(name) is not None for name in unknown):
        return (
            "They are numbers, and the model gives labels: say which of them each stands for, as --label-name "
            f"{unknown[0]}={task.labels[0]}, name another column with --label-column, or bring a model that gives a "
            "number (lathe finetune --number)"
        )
    if task.several:
        for separator in _SEPARATORS:
            if all({part.strip() for part in name.split(separator)} <= {*known, ""} for name in unknown):
                return f"They look like several, with {separator!r} between them: pass --label-separator {separator!r}"
    return (
        f"Rename them (--label-name {unknown[0]!r}=...), leave them out with --ignore-label, or say with "
        "--outside-label that these are texts which the model is not made for"
    )
