"""`lathe mask`: a file of rows, and what stays of it."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.commands import done, run, said

ROWS = (
    ("1", "Write to ann@example.com, please.", "13800138000"),
    ("2", 'Nothing here, "quoted".', ""),
    ("3", "Card 4111 1111 1111 1111", "none"),
)
MASKED = ("Write to <EMAIL_ADDRESS>, please.", 'Nothing here, "quoted".', "Card <CREDIT_CARD>")
NAMES = ("id", "text", "phone")


def written(path: Path) -> Path:
    """The rows, in the kind of file that the name says."""
    kind = path.name.partition(".")[2]
    if kind == "parquet":
        columns = zip(*ROWS, strict=True)
        pyarrow.parquet.write_table(pyarrow.table({n: list(c) for n, c in zip(NAMES, columns, strict=True)}), path)
        return path
    if kind.startswith("csv"):
        content = "id,text,phone\n" + "".join(
            ",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in ROWS
        )
    else:
        content = "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS)
    path.write_bytes(gzip.compress(content.encode()) if kind.endswith("gz") else content.encode())
    return path


def column(path: Path, name: str) -> list[str]:
    from compression.tables import open_table

    return [str(cell) for chunk in open_table(path).chunks(name) for cell in chunk.cells[name]]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_file_of_each_kind(kind: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{kind}"
    result = done("mask", written(tmp_path / f"rows.{kind}"), "--out", out)
    assert result.output.endswith("3 rows, 1 CREDIT_CARD, 1 EMAIL_ADDRESS\n")
    assert column(out, "text") == list(MASKED)
    assert column(out, "id") == ["1", "2", "3"]
    assert column(out, "phone") == [row[2] for row in ROWS]


def test_several_columns_and_some_types(tmp_path: Path) -> None:
    source, out = written(tmp_path / "rows.csv"), tmp_path / "out.csv"
    options = ["--text-column", "text", "--text-column", "phone", "--type", "CN_MOBILE", "--mode", "drop"]
    assert "3 rows, 1 CN_MOBILE" in done("mask", source, "--out", out, *options).output
    assert column(out, "phone") == ["", "", "none"]
    assert column(out, "text") == [row[1] for row in ROWS]
    untouched = [line for line in source.read_text("utf-8").splitlines() if "138" not in line]
    assert [line for line in out.read_text("utf-8").splitlines() if line in untouched] == untouched


def test_pseudonyms_are_those_of_the_service(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 2)
    source, out = written(tmp_path / "rows.jsonl"), tmp_path / "out.jsonl"
    done("mask", source, "--out", out, "--mode", "pseudonym", "--pseudonym-key-file", key)
    from service.masking import Masker, Mode

    expected = Masker(Mode.PSEUDONYM, key=key.read_bytes()).mask(ROWS[0][1]).text
    assert column(out, "text")[0] == expected != MASKED[0]


def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    source, out = written(tmp_path / "rows.csv"), tmp_path / "out.csv"
    for arguments, message in (
        (("--text-column", "body"), "no column 'body', only id, text, phone"),
        (("--text-column", "text", "--text-column", "mail"), "no column 'mail', only id, text, phone"),
    ):
        assert message in said(run("mask", source, "--out", out, *arguments))
        assert not out.exists()
    assert "is there already" in said(run("mask", source, "--out", source))
    assert "out.jsonl" in said(run("mask", source, "--out", tmp_path / "out.jsonl"))
    for arguments, message in (
        (("--type", "NAME"), "--type 'NAME': there is no such type; the types are"),
        (("--mode", "pseudonym"), "needs --pseudonym-key-file"),
    ):
        result = run("mask", source, "--out", out, *arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
    short = tmp_path / "short"
    short.write_text("abc")
    message = said(run("mask", source, "--out", out, "--mode", "pseudonym", "--pseudonym-key-file", short))
    assert "has 3 bytes, and needs 32" in message
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))] == []
