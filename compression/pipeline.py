"""`lathe compress`: runs a recipe's steps on a parent, proves what the result cost, and writes the bundle."""

import hashlib
import importlib.metadata
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import zstandard

from compression.bundle import (
    GOLDEN,
    Bundle,
    DataUsed,
    GoldenAnswers,
    InputKind,
    Labelling,
    Logits,
    LongTexts,
    Manifest,
    Number,
    NumberOptions,
    ParentModel,
    Runtime,
    RuntimeOptions,
    SeveralLabels,
    StepFigures,
    write_bundle,
)
from compression.bundle import Task as ModelTask
from compression.bundle.atomic_files import scratch
from compression.bundle.storage import MODEL, MODEL_ZSTD, TOKENIZER, require_replaceable, unpacked
from compression.data import (
    ENOUGH_TEXTS,
    Columns,
    Examples,
    Splits,
    concatenate,
    names_of,
    read_examples,
    split_examples,
)
from compression.errors import DataError, VerificationError
from compression.graph.export import require_room
from compression.labels import number_of, require_known_labels
from compression.measure.abstaining import ANSWER_ERROR, why_no_abstention
from compression.measure.evaluate import SELECTION_TEXTS, agreement, fit_thresholds, quality
from compression.measure.lengths import require_single_texts, say_longer
from compression.measure.numbers import fit_spread, number_rows, plain, spearman
from compression.measure.verify import BATCH_EXACT_WITHIN, Measured, measure, require_bounds_of, require_budget
from compression.outlook import announce, print_reached, remedy, require_hope
from compression.parent.checkpoint import Parent, load_parent
from compression.parent.classifier import BundleClassifier, Classifier, ParentClassifier, predict
from compression.parent.inputs import require_reads, require_same_framing
from compression.parent.tokenizer import bare
from compression.progress import console, warn
from compression.recipe import ExportStep, Recipe
from compression.report.page import model_card, report_html
from compression.report.rendering import Origin
from compression.step_cache import Work, WorkCache, key_of
from compression.steps import run_step

_TOOLS = ("lathe", "numpy", "onnx", "onnxruntime", "onnxscript", "optimum", "tokenizers", "torch", "transformers")
_ZSTD_LEVEL = 19  # slow to write, as fast to read as any
_ENOUGH_LABELS = 200  # for one number, the temperature
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
            self.splits.calibration.texts, self.splits.selection.texts, _tools(),
            *filter(None, [_thresholds(self.parent)]),
            *([number.model_dump()] if (number := _number(self.parent)) else []),
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


@dataclass(frozen=True)
class Compressed:
    """What a recipe makes of the parent: the files, how they are to be run, and what each step did."""

    recipe: Recipe
    model: bytes
    tokenizer: bytes
    options: RuntimeOptions
    steps: tuple[StepFigures, ...]

    @property
    def model_file(self) -> str:
        """The model's name in the bundle."""
        return MODEL_ZSTD if self.recipe.storage == "zstd" else MODEL


def compress(
    parent_name: str,
    data: Path,
    recipe: Recipe,
    out: Path,
    columns: Columns = Columns(),
    cache: Path | None = None,
    enough: int = ENOUGH_TEXTS,
    answer_error: float = ANSWER_ERROR,
    long_texts: LongTexts | None = None,
) -> Bundle:
    """Makes a bundle from a fine-tuned model. Labels are not needed; where there are some, they are counted.

    Args:
        parent_name: a local directory (model or peft adapter), a hub id, or `embedded:NAME`.
        data: text like the text to be served; one part calibrates, one selects, one judges.
        cache: directory in which finished steps are kept; a run that was killed goes on from them. None keeps none.
        enough: so many texts judge, and as many select, where the data does not say which do.
        answer_error: see `Task`.
        long_texts: what the bundle reads of texts that are longer than the window, and the parent that it is held
            against; None: they are cut.

    Raises:
        LatheError: parent, data, recipe or destination cannot be used.
        VerificationError: the result is outside the recipe's budget; nothing is written.
    """
    require_replaceable(out)
    with scratch() if cache is None else nullcontext(cache) as folder:
        task = open_task(parent_name, data, columns, folder, enough, answer_error, long_texts)
        if recipe.steps[0].step == "export":  # nothing makes it smaller before
            require_room(task.parent)
        require_bounds_of(task.parent.task, recipe.budget, parent_name)
        announce(recipe, task.splits, task.seconds_a_text)
        candidate = build(task, recipe, stop_when_lost=True)
        try:
            measured = judge(task, candidate)
            require_budget(measured.figures, recipe.budget)
        except VerificationError as error:
            print_reached(candidate.steps, min(SELECTION_TEXTS, len(task.splits.selection)))
            raise VerificationError(f"{error}. {remedy(recipe, task.splits, error.reached)}", error.reached) from error
    return write(task, candidate, measured, out)


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


