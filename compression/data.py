"""Reads labelled or unlabelled text from csv, jsonl or parquet files.

Every cell is taken as the string it is: a label `1`, a text `NA` or an empty label keep their meaning.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compression.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Where a data file keeps what: names of columns, the value of `split` to take, labels to treat as missing."""

    text: str = "text"
    label: str = "label"
    split: str | None = None  # take only the rows whose `split` column holds this value
    ignored_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Texts and, position by position, their labels; None where a row has none."""

    texts: tuple[str, ...]
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labelled(self) -> "Examples":
        """The rows that have a label."""
        return self.where(label is not None for label in self.labels)

    def where(self, kept: Iterable[bool]) -> "Examples":
        """The rows for which `kept`, taken in step with the rows, is true."""
        rows = [row for row, keep in zip(zip(self.texts, self.labels, strict=True), kept, strict=True) if keep]
        return Examples(tuple(text for text, _ in rows), tuple(label for _, label in rows))


def read_examples(path: Path, columns: Columns = Columns()) -> Examples:
    """Reads a data file.

    Raises:
        DataError: the file, the text column or the split is not there, a row cannot be read, or nothing is left.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of data file {path.suffix!r}; use one of {', '.join(sorted(_READERS))}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    texts: list[str] = []
    labels: list[str | None] = []
    for number, row in enumerate(reader(path), start=1):
        if columns.split is not None and _cell(path, number, row, "split") != columns.split:
            continue
        text = _cell(path, number, row, columns.text)
        if not text.strip():
            raise DataError(f"{path}: row {number} has an empty {columns.text!r}; remove it or fill it in")
        label = str(row[columns.label]) if row.get(columns.label) is not None else ""
        texts.append(text)
        labels.append(label if label and label not in columns.ignored_labels else None)
    if not texts:
        where = f" with split {columns.split!r}" if columns.split is not None else ""
        raise DataError(f"{path}: no rows{where}")
    return Examples(tuple(texts), tuple(labels))


def require_known_labels(examples: Examples, known: Iterable[str], path: Path) -> None:
    """Refuses labels that the model does not have, rather than counting them as mistakes.

    Raises:
        DataError: names the unknown labels and those of the model.
    """
    names = set(known)
    unknown = sorted({label for label in examples.labels if label is not None} - names)
    if unknown:
        raise DataError(
            f"{path}: labels that the model does not have: {', '.join(map(repr, unknown[:5]))}"
            f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}; it has {', '.join(sorted(names)[:10])}"
            f"{', ...' if len(names) > 10 else ''}. Rename them, or leave them out with --ignore-label"
        )


def _cell(path: Path, number: int, row: Row, column: str) -> str:
    if column not in row:
        raise DataError(f"{path}: row {number} has no column {column!r}; it has {', '.join(map(str, row))}")
    return "" if row[column] is None else str(row[column])


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file, strict=True):
                row.pop(None, None)  # type: ignore[call-overload]  # cells beyond the header
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a UTF-8 csv file: {error}") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number} is not a JSON object")
            yield row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a parquet file: {error}") from error
    yield from table.to_pylist()


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
