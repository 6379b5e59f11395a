"""The file to score, and the columns that its rows get."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from compression.tables import Chunk, Table
from service.errors import ScoringError


@dataclass(frozen=True)
class Source:
    """A table, its column that is scored, and the new columns with what they hold, str or float."""

    table: Table
    text_column: str
    added: Mapping[str, type]

    def chunks(self) -> Iterator[Chunk]:
        """The table's chunks.

        Raises:
            DataError: see `Table.chunks`.
            ScoringError: a column has a new one's name.
        """
        for chunk in self.table.chunks(self.text_column):
            for name in chunk.names:
                if name in self.added:
                    raise ScoringError(
                        f"{self.table.path}: has a column {name!r} already, which would be overwritten; put something "
                        "before the new columns' names with --prefix predicted_"
                    )
            yield chunk

    def texts(self, chunk: Chunk) -> list[str | None]:
        """What is to be scored; None where a row has no text, or half a surrogate pair, which is no character."""
        return [cell if isinstance(cell, str) and _is_text(cell) else None for cell in chunk.cells[self.text_column]]


def _is_text(cell: str) -> bool:
    if not cell.strip():
        return False
    return cell.isascii() or not any("\ud800" <= character <= "\udfff" for character in cell)