def build(task: Task, recipe: Recipe, stop_when_lost: bool = False) -> Compressed:
    """Runs the recipe's steps, or takes them from the cache; each one's result is judged on the selection texts.

    Raises:
        VerificationError: with `stop_when_lost`, as soon as no later step can bring it inside the recipe's budget.
    """
    kept = WorkCache(task.cache / "steps")
    selection = task.splits.selection.head(SELECTION_TEXTS)
    expected = task.selection_logits[: len(selection)]
    key = task.key
    work, figures = Work(task.parent), []
    for step in recipe.steps:
        key = key_of(key, step.model_dump(mode="json"))
        start = time.perf_counter()
        found = kept.get(key, task.parent)
        console.print(f"Step {step.step}{'' if found is None else ', done before'}")
        work = found or run_step(step, work, task.parent, task.splits, task.cache, kept.unfinished(key))
        seconds = time.perf_counter() - start
        if found is None:
            kept.put(key, work)
        with _classifier(work, task.inputs) as classifier:
            got = predict(classifier, selection.texts, f"Judge after {step.step}")
        figures.append(
            StepFigures(
                step=step.step,
                seconds=round(seconds, 1),
                size_mb=round(work.size_bytes / 1e6, 2),
                agreement=agreement(expected, got, task.parent.task),
                **_held_against_labels(got, task.parent.task, selection),
                cached=found is not None,
            )
        )
        if stop_when_lost:
            require_hope(figures, recipe, task.splits)
    assert work.graph is not None  # every recipe exports
    content = work.graph.SerializeToString()
    if recipe.storage == "zstd":
        content = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)
    if stop_when_lost:
        require_hope(figures, recipe, task.splits, round(len(content) / 1e6, 2))
    return Compressed(recipe, content, _tokenizer(work), _runtime_options(work), tuple(figures))


@contextmanager
def opened(task: Task, candidate: Compressed) -> Iterator[BundleClassifier]:
    """The candidate as it will be served."""
    content = unpacked(Path(candidate.model_file), candidate.model)
    yield _running(content, candidate.tokenizer, candidate.options, task.parent, task.inputs)


@contextmanager
def exported(task: Task) -> Iterator[Classifier]:
    """The parent in ONNX Runtime, float32: as the first step of a recipe gives it that begins with its export."""
    step = ExportStep(step="export")
    kept, key = WorkCache(task.cache / "steps"), key_of(task.key, step.model_dump(mode="json"))
    work = kept.get(key, task.parent)
    if work is None:
        console.print("Export the parent, to time it in ONNX Runtime too")
        work = run_step(step, Work(task.parent), task.parent, task.splits, task.cache, kept.unfinished(key))
        kept.put(key, work)
    with _classifier(work, task.inputs) as classifier:
        yield classifier


def judge(task: Task, candidate: Compressed) -> Measured:
    """Measures a candidate against the parent, on the test texts."""
    # The parent may have been trained on the texts that calibrate, and is surer of them than it will be of others.
    labelled = task.splits.selection.labelled
    if len(labelled) < _ENOUGH_LABELS:
        labelled = concatenate([task.splits.calibration, task.splits.selection]).labelled.head(ENOUGH_TEXTS)
    with opened(task, candidate) as classifier, exported(task) as yardstick:
        return measure(
            task.parent, classifier, labelled, task.splits.test, len(candidate.model), candidate.steps, yardstick,
            task.splits.selection, task.answer_error,
        )  # fmt: skip


