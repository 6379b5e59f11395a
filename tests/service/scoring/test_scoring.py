"""`lathe score`: every kind of file, whatever happens on the way."""

import csv
import json
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from compression.bundle import Bundle, Encoded, Runtime, softmax
from lathe import main
from service.engine.engine import Engine
from tests.conftest import FILLER, SENTIMENT
from tests.test_stopped import KILLED_AT

WORDS = [*FILLER, *SENTIMENT["negative"], *SENTIMENT["positive"]]
KINDS = ("csv", "jsonl", "parquet")
ROWS = 4500  # more than a chunk


def texts(count: int, seed: int = 0) -> list[str]:
    choose = random.Random(seed)
    return [" ".join(choose.choices(WORDS, k=choose.randint(1, 9))) for _ in range(count)]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def score(bundle: Bundle, source: Path, out: Path, *options: str) -> tuple[int, str]:
    """Exit code, and what was printed."""
    arguments = ["score", str(bundle.path), "--in", str(source), "--out", str(out), *options]
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def expected(bundle: Bundle, rows: Sequence[str]) -> list[tuple[str, float]]:
    """Label and score of each text, computed alone."""
    runtime = Runtime.of(bundle)
    probabilities = softmax(np.concatenate([runtime.logits([runtime.encode(text)]) for text in rows]))
    return [(bundle.manifest.labels[row.argmax()], row.max()) for row in probabilities]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_keep_their_order_and_columns_and_get_what_their_text_alone_would(
    sentiment_bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    rows = [{"id": str(number), "text": text, "other": 'a "b",\n\r早'} for number, text in enumerate(texts(ROWS))]
    source, out = write(tmp_path / f"in.{kind}", rows), tmp_path / f"out.{kind}"
    code, printed = score(sentiment_bundle, source, out)
    assert (code, printed.splitlines()[-1]) == (0, f"{out}: {ROWS} rows")
    scored = read(out)
    assert [{key: row[key] for key in ("id", "text", "other")} for row in scored] == rows
    some = [*range(40), *range(4090, 4100), ROWS - 1]
    for row, (label, probability) in zip(
        some, expected(sentiment_bundle, [rows[row]["text"] for row in some]), strict=True
    ):
        assert scored[row]["label"] == label
        assert float(scored[row]["score"]) == pytest.approx(probability, abs=1e-5)
        assert scored[row]["note"] is None
    assert not list(tmp_path.glob("*.progress"))


def test_parquet_keeps_its_types_and_jsonl_its_bytes(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "text": pyarrow.array(["good", None]).dictionary_encode(),
            "when": pyarrow.array([1, None], pyarrow.timestamp("us")),
            "list": [[1], []],
        }
    ).replace_schema_metadata({"made": "here"})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    assert score(sentiment_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet")[0] == 0
    scored = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    before = pyarrow.parquet.read_table(tmp_path / "in.parquet")
    assert scored.select(before.column_names).equals(before, check_metadata=True)
    assert scored.column("label").to_pylist() == ["positive", None]

    (tmp_path / "in.jsonl").write_bytes(b'{"x": 1.10, "text": "good", "n": {"a": 1e400}}\n\n{}\n{ "text" : 5 } \n')
    assert score(sentiment_bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl")[0] == 0
    first, second, third = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert first.startswith(b'{"x": 1.10, "text": "good", "n": {"a": 1e400}, "label": "positive", "score": 0.')
    assert second == b'{"label": null, "score": null, "note": "no_text"}'
    assert third.startswith(b'{ "text" : 5, "label": "')


def test_all_probabilities_and_a_prefix(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "good", "label": "positive"}])
    code, printed = score(sentiment_bundle, source, tmp_path / "out.csv")
    assert code == 1
    assert "has a column 'label' already" in printed
    assert "--prefix predicted_" in printed
    code, printed = score(sentiment_bundle, source, tmp_path / "out.csv", "--prefix", "predicted_", "--probabilities")
    assert code == 0, printed
    (row,) = read(tmp_path / "out.csv")
    assert row["label"] == row["predicted_label"] == "positive"
    probabilities = [float(row[f"predicted_probability_{label}"]) for label in ("negative", "positive")]
    assert sum(probabilities) == pytest.approx(1)
    assert max(probabilities) == float(row["predicted_score"])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_are_missing_or_too_long(sentiment_bundle: Bundle, tmp_path: Path, kind: str) -> None:
    rows = [{"text": text} for text in ("good", "", "good " * 70, " \t", "😀" * 1000, "بد \u0000 awful")]
    if kind == "jsonl":
        rows[3] = {"text": "\ud83d"}  # half an emoji
    source = tmp_path / f"in.{kind}"
    if kind == "jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write(source, rows)
    code, printed = score(sentiment_bundle, source, tmp_path / f"out.{kind}")
    assert code == 0
    assert printed.endswith("6 rows, 2 no_text, 1 truncated\n")
    scored = read(tmp_path / f"out.{kind}")
    assert [row["note"] for row in scored] == [None, "no_text", "truncated", "no_text", None, None]
    assert [row["label"] is None for row in scored] == [False, True, False, True, False, False]
    assert [row["score"] is None for row in scored] == [False, True, False, True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_are_an_output_without_rows(sentiment_bundle: Bundle, tmp_path: Path, kind: str) -> None:
    source, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), source)
    else:
        source.write_text("text\n" if kind == "csv" else "")
    assert score(sentiment_bundle, source, out)[0] == 0
    assert read(out) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_and_writes_the_same_file(sentiment_bundle: Bundle, tmp_path: Path, kind: str) -> None:
    source = write(tmp_path / f"in.{kind}", [{"text": text} for text in texts(3 * 4096 + 7)])
    whole, out = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    assert score(sentiment_bundle, source, whole, "--streams", "1")[0] == 0
    for event, pattern, count in (
        ("open", "unfinished", random.randint(1, 3)),  # the plan is the first that is written
        ("os.rename", r"\.npz", random.randint(1, 2)),
        ("open", "output", 1),
    ):
        run = subprocess.run(
            [sys.executable, "-c", KILLED_AT, event, pattern, str(count), "score", str(sentiment_bundle.path), "--in",
             str(source), "--out", str(out), "--streams", "3"],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        if kind == "parquet" and event == "open" and pattern == "output":
            continue  # pyarrow opens its files without Python's knowledge
        assert run.returncode == -signal.SIGKILL, run.stderr
        assert not out.exists()
    if not out.exists():
        assert len(list((tmp_path / f"out.{kind}.progress").glob("*.npz"))) == 4
        assert score(sentiment_bundle, source, out)[0] == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.progress"))


def test_what_is_scored_is_not_scored_again_nor_mixed_with_another_plan(
    sentiment_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.csv", [{"text": text, "more": text} for text in texts(ROWS)])
    out = tmp_path / "out.csv"
    computed = []
    infer = Engine.infer

    def counting(engine: Engine, batch: Sequence[Encoded]) -> Any:
        computed.append(len(batch))
        if sum(computed) > 4200:
            raise KeyboardInterrupt
        return infer(engine, batch)

    monkeypatch.setattr(Engine, "infer", counting)
    code, printed = score(sentiment_bundle, source, out, "--streams", "1")
    assert code == 1
    assert "run the same command again to go on" in printed
    assert not out.exists()

    code, printed = score(sentiment_bundle, source, out, "--text-column", "more")
    assert code == 1
    assert "text_column 'text', and now it is 'more'; run it as before to go on, or remove" in printed

    computed.clear()
    assert score(sentiment_bundle, source, out)[0] == 0
    assert ROWS - 4096 <= sum(computed) <= ROWS - 4096 + 9  # with the engine's warm-up, if any


def test_an_output_that_is_there_is_never_overwritten(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "good"}])
    (tmp_path / "out.csv").write_text("mine")
    code, printed = score(sentiment_bundle, source, tmp_path / "out.csv")
    assert code == 1
    assert "out.csv: is there already and is never overwritten; remove it or name another file" in printed
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_a_text_that_the_model_cannot_compute_costs_no_other_its_answer(
    sentiment_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = texts(30)
    runtime = Runtime.of(sentiment_bundle)
    failing, infinite = (runtime.encode(rows[row]).ids for row in (7, 9))
    infer = Engine.infer

    def faulty(engine: Engine, batch: Sequence[Encoded]) -> Any:
        if any(encoded.ids == failing for encoded in batch):
            raise RuntimeError("poisoned")
        logits = infer(engine, batch)
        logits[[encoded.ids == infinite for encoded in batch]] = np.inf
        return logits

    monkeypatch.setattr(Engine, "infer", faulty)
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in rows])
    code, printed = score(sentiment_bundle, source, tmp_path / "out.jsonl")
    assert code == 3
    assert printed.endswith("30 rows, 1 inference_failed, 1 not_a_number\n")
    scored = read(tmp_path / "out.jsonl")
    assert [row for row in range(30) if scored[row]["label"] is None] == [7, 9]
    assert (scored[7]["note"], scored[9]["note"]) == ("inference_failed", "not_a_number")


