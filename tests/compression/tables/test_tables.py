"""The one reader and writer of files of rows: what is read is what was written, and errors say where."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from compression.errors import DataError
from compression.tables import CHUNK_ROWS, Cell, Edit, Format, open_table, require_same_kind
from compression.tables.text import likely_encodings

Rows = list[list[Cell]]
NAMES = ("text", "other")
KINDS = ("csv", "tsv", "jsonl", "ndjson", "json", "csv.gz", "json.gz", "parquet")
PIECES = ["\r", "\n", "\r\n", "\0", '"', '""', "'", ",", ";", "\t", " ", "\ufeff", "\u2028", "\x85", "\x0b", "早", "a"]
CELLS = st.lists(st.sampled_from(PIECES), max_size=5).map("".join) | st.text(max_size=4)
MISSING = st.none() | CELLS
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(path: Path, rows: Sequence[Sequence[Cell]], encoding: str = "utf-8", delimiter: str = ",") -> Path:
    """A file of two columns as other tools write it; a csv cell that is missing is an empty one."""
    kind = path.name.partition(".")[2].removesuffix(".gz")
    if kind == "parquet":
        columns = zip(*rows, strict=True) if rows else ((), ())
        arrays = [pyarrow.array(column, pyarrow.string()) for column in columns]
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(NAMES, arrays, strict=True))), path)
        return path
    if kind in {"csv", "tsv"}:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter="\t" if kind == "tsv" else delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([NAMES, *rows])
        content = text.getvalue()
    else:
        objects = [json.dumps(dict(zip(NAMES, row, strict=True)), ensure_ascii=False) for row in rows]
        content = "[" + ",".join(objects) + "]" if kind == "json" else "".join(f"{one}\n" for one in objects)
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def cells(path: Path, names: Sequence[str] = NAMES, form: Format = Format()) -> Rows:
    table = open_table(path, form)
    rows: Rows = []
    for chunk in table.chunks(names[0], names[1:]):
        rows += [list(row) for row in zip(*(chunk.cells[name] for name in names), strict=True)]
    return rows


def copied(path: Path, out: Path, added: dict[str, list[Any]], form: Format = Format()) -> Path:
    """The file written again with these columns of strings."""
    table = open_table(path, form)
    done, chunks = 0, []
    for chunk in table.chunks("text"):
        chunks.append((chunk, {name: values[done : done + len(chunk.numbers)] for name, values in added.items()}))
        done += len(chunk.numbers)
    table.write(out, chunks, Edit(added=dict.fromkeys(added, str)))
    return out


def as_kind(rows: Rows, kind: str) -> Rows:
    """Rows as this kind can hold them: csv knows no missing cell."""
    return [[cell or "" for cell in row] for row in rows] if kind.startswith(("csv", "tsv")) else rows


@pytest.mark.parametrize("kind", KINDS)
@RELAXED
@example(rows=[["a\rb", "x", "\r"], ["\r\n", "", None], ["\ufeffa", " b ", "c\nd"], ["\0", '"', "é"]])
@given(rows=st.lists(st.lists(MISSING, min_size=3, max_size=3), max_size=6))
def test_what_is_read_is_what_was_written(tmp_path: Path, kind: str, rows: Rows) -> None:
    rows = [[row[0] or "t", row[1], row[2] and f"x{row[2]}"] for row in rows]
    source = written(tmp_path / f"in.{kind}", [row[:2] for row in rows])
    out = copied(source, tmp_path / f"out.{kind}", {"new": [row[2] for row in rows]})
    assert cells(source) == as_kind([row[:2] for row in rows], kind)
    if rows or kind not in {"jsonl", "ndjson", "json", "json.gz"}:  # no object, no columns
        assert cells(out, (*NAMES, "new")) == as_kind(rows, kind)


@RELAXED
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_row_of_csv_keeps_its_bytes(tmp_path: Path, rows: list[tuple[str, str]], end: str) -> None:
    lines = []
    for row in (NAMES, *rows):
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="", quoting=csv.QUOTE_ALL).writerow(row)
        lines.append(text.getvalue())
    (tmp_path / "in.csv").write_bytes("".join(f"{line}{end}" for line in lines).encode())
    out = copied(tmp_path / "in.csv", tmp_path / "out.csv", {"z": ["z"] * len(rows)})
    assert out.read_bytes().decode() == "".join(f"{line},z{end}" for line in lines)


def test_other_rows_and_cells_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'\xef\xbb\xbf"text",other\r\n a , "b"x\r\n"c\rd","e""\r\n"\n\nf,g')
    out = copied(tmp_path / "in.csv", tmp_path / "out.csv", {"new": ["1", "2\r", None]})
    assert out.read_bytes() == (b'\xef\xbb\xbf"text",other,new\r\n a , "b"x,1\r\n"c\rd","e""\r\n","2\r"\nf,g,\r\n')
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "\\ud83d", "n": 1.10}\n\n {"text":null } \n{}')
    out = copied(tmp_path / "in.jsonl", tmp_path / "out.jsonl", {"new": ["1", "2", None]})
    assert out.read_bytes() == (
        b'\xef\xbb\xbf{"text": "\\ud83d", "n": 1.10, "new": "1"}\n{"text":null, "new": "2"}\n{"new": null}\n'
    )
    assert cells(tmp_path / "in.jsonl")[0][0] == "\ud83d"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "gb18030", "latin-1", "cp1252"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_encodings_are_read_and_written_again(tmp_path: Path, kind: str, encoding: str) -> None:
    rows: Rows = [["é", "ü\r\n"], ["ß", ""]]
    source = written(tmp_path / f"in.{kind}", rows, encoding)
    form = Format(None if encoding == "utf-16" else encoding)
    out = copied(source, tmp_path / f"out.{kind}", {"new": ["a", "b"]}, form)
    assert cells(source, form=form) == rows
    assert cells(out, (*NAMES, "new"), form) == [[*rows[0], "a"], [*rows[1], "b"]]
    start = 2 if encoding.startswith("utf-16") else 1
    assert out.read_bytes()[:start] == source.read_bytes()[:start]  # with its byte order mark


def test_a_word_that_the_encoding_does_not_have(tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "in.csv", [["é", ""]], "latin-1"), Format("latin-1"))
    with pytest.raises(DataError, match="hold '早', which iso8859-1 cannot write; convert the file to UTF-8"):
        table.require_writable(["note", "早"])
    source = written(tmp_path / "in.jsonl", [["é", ""]], "latin-1")
    out = copied(source, tmp_path / "out.jsonl", {"new": ["早"]}, Format("latin-1"))
    assert cells(out, ("new",), Format("latin-1")) == [["早"]]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    rows: Rows = [["a,b", f"c{delimiter}d"], ["e", '"']]
    form = Format(delimiter=delimiter)
    source = written(tmp_path / "in.csv", rows, delimiter=delimiter)
    assert cells(source, form=form) == rows
    out = copied(source, tmp_path / "out.csv", {"new": [f"x{delimiter}", "y"]}, form)
    assert cells(out, (*NAMES, "new"), form) == [[*rows[0], f"x{delimiter}"], [*rows[1], "y"]]
    name = "tab" if delimiter == "\t" else f"'{delimiter}'"
    with pytest.raises(DataError) as refusal:
        cells(source)
    assert f"the cells look divided by {name}: pass --delimiter {name}" in str(refusal.value)


LONG = "long " * 40_000


@pytest.mark.parametrize("kind", KINDS)
def test_long_cells_and_several_chunks(tmp_path: Path, kind: str) -> None:
    rows: Rows = [[LONG, "1"]]
    rows += [[str(number), "2"] for number in range(CHUNK_ROWS + 3)]
    source = written(tmp_path / f"in.{kind}", rows)
    assert cells(source) == rows
    numbers = [list(chunk.numbers) for chunk in open_table(source).chunks("text")]
    assert len(numbers) == 2
    if kind in {"csv", "jsonl", "parquet"}:
        first = {"csv": 2, "jsonl": 1, "parquet": 1}[kind]
        assert [number for some in numbers for number in some] == list(range(first, first + len(rows)))


@pytest.mark.parametrize(
    ("label", "cell"),
    [("=cmd()", "'=cmd()"), ("@x", "'@x"), ("+a", "'+a"), ("-a", "'-a"), ("\tx", "'\tx"), ("\rx", "'\rx"), ("-1", "-1"),
     ("+", "+"), ("-", "-"), ("a=b", "a=b"), ("'x", "'x")],
)  # fmt: skip
def test_a_new_cell_of_csv_is_no_formula_and_old_ones_stay(tmp_path: Path, label: str, cell: str) -> None:
    source = written(tmp_path / "in.csv", [["=1+1", "@SUM"]])
    out = copied(source, tmp_path / "out.csv", {"new": [label]})
    assert cells(out, (*NAMES, "new")) == [["=1+1", "@SUM", cell]]
    source = written(tmp_path / "in.jsonl", [["=1+1", "@SUM"]])
    assert cells(copied(source, tmp_path / "out.jsonl", {"new": [label]}), ("new",)) == [[label]]


CHINESE = "text,other\n很好的酒店，服务非常周到,好\n房间太小了，我不会再来,差\n".encode  # noqa: RUF001
BAD = {
    "stray.csv": (b'text,other\na,b\n"c" d,e\n', "line 3: the row that begins here is not csv: text after a closing"),
    "open.csv": (b'text,other\na,b\n"c\nd\ne,f\n', "line 3: the row that begins here is not csv: a quote is opened"),
    "short.csv": (b'text,other\n"a\nb",c\nd\n', "line 4: the row that begins here has 1 cells and the header has 2"),
    "long.csv": (b"text,other\na,b,c\n", "line 2: the row that begins here has 3 cells and the header has 2"),
    "twice.csv": (b"text,text\na,b\n", "has 2 columns called 'text'; rename or remove all but one"),
    "none.csv": (b"body,other\na,b\n", "no column 'text', only body, other; name it with --text-column"),
    "gbk.csv": (CHINESE("gbk"), "line 2: is not UTF-8; it looks like gbk: pass --encoding gbk"),
    "few.csv": ("text,other\n很好 Hilton,a\n".encode("gbk"), "gbk or euc_kr or big5: pass --encoding gbk or --"),
    "latin.csv": ("text,other\na,b\ncafé très serré,c\n".encode("latin-1"), "line 3: is not UTF-8; it looks like cp"),
    "wide.csv": ("text,other\na,b\n".encode("utf-16-le"), "byte order mark: pass --encoding utf-16-le"),
    "big.csv": ("text,other\na,b\n".encode("utf-16-be"), "pass --encoding utf-16-be"),
    "sheet.csv": (b"PK\x03\x04rest", "is no text but a zip file, as xlsx is; save it as csv"),
    "packed.csv": (gzip.compress(b"text\na\n"), "is no text but gzip; let its name end in .gz"),
    "cut.csv.gz": (gzip.compress(b"text\na\n")[:-9], "not a whole gzip file"),
    "plain.csv.gz": (b"text\na\n", "not a whole gzip file"),
    "a.jsonl": (b'{"text": "a"}\nno\n', "line 2: is not JSON"),
    "b.jsonl": (b'{"text": "a"}\n[1]\n', "line 2: is not a JSON object"),
    "twice.jsonl": (b'{"text": "a"}\n{"text": "a", "text": "b"}\n', "line 2: has 'text' twice; keep one"),
    "twice.json": (b'[{"text": "a", "x": {"y": 1, "y": 2}},\n{"text": "a", "x": 1, "x": 1}]', "line 2: has 'x' twice"),
    "c.jsonl": (b'{"text": "a"}\n{"text": ["a"]}\n', "line 2: has a list in 'text'; write it as a string"),
    "a.json": (b'[{"text": "a"},\n{"text": nope}]', "line 2: is not JSON: Expecting value"),
    "b.json": (b'[{"text": "a"},\n\n{"text": "b"}', "line 3: has neither a comma nor ] behind an object"),
    "c.json": (b'[{"text": "a"}]\n[]', "line 2: has something behind the closing ]"),
    "d.json": (b'"text"', "line 1: begins with something else than ["),
    "e.json": (b'[{"text": "a"},\n1]', "line 2: is not a JSON object"),
    "f.json": (b'[{"text": "a"},\n{"text": "b\n', "line 2: is not JSON: "),
    "g.json": (b'[{"text": "a"},\n]', "line 2: has a comma and nothing behind it"),
    "a.parquet": (b"no", "not a parquet file"),
    "a.parquet.gz": (b"no", "unknown kind of file '.parquet.gz'; use one of .csv, .tsv, .jsonl, .ndjson, .json"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_the_file_the_place_and_the_remedy(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refusal:
        cells(tmp_path / name)
    assert str(refusal.value).startswith(f"{tmp_path / name}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_quote_that_never_closes_does_not_take_all_memory(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\na\n"' + "line of text\n" * 2_000_000)
    with pytest.raises(
        DataError, match=r"line 3: .*a cell of more than 16,777,216 characters, or a quote that is never"
    ):
        cells(tmp_path / "a.csv", ("text",))
    (tmp_path / "b.jsonl").write_text('{"text": "' + "x" * 20_000_000)
    with pytest.raises(DataError, match="line 1: has more than 16,777,216 characters"):
        cells(tmp_path / "b.jsonl", ("text",))


def test_parquet_with_two_text_columns_and_with_class_labels(tmp_path: Path) -> None:
    strings = pyarrow.array(["a"])
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([strings, strings], ["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has 2 columns called 'text'"):
        cells(tmp_path / "a.parquet")
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    assert cells(tmp_path / "b.parquet", ("text", "label")) == [["a", "good"], ["b", "bad"], ["c", None]]


def test_json_may_have_one_object_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert cells(tmp_path / "a.json", ("text",)) == [["a"], ["b"]]


def test_parquet_without_pyarrow_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="parquet files need pyarrow: pip install pyarrow, or use csv or jsonl"):
        cells(tmp_path / "a.parquet")


def test_formats_that_do_not_fit(tmp_path: Path) -> None:
    source, lines = written(tmp_path / "a.csv", [["a", "b"]]), written(tmp_path / "a.jsonl", [["a", "b"]])
    for path, form, message in (
        (source, Format("klingon"), "--encoding klingon: no such encoding"),
        (source, Format("base64"), "--encoding base64: no such encoding"),
        (source, Format(delimiter="ab"), "--delimiter 'ab': is not one character"),
        (lines, Format(delimiter=";"), "--delimiter is for csv; a .jsonl file has none"),
    ):
        with pytest.raises(DataError) as refusal:
            cells(path, form=form)
        assert message in str(refusal.value)
    require_same_kind(tmp_path / "out.csv.gz", source)
    with pytest.raises(DataError, match=r"so the output is a \.csv file"):
        require_same_kind(tmp_path / "out.tsv", source)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gbk", "客服态度很好，问题很快就解决了"),  # noqa: RUF001
        ("big5", "客服態度很好，問題很快就解決了"),  # noqa: RUF001
        ("shift_jis", "とても良いサービスでした。ありがとうございます"),
        ("euc_kr", "서비스가 아주 좋았습니다"),
        ("cp1252", "Der Käse schmeckt süß – größer geht’s nicht"),  # noqa: RUF001
    ],
)
def test_the_likely_encoding(encoding: str, text: str) -> None:
    assert likely_encodings(text.encode(encoding)) == [encoding]
    assert likely_encodings(text.encode(encoding)[:-1]) == [encoding]


def test_what_few_characters_leave_open_is_named() -> None:
    assert likely_encodings("text,label\n很好 service, very fast,a\n".encode("gbk")) == ["gbk", "euc_kr", "big5"]
    assert likely_encodings("text,label\n봤다 service, very fast,a\n".encode("euc_kr")) == ["euc_kr", "gbk", "big5"]
    assert likely_encodings("text,label\n服务 very fast,a\n".encode("gbk")) == ["gbk", "big5"]
    assert likely_encodings(b"plain") == []
    assert likely_encodings("a très good day".encode("latin-1")) == ["cp1252"]
    assert likely_encodings("味道很好，菜品齁咸，送餐很快".encode("gbk")) == ["gbk"]  # noqa: RUF001


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.lists(st.tuples(MISSING, MISSING, MISSING), max_size=5))
@RELAXED
def test_replaced_cells_are_read_back_and_the_others_stay(
    kind: str, rows: list[tuple[Cell, Cell, Cell]], tmp_path: Path
) -> None:
    """The third of each row takes the place of the second; None leaves it."""
    if "json" not in kind and kind != "parquet":
        rows = [(one or "", two or "", new) for one, two, new in rows]
    source = written(tmp_path / f"rows.{kind}", [row[:2] for row in rows])
    out = tmp_path / f"out.{kind}"
    table = open_table(source)
    chunks = ((chunk, {"other": [row[2] for row in rows]}) for chunk in table.chunks("text"))
    table.write(out, chunks, Edit(replaced=["other"]))
    assert cells(out) == [[one, two if other is None else other] for one, two, other in rows]


def test_what_is_not_replaced_keeps_its_bytes(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_bytes(b'"id",text,more\r\n"1", a ,"x"\r\n2,"b",\n"3",c,1.10')
    table = open_table(source)
    table.write(
        tmp_path / "out.csv",
        ((chunk, {"text": [None, "B,B", None]}) for chunk in table.chunks("text")),
        Edit(replaced=["text"]),
    )
    assert (tmp_path / "out.csv").read_bytes() == b'"id",text,more\r\n"1", a ,"x"\r\n2,"B,B",\n"3",c,1.10'
    source = tmp_path / "rows.jsonl"
    source.write_text(
        '{"n": 1.10, "text" :"a", "m": {"text": "a"}, "l":[1, 2 ] }\n{"text":"\\u0061"}\n{"n": 1e400}\n', "utf-8"
    )
    table = open_table(source)
    chunks = ((chunk, {"text": ["b", None, None]}) for chunk in table.chunks("text"))
    table.write(tmp_path / "out.jsonl", chunks, Edit(replaced=["text"]))
    assert (tmp_path / "out.jsonl").read_text("utf-8") == (
        '{"n": 1.10, "text" :"b", "m": {"text": "a"}, "l":[1, 2 ] }\n{"text":"\\u0061"}\n{"n": 1e400}\n'
    )


def test_a_cell_of_a_file_with_one_column_can_become_empty(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text\na\nb\n", "utf-8")
    table = open_table(source)
    table.write(
        tmp_path / "out.csv", ((chunk, {"text": ["", None]}) for chunk in table.chunks("text")), Edit(replaced=["text"])
    )
    assert cells(tmp_path / "out.csv", ["text"]) == [[""], ["b"]]
    assert (tmp_path / "out.csv").read_text("utf-8") == 'text\n""\nb\n'


def test_the_kind_of_a_parquet_column_stays(tmp_path: Path) -> None:
    kinds = {
        "text": pyarrow.large_string(),
        "other": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "n": pyarrow.int64(),
    }
    arrays = [
        pyarrow.array(["a", None]).cast(kinds["text"]),
        pyarrow.array(["x", "y"]).cast(kinds["other"]),
        pyarrow.array([1, 2]),
    ]
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(kinds, arrays, strict=True))), tmp_path / "rows.parquet")
    table = open_table(tmp_path / "rows.parquet")
    new = {"text": ["b", None], "other": [None, "z"]}
    table.write(tmp_path / "out.parquet", ((chunk, new) for chunk in table.chunks("text")), Edit(replaced=list(new)))
    got = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert got.schema.types == list(kinds.values())
    assert got.to_pydict() == {"text": ["b", None], "other": ["x", "z"], "n": [1, 2]}
    numbers = ((chunk, {"n": ["b", None]}) for chunk in table.chunks("text"))
    with pytest.raises(DataError, match=r"the column 'n' holds int64, which is no string; convert it to strings"):
        table.write(tmp_path / "other.parquet", numbers, Edit(replaced=["n"]))
