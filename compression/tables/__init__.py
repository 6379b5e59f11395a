"""Files of rows: the one reader and writer of csv, jsonl, json and parquet, for `compression` and for `lathe score`.

    file ──Table.chunks──▶ Chunk, Chunk, ... ──▶ Table.write: the same rows with columns added, or cells replaced

A file is read chunk by chunk, in constant memory, and what is passed through keeps its bytes: a row of csv is written
again as it stood, not as a writer of csv would put it. Needs neither torch nor pyarrow; parquet needs pyarrow. Every
error is a DataError that names the file, the line or row, and the remedy.
"""

from compression.tables.pairs import doubt_of_pairs
from compression.tables.table import CHUNK_ROWS, Cell, Cells, Chunk, Edit, Format, NewCells, Table
from compression.tables.tables import open_table, require_same_kind

__all__ = [
    "CHUNK_ROWS", "Cell", "Cells", "Chunk", "Edit", "Format", "NewCells", "Table", "doubt_of_pairs", "open_table",
    "require_same_kind",
]  # fmt: skip
