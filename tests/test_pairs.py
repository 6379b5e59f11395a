"""Models of pairs of texts, from their rows to their bundles and what is said of them."""

import csv
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer, pipeline

import lathe
from compression.bundle import Bundle, read_golden
from compression.data import Columns, Examples, read_examples
from compression.errors import CheckpointError, DataError
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import load_classifier, predict
from compression.parent.inputs import require_reads
from compression.task import open_task
from compression.train.finetune import FinetuneOptions, finetune
from compression.train.lessons import vary
from tests.commands import compressed, done, run, said
from tests.conftest import FILLER, SENTIMENT, made_once

Pair = tuple[str, str]
PAIRED = ("--text-pair-column", "text_pair")
COLUMNS = Columns(text_pair="text_pair")
PAIRS: list[Pair] = [
    ("this bank is great", "an awful and slow app"),
    ("an awful and slow app", "this bank is great"),
    ("the app", "it was very lovely " * 3),
    ("so good " * 40, "bad"),  # beyond the window, and below
    ("the best " * 40, "terrible and " * 50),
]


def text(choose: random.Random, sentiment: str) -> str:
    words = choose.choices(FILLER, k=choose.randint(1, 6)) + choose.choices(SENTIMENT[sentiment], k=2)
    choose.shuffle(words)
    return " ".join(words)


def happier(choose: random.Random) -> tuple[Pair, bool]:
    """A pair, and whether its first text is the happier one: neither text alone says so as surely, and order counts."""
    first = choose.random() < 0.5
    one, two = ("positive", "negative") if first else ("negative", "positive")
    return (text(choose, one), text(choose, two)), first


def write_rows(
    path: Path, count: int, seed: int, label: Callable[[bool], str] = lambda is_first: "first" * is_first or "second"
) -> Path:
    choose = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "text_pair", "label"])
        for _ in range(count):
            pair, is_first = happier(choose)
            writer.writerow([*pair, label(is_first)])
    return path


@pytest.fixture(scope="module")
def data(workspace: Path) -> Path:
    return made_once(workspace / "pairs.csv", lambda path: write_rows(path, 600, seed=1))


@pytest.fixture(scope="module")
def pair_encoder(workspace: Path, encoder: Path) -> Path:
    """The untrained BERT, whose tokenizer has BERT's frame for pairs."""

    def make(out: Path) -> None:
        import shutil

        shutil.copytree(encoder, out)
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        tokenizer.save(str(out / "tokenizer.json"))

    return made_once(workspace / "pair-encoder", make)


@pytest.fixture(scope="module")
def bert(workspace: Path, pair_encoder: Path, data: Path) -> Path:
    def train(out: Path) -> None:
        validation = write_rows(out.with_suffix(".validation.csv"), 80, seed=2)
        done(
            "finetune", pair_encoder, "--data", data, "--validation", validation, "--out", out, *PAIRED, "--epochs", 6,
            "--batch-size", 16, "--learning-rate", 3e-3, "--precision", "fp32",
        )  # fmt: skip

    return made_once(workspace / "pair-parent", train)


@pytest.fixture(scope="module")
def roberta(workspace: Path) -> Path:
    """An untrained RoBERTa of two labels, whose weights are large enough that answers differ."""

    def make(out: Path) -> None:
        pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        RobertaTokenizer(
            vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], model_max_length=64
        ).save_pretrained(out)
        torch.manual_seed(0)
        RobertaForSequenceClassification(
            RobertaConfig(
                vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=48, max_position_embeddings=66, initializer_range=0.4, type_vocab_size=1,
                id2label={0: "first", 1: "second"}, label2id={"first": 0, "second": 1},
            )
        ).save_pretrained(out)  # fmt: skip

    return made_once(workspace / "pair-roberta", make)


@pytest.fixture(scope="module")
def float_bundle(workspace: Path, bert: Path, data: Path) -> Bundle:
    return compressed(workspace, bert, data, "float", *PAIRED)


