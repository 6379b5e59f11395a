"""Where pairs of texts are read from, and written to."""

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lathe
from compression.bundle import Bundle
from compression.data import Columns, Examples, read_examples
from compression.errors import DataError
from compression.train.lessons import vary
from tests.commands import done, run, said
from tests.pairs.rows import COLUMNS, PAIRED, PAIRS, write_rows


def write_kind(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_second_text_is_read_from_its_column(tmp_path: Path, suffix: str) -> None:
    rows = [{"q": "one", "p": "two", "label": "a"}, {"q": "three", "p": "four", "label": "b"}]
    columns = Columns(text="q", text_pair="p")
    examples = read_examples(write_kind(tmp_path / f"a{suffix}", rows), columns)
    assert examples.texts == (("one", "two"), ("three", "four"))
    assert examples.labels == ("a", "b")
    assert examples.inputs == "pairs"
    path = write_kind(tmp_path / f"b{suffix}", [*rows, {"q": "five", "p": None, "label": "a"}])
    with pytest.raises(DataError, match=rf"b{suffix}: (line 4|line 3|row 3): has an empty 'p'"):
        read_examples(path, columns)
    with pytest.raises(DataError, match="no column 'passage', only q, p, label; name it with --text-pair-column"):
        read_examples(write_kind(tmp_path / f"c{suffix}", rows), replace(columns, text_pair="passage"))
    with pytest.raises(DataError, match="'q' cannot be both texts of a pair"):
        read_examples(path, replace(columns, text_pair="q"))


def test_columns_that_look_like_a_pair_are_said_to_be_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bert: Path
) -> None:
    path = write_rows(tmp_path / "a.csv", 10, seed=1)
    assert read_examples(path).inputs == "texts"
    assert "'text_pair' is ignored. If the model reads pairs: --text-pair-column text_pair" in capsys.readouterr().err
    read_examples(path, COLUMNS)
    assert "ignored" not in capsys.readouterr().err
    result = run("compress", bert, "--data", path, "--out", tmp_path / "out", "--cache", tmp_path / "cache")
    assert result.stderr.count("is ignored") == 1


def test_copies_of_a_pair_stay_together_and_pairs_of_one_first_text_need_not(data: Path) -> None:
    from compression.data import split_examples

    texts = [("the same", f"number {n}") for n in range(200)] + [("The same!", f"Number {n}") for n in range(200)]
    splits = split_examples(Examples(tuple(texts), (None,) * 400, (None,) * 400), data)
    parts = [{one[1].lower() for one in part.texts} for part in (splits.calibration, splits.selection, splits.test)]
    assert all(
        len(part.texts) == 2 * len(seconds)
        for part, seconds in zip((splits.calibration, splits.selection, splits.test), parts, strict=True)
    )
    assert not parts[0] & parts[1] | parts[1] & parts[2] | parts[0] & parts[2]


def test_a_pair_is_varied_in_each_of_its_texts() -> None:
    pair, other = (
        ("one two three four five", "six seven eight nine ten"),
        ("ant bee cat dog elk", "fly gnu hen ibis jay"),
    )
    choose = random.Random(0)
    varied = [vary(pair, [pair, other], choose) for _ in range(300)]
    assert pair in varied
    assert all(isinstance(one, tuple) for one in varied)
    firsts, seconds = ({word for one in varied for word in one[side].split()} for side in (0, 1))
    assert firsts == set(f"{pair[0]} {other[0]}".split())
    assert seconds == set(f"{pair[1]} {other[1]}".split())


# Pairs where texts belong, and the other way round


def test_a_bundle_is_given_what_it_reads(float_bundle: Bundle, sentiment_bundle: Bundle, data: Path) -> None:
    pairs, texts = lathe.load(float_bundle.path), lathe.load(sentiment_bundle.path)
    for wrong, message in (
        (["one"], "text 1 is a single text, and .* reads pairs of texts; pass a list of"),
        ([("one", "two"), ("one",)], "text 2 is no pair"),
        (("one", "two"), "text 1 is a single text"),
        ([("one", " ")], "text 1 is empty"),
        ([("one", 2)], "text 1 is no text but int"),
    ):
        with pytest.raises(DataError, match=message):
            pairs(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"text 2 is a pair, and .* reads single texts"):
        texts(["one", ("one", "two")])
    assert pairs([["one", "two"]]) == pairs([("one", "two")])  # type: ignore[list-item]
    for command in (("evaluate", float_bundle.path), ("compare", float_bundle.path)):
        assert "reads pairs of texts; name the column of the second with --text-pair-column" in said(
            run(*command, "--data", data)
        )
    for command in (("evaluate", sentiment_bundle.path), ("compare", sentiment_bundle.path)):
        assert "reads single texts, and the data are pairs" in said(run(*command, "--data", data, *PAIRED))


def test_a_bundle_of_texts_is_written_as_before_there_were_pairs(sentiment_bundle: Bundle) -> None:
    """So that its digests, and those of older bundles, stay what they are."""
    assert "inputs" not in json.loads((sentiment_bundle.path / "bundle.json").read_text("utf-8"))
    assert sentiment_bundle.manifest.inputs == "texts"


def test_evaluate_and_compare_measure_pairs(float_bundle: Bundle, bert: Path, data: Path) -> None:
    figures = json.loads(
        done("evaluate", float_bundle.path, "--data", data, *PAIRED, "--against", bert, "--json").stdout
    )
    assert figures["agreement"] == 1
    assert figures["accuracy"] > 0.95
    (entry,) = json.loads(done("compare", float_bundle.path, "--data", data, *PAIRED, "--json").stdout)["entries"]
    assert entry["accuracy"] == figures["accuracy"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_lathe_score_scores_pairs(float_bundle: Bundle, tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [{"text": one, "text_pair": two} for one, two in PAIRS]
    source = write_kind(tmp_path / f"in{suffix}", [*rows, {"text": "one", "text_pair": None}])
    out = tmp_path / f"out{suffix}"
    done("score", float_bundle.path, "--in", source, "--out", out, *PAIRED)
    from compression.tables import open_table

    (chunk,) = open_table(out).chunks("text", ("label", "score", "note"))
    answers = lathe.load(float_bundle.path)(PAIRS)
    assert list(chunk.cells["label"])[: len(PAIRS)] == [answer.label for answer in answers]
    assert [float(str(one)) for one in chunk.cells["score"][: len(PAIRS)]] == pytest.approx(
        [answer.score for answer in answers], abs=1e-5
    )
    assert chunk.cells["note"][-1] == "no_text"
    assert not chunk.cells["label"][-1]
    assert "reads pairs of texts; name the column" in said(
        run("score", float_bundle.path, "--in", source, "--out", tmp_path / f"b{suffix}")
    )


def test_lathe_score_says_what_it_ignores_and_refuses_pairs_for_texts(
    sentiment_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    result = done("score", sentiment_bundle.path, "--in", data, "--out", tmp_path / "a.csv", "--prefix", "p_")
    assert "'text_pair' is ignored" in result.stderr
    assert "reads single texts; leave out" in said(
        run("score", sentiment_bundle.path, "--in", data, "--out", tmp_path / "b.csv", *PAIRED)
    )
