"""The file to score, and the columns that its rows get."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from compression.bundle import Input
from compression.tables import Chunk, Table
from service.errors import ScoringError


@dataclass(frozen=True)
class Source:
    """A table, its column that is scored, and the new columns with what they hold: str, float or bool.

    Attributes:
        text_pair_column: of the second texts, where pairs are scored.
    """

    table: Table
    text_column: str
    added: Mapping[str, type]
    text_pair_column: str | None = None

    def chunks(self) -> Iterator[Chunk]:
        """The table's chunks.

        Raises:
            DataError: see `Table.chunks`; or there is no column of second texts.
            ScoringError: a column has a new one's name.
        """
        second = self.text_pair_column
        for number, chunk in enumerate(self.table.chunks(self.text_column, tuple(filter(None, [second])))):
            if second is not None and not number and second not in chunk.names:
                raise self.table.no_column(second, chunk.names, "name it with --text-pair-column")
            for name in chunk.names:
                if name in self.added:
                    raise ScoringError(
                        f"{self.table.path}: has a column {name!r} already, which would be overwritten; put something "
                        "before the new columns' names with --prefix predicted_"
                    )
            yield chunk

    def inputs(self, chunk: Chunk) -> list[Input | None]:
        """What is to be scored, texts or pairs; None where a row lacks a text, or one has half a surrogate pair, which
        is no character.
        """
        firsts = _texts(chunk, self.text_column)
        if self.text_pair_column is None:
            return list(firsts)
        seconds = _texts(chunk, self.text_pair_column)
        return [None if one is None or two is None else (one, two) for one, two in zip(firsts, seconds, strict=True)]


def _texts(chunk: Chunk, column: str) -> list[str | None]:
    return [cell if isinstance(cell, str) and _is_text(cell) else None for cell in chunk.cells[column]]


def _is_text(cell: str) -> bool:
    if not cell.strip():
        return False
    return cell.isascii() or not any("\ud800" <= character <= "\udfff" for character in cell)
