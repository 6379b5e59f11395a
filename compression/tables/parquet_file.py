"""parquet: the schema is kept, the new columns stand behind the others. Needs pyarrow."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from compression.errors import DataError
from compression.tables.table import CHUNK_ROWS, Cells, Chunk, Edit, NewCells, Table

_GROUP_CHUNKS = 16  # chunks in a row group


class ParquetTable(Table):
    """The text column holds strings. A ClassLabel column of `datasets` gives the names that the file has for it."""

    unit = "row"

    def chunks(self, text: str, others: Sequence[str] = ()) -> Iterator[Chunk]:
        pyarrow, parquet = _pyarrow()
        try:
            with parquet.ParquetFile(self.path, buffer_size=1 << 20) as file:
                schema = file.schema_arrow
                self._require(text, others, schema)
                done = 0
                for batch in file.iter_batches(batch_size=CHUNK_ROWS):
                    numbers = range(done + 1, done + len(batch) + 1)
                    done += len(batch)
                    yield Chunk(
                        batch,
                        {name: self._cells(batch, schema, name, numbers) for name in (text, *others)},
                        schema.names,
                        numbers,
                        done / file.metadata.num_rows,
                    )
        except pyarrow.ArrowException as error:
            raise self.broken(f"not a parquet file: {error}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise self.broken(f"a damaged parquet file: {error}") from error

    def write(self, out: Path, chunks: Iterable[tuple[Chunk, NewCells]], edit: Edit) -> None:
        pyarrow, parquet = _pyarrow()
        kinds = {str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_()}
        try:
            schema = parquet.read_schema(self.path)
        except pyarrow.ArrowException as error:
            raise self.broken(f"not a parquet file: {error}") from error
        for name, kind in edit.added.items():
            schema = schema.append(pyarrow.field(name, kinds[kind]))
        pairs = iter(chunks)
        with parquet.ParquetWriter(out, schema) as writer:
            while group := list(islice(pairs, _GROUP_CHUNKS)):
                batches = [
                    pyarrow.RecordBatch.from_arrays(
                        [
                            *self._columns(chunk, schema, {name: values[name] for name in edit.replaced}),
                            *(pyarrow.array(values[name], kinds[kind]) for name, kind in edit.added.items()),
                        ],
                        schema=schema,
                    )
                    for chunk, values in group
                ]
                writer.write_table(pyarrow.Table.from_batches(batches, schema))

    def _columns(self, chunk: Chunk, schema: Any, others: NewCells) -> list[Any]:
        """A chunk's columns, with other cells where there are some."""
        import pyarrow

        columns = list(chunk.rows.columns)
        for name, values in others.items():
            if name not in schema.names or not any(value is not None for value in values):
                continue
            place = schema.names.index(name)
            kind = schema.field(place).type
            if not _holds_strings(kind):
                raise self.broken(f"the column {name!r} holds {kind}, which is no string; convert it to strings")
            cells = zip(columns[place].to_pylist(), values, strict=True)
            new = pyarrow.array([own if value is None else value for own, value in cells], pyarrow.string())
            columns[place] = new.cast(kind)
        return columns

    def _cells(self, batch: Any, schema: Any, name: str, numbers: Sequence[int]) -> list[Cells]:
        if name not in schema.names:
            return [None] * len(batch)
        values = batch.column(schema.names.index(name)).to_pylist()
        classes = _class_names(schema, name)
        if classes:
            values = [_named(value, classes) for value in values]
        return [self.cells(value, name, number) for value, number in zip(values, numbers, strict=True)]

    def _require(self, text: str, others: Sequence[str], schema: Any) -> None:
        self.require_single((text, *others), schema.names)
        if text not in schema.names:
            raise self.no_column(text, schema.names)
        kind = schema.field(text).type
        if not _holds_strings(kind):
            raise self.broken(f"the column {text!r} holds {kind}; name one of strings with --text-column")


def _holds_strings(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _named(value: Any, classes: Sequence[str]) -> Any:
    """What a number stands for, or a list of them."""
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    return classes[value] if value is not None and 0 <= value < len(classes) else None


def _class_names(schema: Any, name: str) -> list[str]:
    """What a ClassLabel column's numbers stand for: `datasets` keeps that beside the schema; -1 there is no label."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][name]
        feature = feature.get("feature", feature)  # of a list
        return list(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError):
        return []


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("parquet files need pyarrow: pip install pyarrow, or use csv or jsonl") from error
    return pyarrow, pyarrow.parquet
