"""Files of rows, read chunk by chunk, and written again with columns added; nothing else of a row changes.

csv      every cell is the string that it is
jsonl    a line keeps its bytes, the new keys stand before its last brace
parquet  the schema is kept, the new columns stand behind the others
"""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.errors import ScoringError

CHUNK_ROWS = 4096
_GROUP_CHUNKS = 16  # chunks in a row group of parquet

R = TypeVar("R")
Added = Mapping[str, Sequence[Any]]  # values of the new columns, row by row; None where there is none


@dataclass(frozen=True)
class Chunk(Generic[R]):
    """Rows in a row.

    Attributes:
        rows: as the file's kind has them.
        texts: of each row; None where there is none.
        read: how much of the file has been read, 0 to 1.
    """

    rows: R
    texts: list[str | None]
    read: float


class RowFile(ABC, Generic[R]):
    """A file of one kind.

    Args:
        text_column: the column that is scored.
        added: the new columns and what they hold, str or float.
    """

    def __init__(self, path: Path, text_column: str, added: Mapping[str, type]) -> None:
        self.path = path
        self.text_column = text_column
        self.added = added

    @abstractmethod
    def chunks(self) -> Iterator[Chunk[R]]:
        """The rows, `CHUNK_ROWS` at a time; the same chunks each time.

        Raises:
            ScoringError: not a file of this kind, no such column, or a column of a new one's name.
        """

    @abstractmethod
    def write(self, out: Path, chunks: Iterable[tuple[Chunk[R], Added]]) -> None:
        """Writes the rows with their new columns."""

    def _check(self, columns: Sequence[str]) -> None:
        if self.text_column not in columns:
            raise ScoringError(
                f"{self.path}: no column {self.text_column!r}, only {', '.join(columns)}; name it with --text-column"
            )
        self._check_new(columns)

    def _check_new(self, columns: Iterable[str]) -> None:
        for name in columns:
            if name in self.added:
                raise ScoringError(
                    f"{self.path}: has a column {name!r} already, which would be overwritten; put something before the "
                    "new columns' names with --prefix predicted_"
                )

    def _broken(self, reason: object) -> ScoringError:
        return ScoringError(f"{self.path}: not a {self.path.suffix[1:].lower()} file in UTF-8: {reason}; repair it")


class CsvFile(RowFile[list[list[str]]]):
    """Comma-separated, with a header. Empty lines are left out."""

    def chunks(self) -> Iterator[Chunk[list[list[str]]]]:
        size = self.path.stat().st_size
        with self.path.open("rb") as bytes_read, io.TextIOWrapper(bytes_read, "utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                header = self._header(reader)
                column = header.index(self.text_column)
                rows = self._whole(reader, len(header))
                while chunk := list(islice(rows, CHUNK_ROWS)):
                    yield Chunk(chunk, [row[column] or None for row in chunk], bytes_read.tell() / size)
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._broken(f"line {reader.line_num}: {error}") from error

    def write(self, out: Path, chunks: Iterable[tuple[Chunk[list[list[str]]], Added]]) -> None:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            header = self._header(csv.reader(file, strict=True))
        with out.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*header, *self.added])
            for chunk, added in chunks:
                columns = [added[name] for name in self.added]
                writer.writerows([*row, *new] for row, new in zip(chunk.rows, zip(*columns, strict=True), strict=True))

    def _whole(self, reader: Any, cells: int) -> Iterator[list[str]]:
        for row in filter(None, reader):
            if len(row) != cells:
                raise self._broken(f"line {reader.line_num} has {len(row)} cells and the header has {cells}")
            yield row

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        header = next(filter(None, reader), None)
        if header is None:
            raise ScoringError(f"{self.path}: is empty; its first line must name the columns")
        self._check(header)
        return header


