"""Texts longer than the window from end to end: made, judged, evaluated, loaded, scored and served alike."""

import asyncio
import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compression.bundle import (
    Bundle,
    HeadTail,
    Logits,
    LongTexts,
    Manifest,
    Runtime,
    TextClassifier,
    Windows,
    open_bundle,
)
from compression.bundle.golden import read_golden
from compression.data import read_examples
from compression.parent.checkpoint import Parent
from compression.parent.classifier import ParentClassifier, predict
from compression.pipeline import compress
from compression.recipe import load_recipe
from lathe import load
from service.errors import PayloadTooLarge
from service.models.loading import Loader
from service.models.model import Model
from service.models.options import CallOptions
from service.settings import Settings
from service.telemetry import Telemetry
from tests.commands import run
from tests.conftest import FILLER, SENTIMENT, made_once
from tests.handmade import make_bundle

WINDOW = 64  # of the parent
ROOM = WINDOW - 2
READ: dict[str, LongTexts] = {"mean": Windows(stride=20), "max": Windows(join="max"), "head-tail": HeadTail()}


def long_text(seed: int, words: int) -> str:
    """What it says changes on the way."""
    choose = random.Random(seed)
    parts = [[*FILLER, *SENTIMENT[label] * 3] for label in choose.sample(sorted(SENTIMENT), 2)]
    return " ".join(word for part in parts for word in choose.choices(part, k=words // 2))


TEXTS = ["a good day", *(long_text(seed, 30 + 40 * seed) for seed in range(8)), "great " * 500, "awful"]


@pytest.fixture(scope="session")
def data(workspace: Path) -> Path:
    """400 labelled texts, a fifth of them longer than the window."""

    def write(path: Path) -> None:
        choose = random.Random(5)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for index in range(400):
                label = sorted(SENTIMENT)[index % 2]
                words = choose.randint(80, 300) if index % 5 == 0 else choose.randint(4, 40)
                text = [*choose.choices(FILLER, k=words), *choose.choices(SENTIMENT[label], k=1 + words // 10)]
                choose.shuffle(text)
                writer.writerow([" ".join(text), label])

    return made_once(workspace / "long-texts.csv", write)


@pytest.fixture(params=READ)
def made(request: pytest.FixtureRequest, workspace: Path, sentiment_parent: Path, data: Path) -> Bundle:
    """A float bundle that reads long texts in that way."""

    def make(out: Path) -> None:
        compress(str(sentiment_parent), data, load_recipe("float"), out, long_texts=READ[request.param])

    return open_bundle(made_once(workspace / "bundles" / f"long-{request.param}", make))


def by_hand(parent: Parent, text: str, long_texts: LongTexts | None) -> Logits:
    """What the parent says of a text, its tokens put together here: (labels,)."""
    assert long_texts is not None
    tokenizer = parent.tokenizer
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) <= ROOM:
        rows = [ids]
    elif isinstance(long_texts, HeadTail):
        rows = [ids[: ROOM // 4] + ids[ROOM // 4 - ROOM :]]
    else:
        stride = long_texts.stride or ROOM
        ids = ids[: ROOM + 15 * stride]
        rows = [ids[start : start + ROOM] for start in (*range(0, len(ids) - ROOM, stride), len(ids) - ROOM)]
    framed = [torch.tensor([[tokenizer.cls_token_id, *row, tokenizer.sep_token_id]]) for row in rows]
    with torch.inference_mode():
        logits: Logits = np.concatenate([parent.model(input_ids=row).logits.numpy() for row in framed])
    if isinstance(long_texts, Windows) and long_texts.join == "max":
        return np.asarray(logits.max(axis=0))
    return np.asarray(logits.mean(axis=0))


def test_answers_are_those_of_windows_computed_by_hand_with_the_parent(made: Bundle, parent: Parent) -> None:
    long_texts = made.manifest.runtime.long_texts
    expected = np.stack([by_hand(parent, text, long_texts) for text in TEXTS])
    runtime = Runtime.of(made)
    np.testing.assert_allclose(runtime.logits([runtime.encode(text) for text in TEXTS]), expected, atol=1e-4)
    reading = ParentClassifier(replace(parent, long_texts=long_texts))
    np.testing.assert_allclose(predict(reading, TEXTS, ""), expected, atol=1e-4)
    classifier = TextClassifier(made, batch_tokens=100)
    scores = made.task.scores(expected)
    for answer, row in zip(classifier(TEXTS), scores, strict=True):
        assert answer.score == pytest.approx(row.max(), abs=1e-4)


@pytest.mark.parametrize("recipe", ["safe", "float"])
def test_a_text_has_the_same_answer_in_any_batch(
    recipe: str, sentiment_parent: Path, data: Path, tmp_path: Path
) -> None:
    bundle = compress(
        str(sentiment_parent), data, load_recipe(recipe), tmp_path / "bundle", long_texts=Windows(stride=31)
    )
    assert bundle.manifest.runtime.batch_exact
    alone = load(bundle.path, batch_tokens=1)
    expected = [alone(text, top_k=None)[0].scores for text in TEXTS]
    for batch_tokens in (200, 2048):
        together = load(bundle.path, batch_tokens=batch_tokens)(TEXTS, top_k=None)
        for answer, scores in zip(together, expected, strict=True):
            assert answer.scores == pytest.approx(scores, abs=1e-5)


def test_the_proof_is_of_what_is_read(made: Bundle, sentiment_parent: Path, tmp_path: Path) -> None:
    manifest = made.manifest
    found = manifest.figures.long_texts
    assert found is not None
    assert 0 < found.longer < manifest.data.test_texts
    assert found.longest > 200
    assert (found.windows > 1.2) == isinstance(manifest.runtime.long_texts, Windows)
    assert manifest.figures.agreement == 1
    assert manifest.figures.batch_deviation < 1e-5
    golden = read_golden(made)
    assert golden is not None
    runtime = Runtime.of(made)
    answers = np.concatenate([runtime.logits([runtime.encode(text)]) for text in golden.texts])
    assert golden.difference(made.task, answers) is None
    data = tmp_path / "changing.csv"
    data.write_text("\n".join(["text", *(long_text(seed, 160) for seed in range(60)), ""]))
    for model, other in ((sentiment_parent, made.path), (made.path, sentiment_parent)):
        evaluated = run("evaluate", str(model), "--data", str(data), "--against", str(other), "--json")
        assert json.loads(evaluated.stdout)["agreement"] == 1  # the parent reads as the bundle does


def test_people_are_told_what_is_read_and_what_it_costs(made: Bundle) -> None:
    manifest = made.manifest
    words = {"mean": "in up to 16 windows that begin 20 tokens apart; the mean", "max": "the maximum of the logits",
             "head-tail": "beginnings and ends"}[made.path.name.removeprefix("long-")]  # fmt: skip
    said = run("inspect", str(made.path)).stdout
    found = manifest.figures.long_texts
    assert found is not None
    for shown in (said, *((made.path / name).read_text("utf-8") for name in ("README.md", "report.html"))):
        assert words in shown
        assert f"{found.longer} of {manifest.data.test_texts}" in shown
        assert isinstance(manifest.runtime.long_texts, HeadTail) or f"{found.windows:.2f}" in shown


def test_before_the_work_it_is_said_how_many_texts_are_longer(
    sentiment_parent: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = [len(text.split()) + 2 for text in read_examples(data).single_texts]
    longer = sum(length > WINDOW for length in lengths)
    common = f"{data}: {longer} of 400 texts ({longer / 4:.1f} %) are longer than the window of 64 tokens, the longest "
    said = run("evaluate", str(sentiment_parent), "--data", str(data)).stderr
    assert f"{common}has {max(lengths)}; they are cut, and --long-texts head-tail or windows would read more" in said
    said = run("evaluate", str(sentiment_parent), "--data", str(data), "--long-texts", "windows").stderr
    assert "they are read window by window, 1." in said
    compress(str(sentiment_parent), data, load_recipe("float"), tmp_path / "bundle")
    told = capsys.readouterr().err
    assert common in told
    assert told.index(common) < told.index("Recipe float")
    short = tmp_path / "short.csv"
    short.write_text(f"text,label\na good day,positive\n{'the ' * ROOM},negative\n")
    assert "longer than the window" not in run("evaluate", str(sentiment_parent), "--data", str(short)).stderr


def test_reading_more_is_judged_on_more(sentiment_parent: Path, tmp_path: Path) -> None:
    data = tmp_path / "end.csv"
    rows = [f"{'the ' * 80}{word},{label}" for label, words in SENTIMENT.items() for word in words]
    data.write_text("\n".join(["text,label", *rows, ""]))

    def accuracy(*options: str) -> float:
        done = run("evaluate", str(sentiment_parent), "--data", str(data), "--json", *options)
        return float(json.loads(done.stdout)["accuracy"])

    assert accuracy() == 0.5
    assert accuracy("--long-texts", "head-tail") > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stride", "10"], "--stride is of windows; pass --long-texts windows too"),
        (["--long-texts", "head-tail", "--max-windows", "3"], "--max-windows is of windows"),
        (["--long-texts", "windows", "--stride", "63"], "a stride of 63 tokens"),
        (["--long-texts", "windows", "--max-windows", "1"], "1 is not in the range"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], message: str, sentiment_parent: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run("compress", str(sentiment_parent), "--data", str(data), "--out", str(out), *options)
    assert message in done.stderr
    assert done.exit_code != 0
    assert not out.exists()


def test_a_bundle_keeps_its_setting(sentiment_bundle: Bundle, data: Path) -> None:
    done = run("evaluate", str(sentiment_bundle.path), "--data", str(data), "--long-texts", "windows")
    assert (done.exit_code, "a bundle has its own setting" in done.stderr) == (1, True)


def test_windows_of_pairs_are_refused(sentiment_parent: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.csv"
    data.write_text("text,text_pair\n" + "a good day,it was\n" * 40)
    for command in (["compress", "--out", str(tmp_path / "out")], ["evaluate", "--against", str(sentiment_parent)]):
        done = run(*command, str(sentiment_parent), "--data", str(data), "--text-pair-column", "text_pair",
                   "--long-texts", "windows")  # fmt: skip
        assert "holds pairs of texts, of which the longer text is cut first; --long-texts windows is for" in done.stderr
        assert done.exit_code == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="long_texts is for single texts"):
        make_bundle(tmp_path / "bundle", inputs="pairs", long_texts=Windows())


def test_bundles_that_cut_are_written_as_before_there_was_a_choice(sentiment_bundle: Bundle) -> None:
    written = json.loads((sentiment_bundle.path / "bundle.json").read_bytes())
    assert "long_texts" not in written["runtime"]
    assert sentiment_bundle.manifest.runtime.long_texts is None
    assert Manifest.from_json(sentiment_bundle.manifest.to_json().encode()) == sentiment_bundle.manifest


def test_every_step_takes_windows(sentiment_parent: Path, data: Path, tmp_path: Path) -> None:
    cut = compress(str(sentiment_parent), data, load_recipe("balanced"), tmp_path / "cut", cache=tmp_path / "cache")
    bundle = compress(
        str(sentiment_parent), data, load_recipe("balanced"), tmp_path / "windows", cache=tmp_path / "cache",
        long_texts=Windows(stride=40),
    )  # fmt: skip
    assert not any(step.cached for step in bundle.manifest.figures.steps)
    assert bundle.manifest.figures.agreement > 0.9
    assert bundle.version != cut.version


def test_a_service_reads_and_counts_all_windows(tmp_path: Path) -> None:
    long_texts = Windows(max_windows=4)
    bundle = make_bundle(tmp_path / "windows", long_texts=long_texts)
    texts = ["good", "bad " * 64 + "good " * 64, "bad " * 65, "good " * 1000]
    tokens = [1, 128, 128, 256]

    async def main() -> None:
        telemetry = Telemetry()
        loader = Loader(Settings(streams=1, cache_bytes=100_000), telemetry)
        model = Model("shop", loader.load("shop", "windows", tmp_path.joinpath), telemetry)
        try:
            for _ in range(2):  # computed, and from the cache
                answer = await model.ask(texts)
                assert answer.tokens == sum(tokens)
                assert list(answer.truncated) == [False, False, False, True]
                assert answer.logits.tolist() == [[-1, 1], [0, 0], [64, -64], [-64, 64]]
            for text, count in zip(texts, tokens, strict=True):
                assert (await model.ask([text])).tokens == count
            await model.ask(texts[:3], CallOptions(cut=False))
            with pytest.raises(PayloadTooLarge, match="has more than 256 tokens"):
                await model.ask(texts, CallOptions(cut=False))
            assert (await model.ask(["good bad " * 110_000])).tokens == 256  # of a megabyte
        finally:
            await model.stop()

    asyncio.run(main())
    assert [answer.truncated for answer in load(bundle.path)(texts)] == [False, False, False, True]
    assert [answer.score for answer in load(bundle.path)(texts)] == pytest.approx([0.8808, 0.5, 1, 1], abs=1e-4)


def test_a_file_is_scored_as_the_service_answers(made: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 3))
    done = run("score", str(made.path), "--in", str(source), "--out", str(out))
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row, answer in zip(rows, load(made.path)(TEXTS * 3), strict=True):
        assert (row["label"], row["score"]) == (answer.label, pytest.approx(answer.score, abs=1e-5))
        assert (row["note"] == "truncated") == answer.truncated