BAD = {
    "in.txt": (b"text\ngood\n", "unknown kind of file '.txt'; use one of .csv, .tsv, .jsonl, .ndjson, .json, .parquet"),
    "a.csv": (b"", "is empty; its first line must name the columns"),
    "b.csv": (b"body,id\ngood,1\n", "no column 'text', only body, id; name it with --text-column"),
    "c.csv": (b"text,id\ngood,1\nbad\n", "line 3: the row that begins here has 1 cells and the header has 2"),
    "d.csv": (b'text\n"good\n', "unexpected end of data"),
    "e.csv": (b"text\n\xff\xfe\n", "line 2: is not UTF-8"),
    "f.csv": (b"text,score\ngood,1\n", "has a column 'score' already"),
    "a.jsonl": (b'{"body": 1}\n', "no column 'text', only body"),
    "b.jsonl": (b'{"text": "a"}\nno\n', "line 2"),
    "c.jsonl": (b"[1]\n", "line 1: is not a JSON object"),
    "d.jsonl": (b'{"text": ["a"]}\n', "line 1: has a list in 'text'; write it as a string"),
    "e.jsonl": (b'{"text": "a"}\n{"text": "b", "note": 1}\n', "has a column 'note' already"),
    "f.jsonl": (b'{"text": "\xff"}\n', "line 1: is not UTF-8"),
    "a.parquet": (b"no", "not a parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_one_line_that_names_it_and_the_remedy(
    sentiment_bundle: Bundle, tmp_path: Path, name: str
) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    out = (tmp_path / "out").with_suffix((tmp_path / name).suffix)
    code, printed = score(sentiment_bundle, tmp_path / name, out)
    assert code == 1
    assert str(tmp_path / name) in printed
    assert message in printed
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_mistakes_are_one_line_too(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "good"}])
    for options, message in (
        ((tmp_path / "none.csv", tmp_path / "out.csv"), "none.csv: no such file"),
        ((source, tmp_path / "out.jsonl"), "so the output is a .csv file"),
        ((source, tmp_path / "out.csv", "--device", "cuda"), "CUDAExecutionProvider"),
        ((source, source), "is there already"),
        ((source, source / "out.csv"), "Not a directory"),
    ):
        given, out, *more = options
        code, printed = score(sentiment_bundle, Path(given), Path(out), *map(str, more))
        assert code == 1
        assert message in printed
    numbers = tmp_path / "numbers.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [1.5]}), numbers)
    code, printed = score(sentiment_bundle, numbers, tmp_path / "out.parquet")
    assert (code, "holds double; name one of strings with --text-column" in printed) == (1, True)


