"""Masks columns of a file of rows, in constant memory; whatever else is in the file stays as it is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from compression.bundle.atomic_files import replacing
from compression.tables import Cells, Chunk, Edit, NewCells, Table, require_same_kind
from service.errors import ConfigurationError
from service.masking.masker import Masker


def mask_file(table: Table, out: Path, columns: Sequence[str], masker: Masker) -> tuple[int, Counter[str]]:
    """Writes a file of the same kind with some columns masked. A cell without an entity keeps its bytes.

    Args:
        columns: at least one.

    Returns:
        the number of rows, and by type that of what was masked.

    Raises:
        ConfigurationError: `out` is there already.
        DataError: the file cannot be read, has no such column, or it holds no strings.
        StorageError: `out` cannot be written.
    """
    if out.exists():
        raise ConfigurationError(f"{out}: is there already and is never overwritten; remove it or name another file")
    require_same_kind(out, table.path)
    rows, found = 0, Counter[str]()

    def masked(cell: Cells) -> str | list[str] | None:
        """What takes a cell's place; None: it stays."""
        texts = () if cell is None else (cell,) if isinstance(cell, str) else cell
        results = [masker.mask(text) for text in texts]
        kinds = [entity.type for result in results for entity in result.entities]
        if not kinds:
            return None
        found.update(kinds)
        new = [result.text for result in results]
        return new[0] if isinstance(cell, str) else new

    def chunks() -> Iterator[tuple[Chunk, NewCells]]:
        nonlocal rows
        for chunk in table.chunks(columns[0], columns[1:]):
            lacking = [name for name in columns if name not in chunk.names]
            if lacking and not rows:  # in JSON a later row may lack some
                raise table.no_column(lacking[0], chunk.names)
            rows += len(chunk.numbers)
            yield chunk, {name: [masked(cell) for cell in chunk.cells[name]] for name in columns}

    with replacing(out, "name another file with --out") as staging:
        table.write(staging, chunks(), Edit(replaced=columns))
    return rows, found