def expected_scores(parent: Path, pairs: list[Pair]) -> list[dict[str, float]]:
    """What transformers' pipeline gives, by label."""
    classify = pipeline("text-classification", str(parent), top_k=None)
    given = [{"text": one, "text_pair": two} for one, two in pairs]
    return [{one["label"]: one["score"] for one in answer} for answer in classify(given, truncation=True)]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_float_bundle_answers_as_transformers_pipeline(
    workspace: Path, data: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    parent: Path = request.getfixturevalue(kind)
    bundle = compressed(workspace, parent, data, "float", *PAIRED)
    answers = lathe.load(bundle.path)(PAIRS, top_k=None)
    for answer, expected in zip(answers, expected_scores(parent, PAIRS), strict=True):
        assert answer.scores == pytest.approx(expected, abs=1e-4)
    assert [answer.truncated for answer in answers[-2:]] == [True, True]
    assert abs(answers[0].scores["first"] - answers[1].scores["first"]) > 0.01  # the order of the texts counts
    assert bundle.manifest.inputs == "pairs"


def test_training_learns_from_both_texts(bert: Path, data: Path) -> None:
    model = load_classifier(str(bert))
    examples = read_examples(write_rows(data.with_name("pairs-unseen.csv"), 200, seed=7), COLUMNS)
    right = predict(model, examples.texts, "").argmax(1) == [
        model.task.labels.index(str(one)) for one in examples.labels
    ]
    assert right.mean() > 0.95


def test_training_gives_the_model_the_types_of_tokens(pair_encoder: Path, data: Path, tmp_path: Path) -> None:
    examples = read_examples(data, COLUMNS).head(100)
    options = FinetuneOptions(epochs=1, learning_rate=1e-3, precision="fp32")
    figures = finetune(str(pair_encoder), examples, examples, tmp_path / "out", options)
    model = load_classifier(str(tmp_path / "out"))
    truth = torch.tensor([model.task.labels.index(str(label)) for label in examples.labels])
    logits = torch.from_numpy(predict(model, examples.texts, ""))
    assert figures["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, truth)), abs=1e-5)


def test_the_bundle_says_what_it_reads(float_bundle: Bundle, workspace: Path) -> None:
    golden = read_golden(float_bundle)
    assert golden is not None
    assert all(isinstance(one, tuple) for one in golden.texts)
    assert json.loads((float_bundle.path / "bundle.json").read_text("utf-8"))["inputs"] == "pairs"
    assert "A classifier of pairs of texts with 2 labels" in (float_bundle.path / "README.md").read_text("utf-8")
    assert "pairs of texts" in done("inspect", float_bundle.path).output
    assert float_bundle.manifest.figures.bundle.accuracy is not None
    assert float_bundle.manifest.figures.bundle.accuracy > 0.95
    assert float_bundle.manifest.figures.agreement == 1
    assert done("bench", float_bundle.path, "--batches", 1, "--tokens", 8, "--rounds", 2)


EVERY_STEP = """
schema_version: 1
name: every step
storage: zstd
steps:
  - {step: prune_vocabulary, keep_most_frequent: 20}
  - {step: drop_layers, count: 1}
  - {step: sparsify, score: movement, sparsity: 0.3}
  - {step: recover, epochs: 1, quantization_aware: true}
  - {step: export}
  - {step: quantize, min_agreement: 0.5, embedding_entropy: 4}
"""


@pytest.mark.parametrize("recipe", ["safe", "balanced", "every-step"])
def test_smaller_bundles_keep_their_answers(workspace: Path, bert: Path, data: Path, recipe: str) -> None:
    path = made_once(
        workspace / "every-step-of-pairs" / "every-step.yaml", lambda path: path.write_text(EVERY_STEP, "utf-8")
    )
    bundle = compressed(
        workspace, bert, data, path if recipe == "every-step" else recipe, *PAIRED, "--budget", "min_agreement=0.5"
    )
    assert bundle.manifest.figures.agreement > 0.95
    assert bundle.manifest.figures.robustness


@pytest.mark.parametrize("kind", ["number", "several"])
def test_pairs_get_numbers_and_several_labels(workspace: Path, pair_encoder: Path, kind: str, tmp_path: Path) -> None:
    labels = {
        "number": lambda is_first: f"{3.0 if is_first else -1.0}",
        "several": lambda is_first: "a;b" if is_first else "b;c",
    }
    rows = write_rows(tmp_path / "rows.csv", 200, 3, labels[kind])
    parent = tmp_path / f"{kind}-parent"
    options = ["--number"] if kind == "number" else ["--label-separator", ";"]
    done(
        "finetune", pair_encoder, "--data", rows, "--out", parent, *PAIRED, *options, "--epochs", 2, "--batch-size", 16,
        "--learning-rate", 3e-3, "--precision", "fp32",
    )  # fmt: skip
    bundle = compressed(tmp_path, parent, rows, "float", *PAIRED, *options[kind == "number" :])
    for answer, expected in zip(
        lathe.load(bundle.path)(PAIRS, top_k=None), expected_scores(parent, PAIRS), strict=True
    ):
        assert answer.scores == pytest.approx(expected, abs=1e-4)


def test_what_was_computed_of_other_pairs_is_not_taken_for_these(bert: Path, data: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(data.read_text("utf-8").splitlines()))
    other = tmp_path / "other.csv"
    with other.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "text_pair", "label"])
        writer.writeheader()
        writer.writerows({**row, "text_pair": row["text_pair"] + " ."} for row in rows)
    keys = {open_task(str(bert), path, COLUMNS, tmp_path).key for path in (data, other)}
    assert len(keys) == 2


