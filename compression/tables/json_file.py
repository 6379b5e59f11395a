"""jsonl (one JSON object a line) and json (an array of objects). An object keeps its bytes; new keys stand last."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from compression.tables.table import CHUNK_ROWS, MAX_CHARACTERS, Chunk, Edit, NewCells, Table
from compression.tables.text import bounded_line, encoding_of, reading, writing

_SPACE = " \t\r\n"  # of JSON
_SPACES = re.compile("[ \t\r\n]*")
_READ_CHARACTERS = 1 << 16
_CUT = 16  # characters: an error so near the end of what was read may be of the cut


class _Object(dict[str, Any]):
    """What stands in braces.

    Attributes:
        twice: a name that it has more than once; JSON does not say which value counts.
    """

    twice: str | None = None

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> "_Object":
        found = cls(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            found.twice = next(name for name in found if names.count(name) > 1)
        return found


_DECODER = json.JSONDecoder(object_pairs_hook=_Object.of)


class _Row(NamedTuple):
    number: int
    raw: str
    value: dict[str, Any]


class JsonlTable(Table):
    """Empty lines are left out; a row without the column, but for the first, has None there."""

    begin, between, end, empty = "", "\n", "\n", ""  # around the objects of an output, and where there are none

    def chunks(self, text: str, others: Sequence[str] = ()) -> Iterator[Chunk]:
        size = self.path.stat().st_size
        with reading(self.path, self.form.encoding, newline="\n") as (file, raw):
            rows = self._rows(file)
            first = True
            while chunk := list(islice(rows, CHUNK_ROWS)):
                if first and text not in chunk[0].value:
                    raise self.no_column(text, chunk[0].value)
                first = False
                yield Chunk(
                    [row.raw for row in chunk],
                    {
                        text: [self.cell(row.value.get(text), text, row.number) for row in chunk],
                        **{
                            name: [self.cells(row.value.get(name), name, row.number) for row in chunk]
                            for name in others
                        },
                    },
                    dict.fromkeys(name for row in chunk for name in row.value),
                    [row.number for row in chunk],
                    raw.tell() / size,
                )

    def write(self, out: Path, chunks: Iterable[tuple[Chunk, NewCells]], edit: Edit) -> None:
        encoding = encoding_of(self.path, self.form.encoding)
        before = self.begin
        with writing(out, encoding, packed=out.suffix.lower() == ".gz") as written:
            for chunk, values in chunks:
                for position, raw in enumerate(chunk.rows):
                    other = {name: cell for name in edit.replaced if (cell := values[name][position]) is not None}
                    new = {name: values[name][position] for name in edit.added}
                    whole = _replaced(raw, other, encoding.codec) if other else raw
                    written.write(before + (_longer(whole, new, encoding.codec) if new else whole))
                    before = self.between
            written.write(self.end if before == self.between else self.empty)

    def _rows(self, file: IO[str]) -> Iterator[_Row]:
        number = 1
        while line := bounded_line(file, self.path, number):
            if raw := line.strip(_SPACE):
                yield _Row(number, raw, self._object(raw, number))
            number += 1

    def _object(self, raw: str, number: int) -> dict[str, Any]:
        try:
            value = _DECODER.decode(raw)
        except (ValueError, RecursionError) as error:
            raise self.broken(f"is not JSON: {error}; repair it", number) from error
        return self._mapping(value, number)

    def _mapping(self, value: object, number: int) -> dict[str, Any]:
        if not isinstance(value, _Object):
            raise self.broken("is not a JSON object", number)
        if value.twice is not None:
            raise self.broken(f"has {value.twice!r} twice; keep one", number)
        return value


class JsonTable(JsonlTable):
    """An array of objects, read piece by piece."""

    begin, between, end, empty = "[\n", ",\n", "\n]\n", "[]\n"

    def _rows(self, file: IO[str]) -> Iterator[_Row]:
        array = _Array(self, file)
        array.expect("[", "begins with something else than [")
        while array.next() != "]":
            number = array.number
            raw, value = array.element()
            yield _Row(number, raw, self._mapping(value, number))
            if array.next() != "]":
                array.expect(",", "has neither a comma nor ] behind an object")
                if array.next() == "]":
                    raise self.broken("has a comma and nothing behind it", array.number)
        array.expect("]", "")
        if array.next():
            raise self.broken("has something behind the closing ]", array.number)


class _Array:
    """A place in the text of an array. Reads what it needs and forgets what it has passed."""

    def __init__(self, table: Table, file: IO[str]) -> None:
        self._table = table
        self._file = file
        self._buffer = ""
        self._place = 0
        self.number = 1  # of the line

    def next(self) -> str:
        """Goes to the next character that is no space, and gives it; empty at the end."""
        while True:
            found = _SPACES.match(self._buffer, self._place)
            assert found is not None  # it matches nothing, too
            self._pass(found.end())
            if self._place < len(self._buffer) or not self._fill(_READ_CHARACTERS):
                return self._buffer[self._place : self._place + 1]

    def expect(self, character: str, otherwise: str) -> None:
        """Passes this character."""
        if self.next() != character:
            raise self._table.broken(
                f"{otherwise}; a .json file is an array of objects, or has one object a line", self.number
            )
        self._pass(self._place + 1)

    def element(self) -> tuple[str, object]:
        """Passes what stands here: its text and its value."""
        more = _READ_CHARACTERS
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._place)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos + _CUT > len(self._buffer)
                too_long = len(self._buffer) - self._place > MAX_CHARACTERS
                line = self.number + self._buffer.count("\n", self._place, error.pos)
                if not cut or too_long or not self._fill(more):
                    raise self._table.broken(f"is not JSON: {error.msg}; repair it", line) from error
                more *= 2  # what is read again and again stays in proportion
            except (ValueError, RecursionError) as error:
                raise self._table.broken(f"is not JSON: {error}; repair it", self.number) from error
            else:
                text = self._buffer[self._place : end]
                self._pass(end)
                return text, value

    def _fill(self, count: int) -> bool:
        read = self._file.read(count)
        self._buffer, self._place = self._buffer[self._place :] + read, 0
        return bool(read)

    def _pass(self, place: int) -> None:
        self.number += self._buffer.count("\n", self._place, place)
        self._place = place


def begins_with_array(path: Path, encoding: str | None) -> bool:
    """Whether a .json file is one array; else it is taken for one object a line, which many tools write too."""
    with reading(path, encoding, newline="\n") as (file, _):
        while start := file.read(_READ_CHARACTERS):
            if start := start.lstrip(_SPACE):
                return start[0] != "{"
    return True


def _longer(raw: str, members: Mapping[str, object], codec: str) -> str:
    """An object with more members."""
    opened = raw[:-1].rstrip(_SPACE)  # without its last brace
    return opened + ("" if opened == "{" else ", ") + _dumped(members, codec)[1:]


def _replaced(raw: str, values: Mapping[str, object], codec: str) -> str:
    """An object with other values of some members; whatever else is in it keeps its characters."""
    parts, kept, at = [], 0, _behind_space(raw, 1)
    while raw[at] != "}":
        name, at = _DECODER.raw_decode(raw, at)
        at = _behind_space(raw, _behind_space(raw, at) + 1)  # the colon
        _, end = _DECODER.raw_decode(raw, at)
        if name in values:
            parts += [raw[kept:at], _dumped(values[name], codec)]
            kept = end
        at = _behind_space(raw, end)
        if raw[at] == ",":
            at = _behind_space(raw, at + 1)
    return "".join([*parts, raw[kept:]])


def _behind_space(raw: str, at: int) -> int:
    space = _SPACES.match(raw, at)
    assert space is not None  # it may be empty
    return space.end()


def _dumped(value: object, codec: str) -> str:
    """JSON that this encoding can write: with escapes only where it must."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
