"""A model that gives a number, through every route."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

import lathe
from compression.bundle import NumberOptions
from compression.bundle.task import sigmoid
from lathe import main
from service.api.triage import check_fit
from service.environment import load_settings
from service.errors import ConfigurationError
from service.models.registry import check
from tests.handmade import LABELS, make_bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration

WORDS = {"great": (2.5,), "fine": (0.5,), "awful": (-3.0,)}
TEXTS = ["great", "fine great", "awful", "nothing", "awful awful"]
NUMBERS = [2.5, 3.0, -3.0, 0.0, -6.0]
PLAIN = NumberOptions(function="none", spread=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("number")
    make_bundle(folder / "stars", WORDS, ["stars"], number=PLAIN)
    make_bundle(folder / "near", {"great": (2.8,), "fine": (0.5,), "awful": (-3.0,)}, ["stars"], number=PLAIN)
    make_bundle(folder / "far", {"great": (3.0,), "fine": (0.5,), "awful": (-3.0,)}, ["stars"], number=PLAIN)
    make_bundle(folder / "fit", WORDS, ["fit"], number=NumberOptions(function="sigmoid", spread=0.3))
    make_bundle(folder / "fits", WORDS, ["stars"], number=NumberOptions(function="sigmoid", spread=0.3))
    make_bundle(folder / "labels")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    models = (
        f"stars={folder}/stars,fit={folder}/fit,both={folder}/stars@3+{folder}/far@1,two={folder}/fit@1+{folder}/fit@1"
    )
    settings = {"LATHE_MODELS": models, "LATHE_BUNDLES_ROOT": str(folder), "LATHE_CACHE_BYTES": "1000000"}
    with serve(folder / "log", settings) as service, httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def ask(client: httpx.Client, model: str, **body: object) -> list[dict[str, Any]]:
    answer = client.post("/v1/classify", json={"model": model, "inputs": TEXTS, **body}).raise_for_status().json()
    assert not answer["calibrated"]
    results: list[dict[str, Any]] = answer["results"]
    return results


def test_classify_gives_the_number(client: httpx.Client) -> None:
    for options in ({}, {"calibrated": True}, {"top_k": 3}):
        results = ask(client, "stars", **options)
        assert [result["score"] for result in results] == pytest.approx(NUMBERS)
        assert all(result["label"] == "stars" and result["scores"] == {"stars": result["score"]} for result in results)
        assert not any("labels" in result for result in results)
    assert [result["score"] for result in ask(client, "fit")] == pytest.approx(sigmoid(np.array(NUMBERS)))


def test_an_ensemble_averages_numbers(client: httpx.Client) -> None:
    far = [3.0, 3.5, -3.0, 0.0, -6.0]
    expected = [(3 * one + other) / 4 for one, other in zip(NUMBERS, far, strict=True)]
    assert [result["score"] for result in ask(client, "both")] == pytest.approx(expected)
    assert [result["score"] for result in ask(client, "two")] == pytest.approx(sigmoid(np.array(NUMBERS)))


def test_what_is_served_says_its_task(client: httpx.Client) -> None:
    stars = client.get("/v1/models").json()["models"][0]
    assert stars["task"] == "text-regression"
    assert stars["labels"] == ["stars"]
    assert stars["thresholds"] is None


def test_predict_gives_what_the_pipeline_gives(client: httpx.Client) -> None:
    for parameters, expected in (({}, 2.5), ({"function_to_apply": "sigmoid"}, sigmoid(np.array(2.5)))):
        assert client.post("/predict", json={"inputs": "great", "parameters": parameters}).json() == [
            [{"score": pytest.approx(float(expected)), "label": "stars"}]
        ]
    assert client.post("/predict", json={"inputs": "great", "raw_scores": True}).json()[0]["score"] == 2.5
    assert client.get("/info").json()["model_type"]["classifier"]["id2label"] == {"0": "stars"}


def test_open_inference_gives_the_number_as_score(client: httpx.Client) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    label, scores = client.post("/v2/models/stars/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert scores["data"] == pytest.approx(NUMBERS)
    assert scores["shape"] == [len(TEXTS), 1]
    assert label["data"] == ["stars"] * len(TEXTS)
    assert client.get("/v2/models/stars").json()["outputs"][1]["parameters"] == {"labels": ["stars"]}


@pytest.mark.parametrize("bundle", ["labels", "fits", "fit"])
def test_a_version_whose_scores_mean_something_else_is_refused(client: httpx.Client, bundle: str) -> None:
    answer = client.post("/v1/models/stars/load", json={"bundle": bundle})
    assert answer.is_client_error
    assert "what its scores are" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("bundle", "agreeing"), [("near", 5), ("far", 3)])
def test_a_shadow_agrees_where_numbers_count_as_the_same(client: httpx.Client, bundle: str, agreeing: int) -> None:
    def counted(result: str) -> float:
        series = f'lathe_shadow_texts_total{{model="stars",result="{result}"}}'
        found = [line for line in client.get("/metrics").text.splitlines() if line.startswith(series)]
        return float(found[0].split()[-1])

    client.post("/v1/models/stars/load", json={"bundle": bundle, "shadow": True}).raise_for_status()
    before = counted("agree"), counted("disagree")
    ask(client, "stars")
    while sum(counted(result) for result in ("agree", "disagree")) < sum(before) + len(TEXTS):
        pass  # it is compared behind the answer
    client.post("/v1/models/stars/drop").raise_for_status()
    assert (counted("agree") - before[0], counted("disagree") - before[1]) == (agreeing, len(TEXTS) - agreeing)


def test_triage_is_refused_in_a_sentence(client: httpx.Client) -> None:
    answer = client.post("/v1/triage", json={"inputs": "great"})
    assert answer.is_client_error
    assert "triage is off here" in answer.json()["error"]["message"]


def test_the_client_and_lathe_load_give_the_same_number(client: httpx.Client, folder: Path) -> None:
    with lathe.Client(str(client.base_url)) as asking:
        answers = asking.classify(TEXTS, model="stars")
    assert answers == lathe.load(folder / "stars")(TEXTS)
    assert [answer.score for answer in answers] == pytest.approx(NUMBERS)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_score_adds_the_number(folder: Path, tmp_path: Path, kind: str) -> None:
    source, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    if kind == "csv":
        source.write_text("text\n" + "\n".join(TEXTS) + "\n", "utf-8")
    elif kind == "jsonl":
        source.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), "utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), source)
    arguments = ["score", f"{folder}/stars", "--in", str(source), "--out", str(out)]
    refused = CliRunner().invoke(main, [*arguments, "--probabilities"])
    assert "gives a number, which has no probabilities; leave out --probabilities" in " ".join(refused.output.split())
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    if kind == "csv":
        rows = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    elif kind == "jsonl":
        rows = list(map(json.loads, out.read_text("utf-8").splitlines()))
    else:
        rows = pyarrow.parquet.read_table(out).to_pylist()
    assert set(rows[0]) == {"text", "score", "note"}
    assert [float(row["score"]) for row in rows] == pytest.approx(NUMBERS)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            "sentiment={0}/stars,banking-intents={0}/labels",
            "LATHE_TRIAGE_SENTIMENT='sentiment' gives a number to a text",
        ),
        ("a={0}/stars@1+{0}/fits@1", r"\(sigmoid\).*members of an ensemble need the same"),
        ("a={0}/stars@1+{0}/labels@1", "members of an ensemble need the same"),
    ],
)
def test_what_needs_labels_refuses_a_number(folder: Path, models: str, message: str) -> None:
    settings = load_settings({"LATHE_MODELS": models.format(folder)})
    with pytest.raises(ConfigurationError, match=message):
        check(settings, Path, partial(check_fit, settings))


@pytest.mark.parametrize(
    ("labels", "thresholds", "number"),
    [(("a", "b"), None, PLAIN), (("a",), None, None), (("a",), (0.5,), None), (("a",), (0.5,), PLAIN)],
)
def test_a_manifest_is_of_one_kind(
    tmp_path: Path, labels: tuple[str, ...], thresholds: tuple[float, ...] | None, number: NumberOptions | None
) -> None:
    with pytest.raises(ValueError, match=r"needs? (one|these)"):
        make_bundle(tmp_path / "bad", {"a": (1.0,) * len(labels)}, labels, thresholds=thresholds, number=number)


def test_golden_answers_are_held_by_the_scale_of_the_numbers(folder: Path) -> None:
    from compression.bundle import GoldenAnswers

    golden = GoldenAnswers(texts=("a", "b"), logits=((1.0,), (200.0,)))
    task = make_bundle(folder / "wide", WORDS, LABELS[:1], number=NumberOptions(function="none", spread=50.0)).task
    assert golden.difference(task, np.array([[9.0], [208.0]], np.float32)) is None
    assert "text 1 of 2 is 12 from the golden one" in str(
        golden.difference(task, np.array([[13.0], [200]], np.float32))
    )