def test_two_runs_do_not_write_one_output(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    import fcntl

    source = write(tmp_path / "in.csv", [{"text": "good"}])
    progress = tmp_path / "out.csv.progress"
    progress.mkdir()
    with (progress / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, printed = score(sentiment_bundle, source, tmp_path / "out.csv")
    assert (code, "another run is writing it" in printed) == (1, True)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": text} for text in texts(ROWS)])
    command = [sys.executable, "-m", "lathe", "score", str(sentiment_bundle.path), "--in", str(source), "--out",
               str(tmp_path / "out.csv")]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (60_000, 60_000))
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "File too large; when that is mended, run the same command to go on" in errors
    assert score(sentiment_bundle, source, tmp_path / "out.csv")[0] == 0


PEAK = """
import resource, sys
from lathe import main
main(standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    peaks = []
    for rows in (20_000, 100_000):
        source = write(tmp_path / f"{rows}.csv", [{"text": text} for text in texts(rows)])
        run = subprocess.run(
            [sys.executable, "-c", PEAK, "score", str(sentiment_bundle.path), "--in", str(source), "--out",
             str(tmp_path / f"{rows}.out.csv")],
            capture_output=True, text=True, check=True, timeout=500,
        )  # fmt: skip
        peaks.append(int(run.stdout.splitlines()[-1]))
    assert peaks[1] < 1.05 * peaks[0]
