from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from compression.bundle import SingleLabel
from compression.data import Columns, read_examples, split_examples
from compression.errors import DataError
from compression.labels import require_known_labels


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


def test_rows_outside_have_no_label_and_are_known_to_be_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,split\na,good,test\nb,oos,test\nc,,selection\nd,oos,calibration\n")
    examples = read_examples(path, Columns(outside_labels=("oos",)))
    assert examples.labels == ("good", None, None, None)
    assert examples.outside == (False, True, False, True)
    assert examples.known == [True, True, False, True]
    splits = split_examples(examples, path)
    assert (splits.test.outside, splits.selection.outside) == ((False, True), (False,))
    assert splits.test.labelled.texts == ("a",)
    assert read_examples(path).outside == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "use one of .csv, .tsv, .jsonl, .ndjson, .json, .parquet"),
        ("a.csv", "body\nx\n", "no column 'text', only body"),
        ("a.csv", "text\nx\n  \n", "line 3: has an empty 'text'"),
        ("a.csv", "text\n", "no rows"),
        ("a.csv", 'text\n"open', "line 2: the row that begins here is not csv"),
        ("a.jsonl", '{"text": "x"}\n{"text"', "line 2: is not JSON"),
        ("a.jsonl", "[1]\n", "line 1: is not a JSON object"),
        ("a.parquet", "x", "not a parquet file"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_row(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError) as refusal:
        read_examples(write(tmp_path / name, content))
    assert message in str(refusal.value)
    assert name in str(refusal.value)


@pytest.mark.parametrize("column", ["Split", " split", "splits"])
def test_splits_under_almost_the_usual_name_are_not_made_anew_silently(tmp_path: Path, column: str) -> None:
    (tmp_path / "rows.csv").write_text(f"text,{column}\na good day,test\n")
    with pytest.raises(DataError, match=r"has a column .* and none called 'split', so the file would be divided by a"):
        read_examples(tmp_path / "rows.csv")


@pytest.mark.parametrize("column", ["Label", " label", "LABEL ", "labels"])
def test_labels_under_almost_the_usual_name_are_not_left_out_silently(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "a.csv", f"text,{column}\nx,good\n")
    with pytest.raises(DataError, match=r"has a column .* and none called 'label', so no label would count"):
        read_examples(path)
    assert read_examples(path, Columns(label=column)).labels == ("good",)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_examples(tmp_path / "none.csv")


def test_a_split_column_decides_which_texts_do_what(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,split\na,test\nb,calibration\nc,test\nd,selection\n")
    splits = split_examples(read_examples(path), path)
    assert (splits.calibration.texts, splits.selection.texts, splits.test.texts) == (("b",), ("d",), ("a", "c"))


def test_of_many_texts_enough_select_and_judge_and_all_whose_split_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\n" + "".join(f"text number {n}\n" for n in range(1000)))
    whole, few = (split_examples(read_examples(path), path, enough) for enough in (1000, 50))
    assert whole.spared == 0
    assert few.calibration == whole.calibration
    assert (len(few.selection), len(few.test)) == (50, 50)
    assert set(few.test.texts) < set(whole.test.texts)
    assert few.spared == len(whole.selection) + len(whole.test) - 100
    numbers = [int(text.split()[-1]) for text in few.test.single_texts]
    assert numbers == sorted(numbers)  # as in the file
    assert numbers[0] < 100  # and from all of it
    assert numbers[-1] > 900
    path = write(tmp_path / "b.csv", "text,split\na,calibration\nb,selection\nc,test\nd,test\n")
    said = split_examples(read_examples(path), path, 1)
    assert (len(said.test), said.spared) == (2, 0)


def test_without_selection_a_sixth_of_the_calibration_texts_selects(tmp_path: Path) -> None:
    rows = "".join(f"text number {n},{'calibration' if n % 2 else 'test'}\n" for n in range(240))
    path = write(tmp_path / "a.csv", f"text,split\n{rows}")
    splits = split_examples(read_examples(path), path)
    assert (len(splits.calibration), len(splits.selection), len(splits.test)) == (100, 20, 120)


def test_without_a_split_column_copies_of_a_text_stay_together(tmp_path: Path) -> None:
    texts = [f"text number {n}" for n in range(200)] + [f"Text, Number {n}!" for n in range(200)]
    path = write(tmp_path / "a.csv", "text\n" + "\n".join(f'"{text}"' for text in texts))
    splits = split_examples(read_examples(path), path)
    parts = (splits.calibration, splits.selection, splits.test)
    letters = [{"".join(filter(str.isalnum, text.lower())) for text in part.single_texts} for part in parts]
    assert not letters[0] & letters[1]
    assert not letters[1] & letters[2]
    assert not letters[0] & letters[2]
    assert sum(map(len, parts)) == 400
    assert 150 < len(splits.calibration) < 250
    assert 10 < len(splits.selection) < 80


def test_the_first_texts_of_a_sorted_file_are_of_every_label(tmp_path: Path) -> None:
    rows = "".join(f"text number {n},{'yes' if n < 150 else 'no'},calibration\n" for n in range(300))
    path = write(tmp_path / "a.csv", f"text,label,split\n{rows}a,no,test\n")
    splits = split_examples(read_examples(path), path)
    for part in (splits.calibration, splits.selection):
        assert {"yes", "no"} == set(part.head(16).labels)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,test\n", "0 texts to calibrate"),
        ("a,test\nb,calibration\n", "0 texts to calibrate with, 1 to select with"),
        ("a,train\nb,test\n", "column split holds 'train'; use calibration, selection and test"),
    ],
)
def test_splits_that_cannot_be_used_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    path = write(tmp_path / "a.csv", f"text,split\n{rows}")
    with pytest.raises(DataError) as refusal:
        split_examples(read_examples(path), path)
    assert message in str(refusal.value)


def test_unknown_labels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,good\n")
    require_known_labels(read_examples(path), SingleLabel(("good", "bad")), path)
    with pytest.raises(DataError, match=r"line 2: labels .* 'good'; it has bad"):
        require_known_labels(read_examples(path), SingleLabel(("bad",)), path)
