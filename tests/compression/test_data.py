from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from compression.data import Columns, read_examples, require_known_labels, split_examples
from compression.errors import DataError


def write(path: Path, content: str) -> Path:
    path.write_text(content, "utf-8")
    return path


def test_three_formats_say_the_same(tmp_path: Path) -> None:
    csv = write(tmp_path / "a.csv", 'text,label\n"one, two",1\nNA,0\nnull,\n')
    rows = '{"text": "one, two", "label": 1}\n\n{"text": "NA", "label": "0"}\n{"text": "null", "label": null}\n'
    jsonl = write(tmp_path / "a.jsonl", rows)
    table = pyarrow.table({"text": ["one, two", "NA", "null"], "label": ["1", "0", None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for path in (csv, jsonl, tmp_path / "a.parquet"):
        examples = read_examples(path)
        assert examples.texts == ("one, two", "NA", "null")
        assert examples.labels == ("1", "0", None)


def test_columns_and_labels_to_ignore_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "message,mood\nx,good\ny,meh\n")
    assert read_examples(path, Columns("message", "mood", ignored_labels=("meh",))).labels == ("good", None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "use one of .csv, .jsonl, .parquet"),
        ("a.csv", "body\nx\n", "no column 'text', only body"),
        ("a.csv", "text\nx\n  \n", "row 2 has an empty 'text'"),
        ("a.csv", "text\n", "no rows"),
        ("a.csv", 'text\n"open', "not a UTF-8 csv file"),
        ("a.jsonl", '{"text": "x"}\n{"text"', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.parquet", "x", "not a parquet file"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_row(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError) as refusal:
        read_examples(write(tmp_path / name, content))
    assert message in str(refusal.value)
    assert name in str(refusal.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_examples(tmp_path / "none.csv")


def test_a_split_column_decides_which_texts_calibrate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,split\na,test\nb,calibration\nc,test\n")
    calibration, test = split_examples(read_examples(path), path)
    assert (calibration.texts, test.texts) == (("b",), ("a", "c"))


def test_without_one_copies_of_a_text_stay_on_one_side(tmp_path: Path) -> None:
    texts = [f"text number {n}" for n in range(100)] + [f"Text, Number {n}!" for n in range(100)]
    path = write(tmp_path / "a.csv", "text\n" + "\n".join(f'"{text}"' for text in texts))
    calibration, test = split_examples(read_examples(path), path)
    letters = [{"".join(filter(str.isalnum, text.lower())) for text in side.texts} for side in (calibration, test)]
    assert not letters[0] & letters[1]
    assert len(calibration) + len(test) == 200
    assert 60 < len(test) < 140


def test_a_side_without_texts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,split\na,test\n")
    with pytest.raises(DataError, match="0 texts to calibrate"):
        split_examples(read_examples(path), path)


def test_unknown_labels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,good\n")
    require_known_labels(read_examples(path), ["good", "bad"], path)
    with pytest.raises(DataError, match=r"'good'; it has bad"):
        require_known_labels(read_examples(path), ["bad"], path)
