"""Which kind of file a name stands for."""

from pathlib import Path

from compression.errors import DataError
from compression.tables.csv_file import CsvTable
from compression.tables.json_file import JsonlTable, JsonTable, begins_with_array
from compression.tables.parquet_file import ParquetTable
from compression.tables.table import Format, Table

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


def open_table(path: Path, form: Format = Format()) -> Table:
    """The file of the kind that its name ends in; text may be packed with gzip (`.csv.gz`).

    Raises:
        DataError: no such file, an unknown kind, or a format that does not fit.
    """
    kind = _kind(path)
    if kind not in KINDS or (kind == ".parquet" and path.suffix.lower() == ".gz"):
        raise DataError(
            f"{path}: unknown kind of file {''.join(path.suffixes[-2:])!r}; use one of {', '.join(KINDS)}, "
            "text also packed as .gz"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if form.delimiter is not None and kind not in {".csv", ".tsv"}:
        raise DataError(f"{path}: --delimiter is for csv; a {kind} file has none")
    try:
        match kind:
            case ".csv":
                return CsvTable(path, form)
            case ".tsv":
                return CsvTable(path, form, "\t")
            case ".json" if begins_with_array(path, form.encoding):
                return JsonTable(path, form)
            case ".parquet":
                return ParquetTable(path, form)
            case _:
                return JsonlTable(path, form)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def require_same_kind(out: Path, path: Path) -> None:
    """Raises:
    DataError: an output's name says another kind of file than the input's; gzip aside.
    """
    kind = _kind(path)
    if _kind(out) != kind or (kind == ".parquet" and out.suffix.lower() == ".gz"):
        name = out.with_suffix("").stem if out.suffix.lower() == ".gz" else out.stem
        raise DataError(
            f"{out}: rows keep what they are, so the output is a {kind} file as {path} is; name it {name}{kind}"
        )


def _kind(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()
