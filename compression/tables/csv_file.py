"""csv: a header, then rows. A row is written again as it stood, with the new cells behind it."""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from compression.errors import DataError
from compression.tables.table import CHUNK_ROWS, MAX_CHARACTERS, Chunk, Edit, Format, NewCells, Table
from compression.tables.text import bounded_line, encoding_of, reading, writing

_DELIMITERS = ",;\t|"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes a cell for that begins so


class _Row(NamedTuple):
    number: int  # of its first line
    cells: list[str]
    raw: str  # with the end of its last line


class _Lines:
    """The lines of a file, and those that were taken since `taken` was emptied: a row may stand on several."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file = file
        self._path = path
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = bounded_line(self._file, self._path, self.number + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        return line


class CsvTable(Table):
    """Empty lines are left out. Every other row must have as many cells as the header."""

    def __init__(self, path: Path, form: Format, delimiter: str = ",") -> None:
        super().__init__(path, form)
        self.delimiter = form.delimiter or delimiter

    def chunks(self, text: str, others: Sequence[str] = ()) -> Iterator[Chunk]:
        size = self.path.stat().st_size
        with reading(self.path, self.form.encoding, newline="") as (file, raw):
            rows = self._rows(file)
            header = self._header(rows)
            self._require(text, others, header)
            places = {name: header.cells.index(name) for name in (text, *others) if name in header.cells}
            whole = self._whole(rows, len(header.cells))
            while chunk := list(islice(whole, CHUNK_ROWS)):
                yield Chunk(
                    [row.raw for row in chunk],
                    {
                        name: [row.cells[places[name]] if name in places else None for row in chunk]
                        for name in (text, *others)
                    },
                    header.cells,
                    [row.number for row in chunk],
                    raw.tell() / size,
                )

    def write(self, out: Path, chunks: Iterable[tuple[Chunk, NewCells]], edit: Edit) -> None:
        with reading(self.path, self.form.encoding, newline="") as (file, _):
            header = self._header(self._rows(file))
        end = _end(header.raw) or "\n"
        encoding = encoding_of(self.path, self.form.encoding)
        places = {name: header.cells.index(name) for name in edit.replaced if name in header.cells}
        with writing(out, encoding, packed=out.suffix.lower() == ".gz") as written:
            written.write(self._longer(header.raw, edit.added, end))
            for chunk, values in chunks:
                for row, raw in enumerate(chunk.rows):
                    other = {at: cell for name, at in places.items() if (cell := values[name][row]) is not None}
                    new = [self._safe(values[name][row]) for name in edit.added]
                    written.write(self._longer(self._replaced(raw, other) if other else raw, new, end))

    def require_writable(self, words: Iterable[str]) -> None:
        codec = encoding_of(self.path, self.form.encoding).codec
        for word in words:
            try:
                word.encode(codec)
            except UnicodeEncodeError as error:
                raise self.broken(
                    f"the new columns hold {word!r}, which {codec} cannot write; convert the file to UTF-8"
                ) from error

    def _rows(self, file: IO[str]) -> Iterator[_Row]:
        csv.field_size_limit(MAX_CHARACTERS)  # of the whole process; 131,072 where nobody sets it
        lines = _Lines(file, self.path)
        try:
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        except (TypeError, ValueError) as error:
            raise DataError(f"--delimiter {self.delimiter!r}: is not one character; ';' and tab are some") from error
        while True:
            lines.taken.clear()
            number = lines.number + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                hint = self._hint(lines.taken[0]) if number == 1 else ""
                reason = f"the row that begins here is not csv: {_explained(error)}"
                raise self.broken(f"{reason}; {hint}" if hint else reason, number) from error
            if cells is None:
                return
            if cells:
                yield _Row(number, cells, "".join(lines.taken))

    def _header(self, rows: Iterator[_Row]) -> _Row:
        header = next(rows, None)
        if header is None:
            raise self.broken("is empty; its first line must name the columns")
        return header

    def _require(self, text: str, others: Sequence[str], header: _Row) -> None:
        self.require_single((text, *others), header.cells)
        if text not in header.cells:
            raise self.no_column(text, header.cells, self._hint(header.raw))

    def _hint(self, header: str) -> str:
        """What to pass where another delimiter divides the header more often; else nothing."""
        likely = max(_DELIMITERS, key=header.count)
        if header.count(likely) <= header.count(self.delimiter):
            return ""
        name = "tab" if likely == "\t" else f"'{likely}'"
        return f"the cells look divided by {name}: pass --delimiter {name}"

    def _whole(self, rows: Iterator[_Row], cells: int) -> Iterator[_Row]:
        for row in rows:
            if len(row.cells) != cells:
                raise self.broken(
                    f"the row that begins here has {len(row.cells)} cells and the header has {cells}; a cell that "
                    "holds the delimiter or a quote must stand in quotes",
                    row.number,
                )
            yield row

    def _longer(self, raw: str, cells: Collection[str], end: str) -> str:
        """A row with more cells."""
        if not cells:
            return raw
        own = _end(raw)
        whole = raw[: len(raw) - len(own)]
        return self.delimiter.join([whole, *map(self._quoted, cells)]) + (own or end)

    def _replaced(self, raw: str, cells: Mapping[int, str]) -> str:
        """A row with other cells in some places."""
        own = next(csv.reader(io.StringIO(raw, newline=""), delimiter=self.delimiter, strict=True))
        new = [self._quoted(cells.get(at, cell)) for at, cell in enumerate(own)]
        return (self.delimiter.join(new) or '""') + _end(raw)  # an empty line would be no row

    def _quoted(self, cell: str) -> str:
        """In quotes where a reader might take it for something else; older csv modules forget a bare \\r."""
        if any(one in cell for one in (self.delimiter, '"', "\r", "\n")) or cell != cell.strip():
            return '"' + cell.replace('"', '""') + '"'
        return cell

    @staticmethod
    def _safe(value: object) -> str:
        """A value as a cell. What a spreadsheet would run as a formula gets an apostrophe before it."""
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()  # as JSON has it
        if isinstance(value, str) and value.startswith(_FORMULA) and value.rstrip()[1:] and not _is_number(value):
            return f"'{value}"
        return str(value)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _end(raw: str) -> str:
    """The end of a row's last line: one of \\n, \\r, \\r\\n, or nothing at the end of a file."""
    return next((end for end in ("\r\n", "\n", "\r") if raw.endswith(end)), "")


def _explained(error: csv.Error) -> str:
    reason = str(error)
    if "expected after" in reason:
        return "text after a closing quote; a quote inside a quoted cell is written twice"
    if "unexpected end" in reason:
        return "a quote is opened and never closed (unexpected end of data)"
    if "field limit" in reason:
        return f"a cell of more than {MAX_CHARACTERS:,} characters, or a quote that is never closed"
    return reason