def write(
    task: Task, candidate: Compressed, measured: Measured, out: Path, more: Mapping[str, bytes] | None = None
) -> Bundle:
    """Writes the bundle, whole or not at all; `more` are files beside the usual ones."""
    splits = task.splits
    dynamic = any(step.step == "quantize_dynamic" for step in candidate.recipe.steps)  # whatever a few texts showed
    batch_exact = not dynamic and measured.figures.batch_deviation <= BATCH_EXACT_WITHIN * task.parent.task.scale
    if not batch_exact:  # as with dynamic int8, or a parent that reads its padding, such as FNet
        warn(
            f"a text's answer depends on others in its batch, by up to {measured.figures.batch_deviation:.2g} here, "
            "so the bundle will be served one text at a time, which is slower"
        )
    if measured.abstain is None and isinstance(task.parent.task, Labelling) and any(splits.selection.known):
        console.print(why_no_abstention(task.answer_error, sum(splits.selection.known)), soft_wrap=True)
    runtime = {"batch_exact": batch_exact, "temperature": measured.temperature, "abstain": measured.abstain}
    manifest = Manifest(
        task=task.parent.task.name,
        inputs=task.inputs,
        labels=task.parent.labels,
        max_length=task.parent.max_length,
        runtime=candidate.options.model_copy(update=runtime),
        recipe=candidate.recipe.model_dump(mode="json"),
        parent=ParentModel(name=task.parent.name, sha256=task.parent.digest),
        data=DataUsed(
            name=task.data.name,
            sha256=task.digest,
            calibration_texts=len(splits.calibration),
            selection_texts=len(splits.selection),
            test_texts=len(splits.test),
            labelled_test_texts=len(splits.test.labelled),
        ),
        figures=measured.figures,
        files={},
        tools=_tools(),
    )
    with opened(task, candidate) as classifier:
        golden = GoldenAnswers.of(classifier.encode, classifier.forward, task.inputs)
    files = {
        candidate.model_file: candidate.model,
        TOKENIZER: candidate.tokenizer,
        GOLDEN: golden.model_dump_json().encode(),
        "report.html": report_html(manifest, Origin.now(), measured.evidence).encode(),
        "README.md": model_card(manifest, out.name).encode(),
        **(more or {}),
    }
    return write_bundle(out, manifest, files)


@contextmanager
def _classifier(work: Work, inputs: InputKind) -> Iterator[Classifier]:
    """The work so far as something that answers."""
    if work.graph is None:
        yield ParentClassifier(work.model)
        return
    model, tokenizer = work.graph.SerializeToString(), _tokenizer(work)
    yield _running(model, tokenizer, _runtime_options(work), work.model, inputs)


def _running(
    model: bytes, tokenizer: bytes, options: RuntimeOptions, parent: Parent, inputs: InputKind
) -> BundleClassifier:
    """A model in memory as a classifier of the parent's labels."""
    return BundleClassifier(parent.name, Runtime(model, tokenizer, parent.max_length, options), parent.task, inputs)


def _tokenizer(work: Work) -> bytes:
    return bare(work.model.tokenizer, work.model.max_length)


def _runtime_options(work: Work) -> RuntimeOptions:
    return RuntimeOptions(
        pad_token_id=work.model.tokenizer.pad_token_id or 0,
        disabled_optimizers=("SkipLayerNormFusion",),  # slower than the nodes that it fuses, on CPU
        batch_exact=True,
        thresholds=_thresholds(work.model),
        number=_number(work.model),
        long_texts=work.model.long_texts,
    )


def _held_against_labels(logits: Logits, task: ModelTask, selection: Examples) -> dict[str, float | None]:
    """What a step's figures say of the labels."""
    if isinstance(task, Labelling):
        return {"accuracy": quality(logits, task, selection).accuracy}
    rows, truth = number_rows(selection)
    return {"accuracy": None, "spearman": plain(spearman, truth, task.scores(logits)[rows, 0]) if rows else None}


def _thresholds(parent: Parent) -> tuple[float, ...] | None:
    """Of its labels; None where a text has one."""
    return parent.task.thresholds if isinstance(parent.task, SeveralLabels) else None


def _number(parent: Parent) -> NumberOptions | None:
    """How it is made and how far numbers lie apart; None where the parent gives labels."""
    task = parent.task
    return NumberOptions(function=task.applied, spread=task.spread) if isinstance(task, Number) else None


def _tools() -> dict[str, str]:
    return {tool: importlib.metadata.version(tool) for tool in _TOOLS}