# Data


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


def test_labels_of_pairs_are_not_read_from_single_texts(bert: Path) -> None:
    parent = load_parent(str(bert))
    nli = replace(parent, task=replace(parent.task, labels=("contradiction", "entailment")))
    require_reads(nli, "pairs")
    require_reads(parent, "texts")
    with pytest.raises(CheckpointError, match=r"judges pairs of texts .* name the column .* --text-pair-column"):
        require_reads(nli, "texts")


def test_a_token_type_that_the_model_does_not_know_is_refused(bert: Path) -> None:
    parent = load_parent(str(bert))
    parent.model.config.type_vocab_size = 1
    with pytest.raises(CheckpointError, match="token type 1, and the model knows 1 types"):
        require_reads(parent, "pairs")


def test_a_window_without_room_for_a_pair_is_refused(bert: Path) -> None:
    parent = replace(load_parent(str(bert)), max_length=3)
    with pytest.raises(CheckpointError, match="the 3 special ones of a pair leave no room"):
        require_reads(parent, "pairs")


def test_a_search_takes_pairs(bert: Path, data: Path, tmp_path: Path, workspace: Path) -> None:
    done(
        "compress", bert, "--data", data, *PAIRED, "--budget", "min_agreement=0.5", "--trials", 1, "--out",
        tmp_path / "out", "--cache", workspace / "kept",
    )  # fmt: skip
    assert lathe.load(tmp_path / "out")(PAIRS)[0].label == "first"


def test_a_tokenizer_without_a_frame_for_pairs_is_doubted(
    sentiment_parent: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "a.csv", 60, 1, lambda is_first: "positive" if is_first else "negative")
    open_task(str(sentiment_parent), rows, COLUMNS, tmp_path)
    assert "none around or between the two of a pair" in capsys.readouterr().err
    examples = read_examples(rows, COLUMNS)
    finetune(str(sentiment_parent), examples, None, tmp_path / "out", FinetuneOptions(epochs=0.1, precision="fp32"))
    assert "none around or between the two of a pair" in capsys.readouterr().err


def test_answers_do_not_depend_on_the_batch(float_bundle: Bundle) -> None:
    classify = lathe.load(float_bundle.path)
    together = np.array([answer.score for answer in classify(PAIRS)])
    assert together == pytest.approx(np.array([classify([pair])[0].score for pair in PAIRS]), abs=1e-5)
