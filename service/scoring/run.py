"""One run: scores what is not scored yet, then writes the output."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from compression.bundle import Bundle, Number, open_bundle
from compression.tables import CHUNK_ROWS, Chunk, Edit, Format, NewCells, doubt_of_pairs, open_table, require_same_kind
from service.errors import ScoringError, ServiceError
from service.scoring.local import Compute, ScoredChunk
from service.scoring.parts import NOTES, Part, Plan, Progress
from service.scoring.source import Source

Score = Callable[[Bundle, Compute, Source, Set[int]], Iterator[ScoredChunk]]


@dataclass(frozen=True)
class Options:
    """What is read and added.

    Attributes:
        text_column: the column that is scored.
        text_pair_column: of the second texts, where the bundle reads pairs.
        probabilities: whether each label's probability is added too.
        calibrated: whether the bundle's temperature divides the logits; otherwise scores are the model's own.
        prefix: stands before the names of the columns that are added.
        form: how a file of text is written.
        label_separator: between the labels of a text that has several.
    """

    text_column: str = "text"
    probabilities: bool = False
    calibrated: bool = False
    prefix: str = ""
    form: Format = Format()
    label_separator: str = ";"
    text_pair_column: str | None = None


@dataclass(frozen=True)
class Summary:
    """Rows of the output, and how many of them have each note."""

    rows: int
    notes: Counter[str]

    @property
    def failed(self) -> int:
        """Rows with a text that the model could not compute."""
        return self.notes["inference_failed"] + self.notes["not_a_number"]


def score(bundle: Path, source: Path, out: Path, options: Options, compute: Compute, scorer: Score) -> Summary:
    """Scores a file; after a run that was stopped, goes on from what that one did.

    Args:
        scorer: computes the chunks: `score_here`, or on Ray.

    Raises:
        DataError: the input cannot be read, or cannot hold what is to be added.
        ScoringError: the output is there already, the input has changed, or nothing can be written.
        BundleError: no bundle, or the device cannot compute it.
        ConfigurationError: no such device.
    """
    if out.exists():
        raise ScoringError(f"{out}: is there already and is never overwritten; remove it or name another file")
    opened = open_bundle(bundle)
    _require_separable(opened, options.label_separator)
    _require_reads(opened, options.text_pair_column)
    columns = _columns(opened, options)
    require_same_kind(out, source)
    table = open_table(source, options.form)
    table.require_writable([*columns, *opened.manifest.labels])
    file = Source(table, options.text_column, columns, options.text_pair_column)
    try:
        plan = _plan(opened, source, options, compute)
        with closing(Progress(out, plan)) as progress:
            _say_doubt(file)
            _score(opened, compute, file, progress, scorer)
            notes: Counter[str] = Counter()
            written = progress.folder / f"output{out.suffix}"
            table.write(written, _results(opened, options, file, progress, notes), Edit(added=columns))
            if _plan(opened, source, options, compute) != plan:
                raise ScoringError(f"{source}: has changed while it was scored; remove {progress.folder} and run again")
            written.replace(out)
            progress.remove()
    except ServiceError as error:
        raise ScoringError(f"{error}; run the same command again to go on") from error
    except OSError as error:
        raise ScoringError(
            f"{error.filename or out}: {error.strerror or error}; when that is mended, run the same command to go on"
        ) from error
    return Summary(notes.total(), notes)


def _require_reads(bundle: Bundle, text_pair_column: str | None) -> None:
    """Refuses single texts for a model of pairs, and pairs for one of texts."""
    if bundle.manifest.inputs == "pairs" and text_pair_column is None:
        raise ScoringError(
            f"{bundle.path}: reads pairs of texts; name the column of the second with --text-pair-column"
        )
    if bundle.manifest.inputs == "texts" and text_pair_column is not None:
        raise ScoringError(f"{bundle.path}: reads single texts; leave out --text-pair-column")


def _say_doubt(file: Source) -> None:
    """Says where the file looks as if its rows were pairs, and single texts are scored."""
    for chunk in file.chunks():
        doubt = doubt_of_pairs(file.text_column, file.text_pair_column, chunk.names)
        if doubt is not None:
            print(f"warning: {file.table.path}: {doubt}", file=sys.stderr)
        return  # the first one tells


def _columns(bundle: Bundle, options: Options) -> dict[str, type]:
    """Names of the new columns, and what they hold; a number has no label.

    Raises:
        ScoringError: probabilities are wanted of a number.
    """
    columns: dict[str, type] = {"label": str, "score": float, "note": str}
    if bundle.manifest.runtime.abstain is not None:
        columns["abstained"] = bool
    if isinstance(bundle.task, Number):
        if options.probabilities:
            raise ScoringError(f"{bundle.path}: gives a number, which has no probabilities; leave out --probabilities")
        del columns["label"]
    if options.probabilities:
        columns |= {f"probability_{label}": float for label in bundle.manifest.labels}
    return {f"{options.prefix}{name}": kind for name, kind in columns.items()}


def _require_separable(bundle: Bundle, separator: str) -> None:
    """Refuses a separator that the labels hold, where a text may have several: nobody could tell them apart."""
    unclear = [label for label in bundle.manifest.labels if separator in label] if bundle.task.several else []
    if unclear:
        raise ScoringError(
            f"the label {unclear[0]!r} holds {separator!r}, which stands between labels; pass another "
            "with --label-separator"
        )


def _plan(bundle: Bundle, source: Path, options: Options, compute: Compute) -> Plan:
    status = source.stat()
    return {
        "bundle": bundle.manifest.version(),
        "input": str(source.resolve()),
        "input_bytes": status.st_size,
        "input_mtime_ns": status.st_mtime_ns,
        "text_column": options.text_column,
        **({} if options.text_pair_column is None else {"text_pair_column": options.text_pair_column}),
        "delimiter": options.form.delimiter or "",
        "encoding": options.form.encoding or "",
        "chunk_rows": CHUNK_ROWS,
        "batch_tokens": compute.batch_tokens,
        "device": str(compute.device),
    }


def _score(bundle: Bundle, compute: Compute, file: Source, progress: Progress, scorer: Score) -> None:
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rows]} rows"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"score {file.table.path.name}", total=1.0, rows=0)
        rows = 0
        for scored in scorer(bundle, compute, file, progress.done()):
            progress.save(scored.number, scored.part)
            rows += len(scored.part.notes)
            bar.update(task, completed=scored.read, rows=rows)
        bar.update(task, completed=1.0)


def _results(
    bundle: Bundle, options: Options, file: Source, progress: Progress, notes: Counter[str]
) -> Iterator[tuple[Chunk, NewCells]]:
    """Every chunk with its new columns; counts the notes."""
    for number, chunk in enumerate(file.chunks()):
        part = progress.load(number)
        notes.update(NOTES[note] for note in part.notes)
        yield chunk, _added(bundle, options, part)


def _added(bundle: Bundle, options: Options, part: Part) -> NewCells:
    answered = [bool(np.isfinite(row).all()) for row in part.logits]
    task, labels = bundle.task, bundle.manifest.labels
    scores = task.scores(part.logits, bundle.manifest.runtime.temperature if options.calibrated else 1.0)
    given = task.decide(part.logits)
    orders = np.argsort(-scores, axis=1, kind="stable")

    def where_answered(values: list[Any]) -> list[Any]:
        return [value if known else None for value, known in zip(values, answered, strict=True)]

    added: dict[str, list[Any]] = {
        "label": where_answered(
            [
                options.label_separator.join(labels[index] for index in order if gets[index])
                for order, gets in zip(orders, given, strict=True)
            ]
        ),
        "score": where_answered(scores.max(axis=1).tolist()),
        "note": [NOTES[note] or None for note in part.notes],
        "abstained": where_answered(list(bundle.abstains(part.logits))),
    }
    if options.probabilities:
        added |= {
            f"probability_{label}": where_answered(column)
            for label, column in zip(labels, scores.T.tolist(), strict=True)
        }
    wanted = _columns(bundle, options)
    return {name: values for key, values in added.items() if (name := f"{options.prefix}{key}") in wanted}
