"""What is compressed, and with what text: parent and data, opened, held against each other, and divided."""

import hashlib
import importlib.metadata
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from compression.bundle import (
    InputKind,
    Logits,
    LongTexts,
    Number,
    NumberOptions,
    SeveralLabels,
)
from compression.bundle import Task as ModelTask
from compression.data import (
    ENOUGH_TEXTS,
    Columns,
    Splits,
    names_of,
    read_examples,
    split_examples,
)
from compression.errors import DataError
from compression.labels import number_of, require_known_labels
from compression.measure.abstaining import ANSWER_ERROR
from compression.measure.evaluate import fit_thresholds
from compression.measure.lengths import require_single_texts, say_longer
from compression.measure.numbers import fit_spread
from compression.parent.checkpoint import Parent, load_parent
from compression.parent.classifier import ParentClassifier, predict
from compression.parent.inputs import require_reads, require_same_framing
from compression.progress import console, warn
from compression.step_cache import key_of

_TOOLS = ("lathe", "numpy", "onnx", "onnxruntime", "onnxscript", "optimum", "tokenizers", "torch", "transformers")
_FEW_TEXTS = 30  # the interval of an agreement of all of them begins below 0.9


@dataclass(frozen=True)
class Task:
    """What is to be compressed, and with what text: all that does not change from recipe to recipe.

    Attributes:
        data: the file that the texts came from.
        digest: sha256 of that file.
        answer_error: fraction of wrong ones among the answers that the bundle does not abstain from, at most.
    """

    parent: Parent
    splits: Splits
    data: Path
    digest: str
    cache: Path
    answer_error: float = ANSWER_ERROR

    @property
    def key(self) -> str:
        """What every step's result depends on, besides the steps before it."""
        tokenizer = self.parent.tokenizer.backend_tokenizer.to_str()
        return key_of(
            self.parent.digest, self.parent.settings_digest, tokenizer,
            self.splits.calibration.texts, self.splits.selection.texts, tool_versions(),
            *filter(None, [thresholds_of(self.parent)]),
            *([number.model_dump()] if (number := number_options(self.parent)) else []),
            *([long_texts.model_dump()] if (long_texts := self.parent.long_texts) else []),
        )  # fmt: skip

    @property
    def inputs(self) -> InputKind:
        """What the data holds, and so what the bundle is for."""
        return self.splits.test.inputs

    @property
    def selection_logits(self) -> Logits:
        """The parent's own, on the selection texts: what each step and each candidate is held against."""
        return self._parent_on_selection[0]

    @property
    def seconds_a_text(self) -> float:
        """That the parent takes for one of them here."""
        return self._parent_on_selection[1]

    @cached_property
    def _parent_on_selection(self) -> tuple[Logits, float]:
        classifier = ParentClassifier(self.parent)
        classifier.forward([classifier.encode(self.splits.selection.texts[0])])  # torch's first pass takes far longer
        start = time.perf_counter()
        logits = predict(classifier, self.splits.selection.texts, "Judge the parent")
        return logits, (time.perf_counter() - start) / len(logits)


def open_task(
    parent_name: str,
    data: Path,
    columns: Columns,
    cache: Path,
    enough: int = ENOUGH_TEXTS,
    answer_error: float = ANSWER_ERROR,
    long_texts: LongTexts | None = None,
) -> Task:
    """Loads parent and text, and says how many of the texts are longer than the window.

    Raises:
        LatheError: either cannot be used.
    """
    examples = read_examples(data, columns)
    require_single_texts(long_texts, examples, data)
    console.print(f"Loading {parent_name}")
    parent = replace(load_parent(parent_name), long_texts=long_texts)
    require_reads(parent, examples.inputs)
    if examples.inputs == "pairs":
        require_same_framing(parent, examples.texts)
    require_known_labels(examples, parent.task, data)
    for label in set(columns.outside_labels) & set(parent.task.labels):
        raise DataError(
            f"{parent_name} has the label {label!r}, so its texts are not outside; leave out --outside-label"
        )
    say_longer(ParentClassifier(parent), examples, data)
    splits = split_examples(examples, data, enough)
    for doubt in doubts(splits, parent.task):
        warn(f"{data}: {doubt}")
    task = Task(parent, splits, data, hashlib.sha256(data.read_bytes()).hexdigest(), cache, answer_error)
    if isinstance(parent.task, SeveralLabels) and len(splits.selection.labelled):
        fitted = fit_thresholds(parent.task, task.selection_logits, splits.selection)
        return replace(task, parent=replace(parent, task=fitted))  # the parent is judged with them, as the bundle is
    if isinstance(parent.task, Number):
        number = fit_spread(parent.task, task.selection_logits)
        if not number.spread > 0:
            raise DataError(
                f"{data}: {parent_name} gives the same number to all of {len(splits.selection)} selection texts, so "
                "nothing can be held against it; add texts, or look at the model"
            )
        return replace(task, parent=replace(parent, task=number))
    return task


def doubts(splits: Splits, task: ModelTask) -> list[str]:
    """What makes the proof weaker than it looks.

    None of it is an error. The steps use no labels, agreement with the parent holds whatever the texts are, and the
    figures name the labels that they are of; a small or one-sided file is what many users have, above all for a model
    of many intents.
    """
    found = []
    if splits.repeated:
        found.append(f"{splits.repeated} texts stand in two splits; they are left out where they would not judge")
    if len(splits.test) < _FEW_TEXTS:
        found.append(f"only {len(splits.test)} texts judge the bundle, so its figures prove little; add texts")
    seen = {name for label in splits.test.labels for name in names_of(label)}
    if isinstance(task, Number):
        if len({number_of(name) for name in seen}) == 1:
            found.append(f"all test texts have the number {min(seen)}, so no correlation can be measured; add some")
        return found
    absent = [label for label in task.labels if label not in seen]
    if len(seen) == 1:
        found.append(f"all test texts have the label {min(seen)!r}, so accuracy says nothing of the others; add some")
    elif seen and absent:
        names = ", ".join(map(repr, absent[:5])) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        found.append(f"no test text has the label {names}, so no figure speaks of it; add some")
    return found


def thresholds_of(parent: Parent) -> tuple[float, ...] | None:
    """Of its labels; None where a text has one."""
    return parent.task.thresholds if isinstance(parent.task, SeveralLabels) else None


def number_options(parent: Parent) -> NumberOptions | None:
    """How it is made and how far numbers lie apart; None where the parent gives labels."""
    task = parent.task
    return NumberOptions(function=task.applied, spread=task.spread) if isinstance(task, Number) else None


def tool_versions() -> dict[str, str]:
    """The versions of what makes bundles."""
    return {tool: importlib.metadata.version(tool) for tool in _TOOLS}