class JsonlFile(RowFile[list[bytes]]):
    """One JSON object a line. Empty lines are left out; a row without the column, but for the first, has no text."""

    def chunks(self) -> Iterator[Chunk[list[bytes]]]:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            lines = ((number, line.strip()) for number, line in enumerate(file, start=1))
            numbered: Iterator[tuple[int, bytes]] = ((number, line) for number, line in lines if line)
            first = next(numbered, None)
            if first is None:
                return
            self._check(list(self._object(*first)))
            numbered = chain([first], numbered)
            while chunk := list(islice(numbered, CHUNK_ROWS)):
                texts = [self._text(number, line) for number, line in chunk]
                yield Chunk([line for _, line in chunk], texts, file.tell() / size)

    def write(self, out: Path, chunks: Iterable[tuple[Chunk[list[bytes]], Added]]) -> None:
        with out.open("wb") as file:
            for chunk, added in chunks:
                for position, line in enumerate(chunk.rows):
                    new = {name: added[name][position] for name in self.added}
                    opened = line[:-1].rstrip()  # an object without its last brace
                    separator = b"" if opened == b"{" else b", "
                    file.write(opened + separator + json.dumps(new, ensure_ascii=False).encode()[1:] + b"\n")

    def _text(self, number: int, line: bytes) -> str | None:
        row = self._object(number, line)
        self._check_new(row)
        value = row.get(self.text_column)
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, int | float):  # as csv would give it
            return str(value)
        raise ScoringError(
            f"{self.path}: line {number} has a {type(value).__name__} in {self.text_column!r}; write it as a string"
        )

    def _object(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line.decode())  # not of the bytes, whose encoding json would guess
        except (ValueError, RecursionError) as error:
            raise self._broken(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise self._broken(f"line {number} is no JSON object")
        return row


class ParquetFile(RowFile[Any]):  # rows: a pyarrow.RecordBatch
    """Parquet with a text column of strings."""

    def chunks(self) -> Iterator[Chunk[Any]]:
        pyarrow, parquet = _pyarrow()
        try:
            with parquet.ParquetFile(self.path, buffer_size=1 << 20) as file:
                self._check_schema(file.schema_arrow)
                done = 0
                for batch in file.iter_batches(batch_size=CHUNK_ROWS):
                    done += len(batch)
                    texts = batch.column(self.text_column).cast(pyarrow.string()).to_pylist()
                    yield Chunk(batch, [text or None for text in texts], done / file.metadata.num_rows)
        except pyarrow.ArrowException as error:
            raise self._broken(error) from error

    def write(self, out: Path, chunks: Iterable[tuple[Chunk[Any], Added]]) -> None:
        pyarrow, parquet = _pyarrow()
        kinds = {str: pyarrow.string(), float: pyarrow.float64()}
        schema = parquet.read_schema(self.path)
        for name, kind in self.added.items():
            schema = schema.append(pyarrow.field(name, kinds[kind]))
        pairs = iter(chunks)
        with parquet.ParquetWriter(out, schema) as writer:
            while group := list(islice(pairs, _GROUP_CHUNKS)):
                batches = [
                    pyarrow.RecordBatch.from_arrays(
                        [
                            *chunk.rows.columns,
                            *(pyarrow.array(added[name], kinds[kind]) for name, kind in self.added.items()),
                        ],
                        schema=schema,
                    )
                    for chunk, added in group
                ]
                writer.write_table(pyarrow.Table.from_batches(batches, schema))

    def _check_schema(self, schema: Any) -> None:
        from pyarrow import types

        self._check(schema.names)
        kind = schema.field(self.text_column).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
            raise ScoringError(
                f"{self.path}: the column {self.text_column!r} holds {kind}; name one of strings with --text-column"
            )


_KINDS: dict[str, type[RowFile[Any]]] = {".csv": CsvFile, ".jsonl": JsonlFile, ".parquet": ParquetFile}


def open_rows(path: Path, out: Path, text_column: str, added: Mapping[str, type]) -> RowFile[Any]:
    """The file to score, of the kind that its name ends in.

    Raises:
        ScoringError: no such file, an unknown kind, or another kind than the output's.
    """
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise ScoringError(f"{path}: unknown kind of file {path.suffix!r}; use one of {', '.join(_KINDS)}")
    if out.suffix.lower() != kind:
        raise ScoringError(
            f"{out}: rows keep what they are, so the output is a {kind} file as {path} is; name it {out.stem}{kind}"
        )
    if not path.is_file():
        raise ScoringError(f"{path}: no such file")
    return _KINDS[kind](path, text_column, added)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ScoringError("parquet files need pyarrow; pip install pyarrow, or use csv or jsonl") from error
    return pyarrow, pyarrow.parquet
