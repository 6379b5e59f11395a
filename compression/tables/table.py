"""What every kind of file has in common: chunks of rows, cells, and the errors of both."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from compression.errors import DataError

CHUNK_ROWS = 4096
MAX_CHARACTERS = 1 << 24  # of one line, cell or object: a quote that never closes must not take all memory

Cell: TypeAlias = str | None  # None where there is none; csv has no such cell, only an empty one
Cells: TypeAlias = Cell | tuple[str, ...]  # of a column besides the text: json and parquet have lists
NewCells: TypeAlias = Mapping[str, Sequence[Any]]  # values by column of an `Edit`, row by row


@dataclass(frozen=True)
class Format:
    """How a file of text is written.

    Attributes:
        encoding: a codec of Python's; None is UTF-8, or UTF-16 where the file begins with its byte order mark.
        delimiter: between the cells of csv; None is a comma, or a tab in a file called .tsv.
    """

    encoding: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class Edit:
    """What becomes of a file's columns when it is written again.

    Attributes:
        added: names of new columns, and what they hold: str, float or bool; None is a cell without a value.
        replaced: columns of the file in which some cells become other strings; None is one that stays as it is written.
    """

    added: Mapping[str, type] = field(default_factory=dict)
    replaced: Collection[str] = ()


@dataclass(frozen=True)
class Chunk:
    """Rows that follow each other.

    Attributes:
        rows: as the file's kind has them.
        cells: of the columns that were asked for, row by row; a column that is not there is all None.
        names: the columns that these rows have.
        numbers: of each row, counted from 1: the line on which it begins; in parquet the row.
        read: how much of the file has been read, 0 to 1.
    """

    rows: Any
    cells: Mapping[str, Sequence[Cells]]
    names: Collection[str]
    numbers: Sequence[int]
    read: float


class Table(ABC):
    """A file of one kind."""

    unit = "line"  # what `Chunk.numbers` counts

    def __init__(self, path: Path, form: Format) -> None:
        self.path = path
        self.form = form

    @abstractmethod
    def chunks(self, text: str, others: Sequence[str] = ()) -> Iterator[Chunk]:
        """The rows, `CHUNK_ROWS` at a time; the same chunks each time.

        Args:
            text: a column that must be there.
            others: columns that may be.

        Raises:
            DataError: not a file of this kind, no such column or two of them, or a cell that is no string or
                number; of other columns, a list of them is one too.
        """

    @abstractmethod
    def write(self, out: Path, chunks: Iterable[tuple[Chunk, NewCells]], edit: Edit) -> None:
        """Writes this file's chunks with new columns behind the others, and other cells in place of some.

        Raises:
            DataError: a column whose cells are replaced cannot hold strings.
        """

    def require_writable(self, words: Iterable[str]) -> None:  # noqa: B027  # most kinds can write any word
        """Raises:
        DataError: one of these words cannot be written into a file like this one.
        """

    def broken(self, reason: object, number: int | None = None) -> DataError:
        """The error that names the file and, if it is known, the line or row."""
        place = "" if number is None else f"{self.unit} {number}: "
        return DataError(f"{self.path}: {place}{reason}")

    def no_column(self, name: str, names: Iterable[str], hint: str = "") -> DataError:
        """The error of a text column that is not there."""
        there = ", ".join(map(str, names)) or "none"
        return self.broken(f"no column {name!r}, only {there}; {hint or 'name it with --text-column'}")

    def require_single(self, wanted: Iterable[str], names: Sequence[str]) -> None:
        """Refuses a column that is there twice: nothing says which one is meant."""
        for name in wanted:
            if names.count(name) > 1:
                raise self.broken(f"has {names.count(name)} columns called {name!r}; rename or remove all but one")

    def cells(self, value: object, column: str, number: int) -> Cells:
        """A value, or several in a list."""
        if not isinstance(value, list):
            return self.cell(value, column, number)
        found = [self.cell(one, column, number) for one in value]
        if not all(found):
            raise self.broken(f"has a list in {column!r} with nothing in one of its places; leave that out", number)
        return tuple(one for one in found if one)

    def cell(self, value: object, column: str, number: int) -> Cell:
        """A value as csv would give it: a number is its digits, and one that is not a number is missing."""
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float) and math.isnan(value):  # what pandas writes where there is nothing
            return None
        if isinstance(value, int | float):
            return str(value)
        kind = "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
        raise self.broken(f"has {kind} in {column!r}; write it as a string", number)
