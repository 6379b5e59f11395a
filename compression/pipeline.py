"""`lathe compress`: runs a recipe's steps on a parent, proves what the result cost, and writes the bundle."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import onnx
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
    ParentModel,
    Runtime,
    RuntimeOptions,
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
    concatenate,
)
from compression.errors import VerificationError
from compression.graph.export import has_room, require_room
from compression.measure.abstaining import ANSWER_ERROR, why_no_abstention
from compression.measure.evaluate import SELECTION_TEXTS, agreement, quality
from compression.measure.numbers import number_rows, plain, spearman
from compression.measure.verify import BATCH_EXACT_WITHIN, Measured, measure, require_bounds_of, require_budget
from compression.outlook import announce, print_reached, remedy, require_hope
from compression.parent.batches import is_batch_exact
from compression.parent.checkpoint import Parent
from compression.parent.classifier import BundleClassifier, Classifier, ParentClassifier, predict
from compression.parent.tokenizer import bare
from compression.progress import console, warn
from compression.recipe import ExportStep, Recipe
from compression.report.page import model_card, report_html
from compression.report.rendering import Origin
from compression.step_cache import Work, WorkCache, key_of
from compression.steps import run_step
from compression.task import Task, number_options, open_task, thresholds_of, tool_versions

_ZSTD_LEVEL = 19  # slow to write, as fast to read as any
_ENOUGH_LABELS = 200  # for one number, the temperature


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
def exported(task: Task) -> Iterator[Classifier | None]:
    """The parent in ONNX Runtime, float32: as the first step of a recipe gives it that begins with its export.

    None where it is too large for that, and only what the recipe made of it is not.
    """
    if not has_room(task.parent):
        yield None
        return
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
    batch_exact = (
        candidate.options.batch_exact
        and measured.figures.batch_deviation <= BATCH_EXACT_WITHIN * task.parent.task.scale
    )
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
        tools=tool_versions(),
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
    runtime = Runtime(model, tokenizer, parent.max_length, options)
    return BundleClassifier(parent.name, runtime, parent.task, inputs, options.batch_exact)


def _tokenizer(work: Work) -> bytes:
    return bare(work.model.tokenizer, work.model.max_length)


def _runtime_options(work: Work) -> RuntimeOptions:
    return RuntimeOptions(
        pad_token_id=work.model.tokenizer.pad_token_id or 0,
        disabled_optimizers=("SkipLayerNormFusion",),  # slower than the nodes that it fuses, on CPU
        batch_exact=is_batch_exact(work.model) and not _has_ranges_of_batches(work.graph),
        thresholds=thresholds_of(work.model),
        number=number_options(work.model),
        long_texts=work.model.long_texts,
    )


def _has_ranges_of_batches(graph: onnx.ModelProto | None) -> bool:
    """Whether a graph has dynamic int8, whatever a few texts show."""
    return graph is not None and any(node.op_type == "DynamicQuantizeLinear" for node in graph.graph.node)


def _held_against_labels(logits: Logits, task: ModelTask, selection: Examples) -> dict[str, float | None]:
    """What a step's figures say of the labels."""
    if isinstance(task, Labelling):
        return {"accuracy": quality(logits, task, selection).accuracy}
    rows, truth = number_rows(selection)
    return {"accuracy": None, "spearman": plain(spearman, truth, task.scores(logits)[rows, 0]) if rows else None}
