"""A model that gives a text any number of labels, through every route."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

import lathe
from compression.bundle import SeveralLabels, softmax
from compression.bundle.task import sigmoid
from lathe import main
from service.api.triage import check_fit
from service.environment import load_settings
from service.errors import ConfigurationError
from service.models.registry import check
from tests.handmade import make_bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration

LABELS = ("bill", "card", "fee")
THRESHOLDS = (0.9, 0.3, 0.5)
WORDS = {"invoice": (3.0, -1.0, 1.0), "visa": (-2.0, 2.0, -2.0), "hello": (-2.0, -2.0, -2.0)}
TEXTS = ["invoice", "visa", "hello", "invoice visa"]
LOGITS = np.array([WORDS["invoice"], WORDS["visa"], WORDS["hello"], (1.0, 1.0, -1.0)], np.float32)
GIVEN = [["bill", "fee"], ["card"], [], ["card"]]
TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    make_bundle(folder / "topics", WORDS, LABELS, TEMPERATURE, thresholds=THRESHOLDS)
    make_bundle(folder / "others", {"invoice": (9.0, 9.0, 9.0)}, LABELS, thresholds=(0.5, 0.5, 0.5))
    make_bundle(folder / "one", WORDS, LABELS)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    models = f"topics={folder}/topics,both={folder}/topics@3+{folder}/others@1"
    with (
        serve(folder / "log", {"LATHE_MODELS": models, "LATHE_BUNDLES_ROOT": str(folder)}) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        yield client


def ask(client: httpx.Client, **body: object) -> list[dict[str, Any]]:
    answer = client.post("/v1/classify", json={"model": "topics", "inputs": TEXTS, "top_k": 3, **body})
    results: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
    return results


def test_classify_gives_the_labels_at_or_over_their_thresholds(client: httpx.Client) -> None:
    results = ask(client)
    assert [result["labels"] for result in results] == GIVEN
    assert [[result["scores"][label] for label in LABELS] for result in results] == pytest.approx(
        sigmoid(LOGITS), abs=1e-6
    )
    assert [result["label"] for result in results] == ["bill", "card", "bill", "bill"]
    assert [result["labels"] for result in ask(client, top_k=1)] == GIVEN


def test_calibrated_scores_change_no_label(client: httpx.Client) -> None:
    results = ask(client, calibrated=True)
    assert [result["labels"] for result in results] == GIVEN
    assert results[0]["scores"] == pytest.approx(
        dict(zip(LABELS, sigmoid(LOGITS[0], TEMPERATURE), strict=True)), abs=1e-6
    )


def test_an_ensemble_averages_probabilities_and_thresholds(client: httpx.Client) -> None:
    results = ask(client, model="both")
    mean = (3 * sigmoid(LOGITS) + sigmoid(np.array([[9] * 3, [0] * 3, [0] * 3, [9] * 3]))) / 4
    assert [[result["scores"][label] for label in LABELS] for result in results] == pytest.approx(mean, abs=1e-6)
    thresholds = [(3 * threshold + 0.5) / 4 for threshold in THRESHOLDS]
    assert [set(result["labels"]) for result in results] == [
        {label for label, score, least in zip(LABELS, row, thresholds, strict=True) if score >= least} for row in mean
    ]


def test_what_is_served_says_its_task_and_thresholds(client: httpx.Client) -> None:
    topics, _ = client.get("/v1/models").json()["models"]
    assert topics["task"] == "multi-label-text-classification"
    assert topics["thresholds"] == dict(zip(LABELS, THRESHOLDS, strict=True))


def test_predict_gives_sigmoids_unless_something_else_is_asked(client: httpx.Client) -> None:
    for parameters, expected in (
        ({}, sigmoid(LOGITS[:1])),
        ({"function_to_apply": "softmax"}, softmax(LOGITS[:1])),
        ({"function_to_apply": "none"}, LOGITS[:1]),
    ):
        ((*answer,),) = client.post("/predict", json={"inputs": "invoice", "parameters": parameters}).json()
        scores = {one["label"]: one["score"] for one in answer}
        assert [scores[label] for label in LABELS] == pytest.approx(expected[0].tolist(), abs=1e-6)


def test_open_inference_gives_each_texts_labels_as_a_list(client: httpx.Client) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    label, scores = client.post("/v2/models/topics/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert [json.loads(one) for one in label["data"]] == GIVEN
    assert scores["data"] == pytest.approx(sigmoid(LOGITS).ravel().tolist(), abs=1e-6)


def test_a_version_that_gives_one_label_takes_its_place_only_on_request(client: httpx.Client) -> None:
    answer = client.post("/v1/models/topics/load", json={"bundle": "one"})
    assert answer.status_code == 422 or answer.is_client_error
    assert "how many a text may have" in answer.json()["error"]["message"]


def test_the_client_and_lathe_load_give_the_same_labels(client: httpx.Client, folder: Path) -> None:
    with lathe.Client(str(client.base_url)) as asking:
        answers = asking.classify(TEXTS, model="topics")
    assert [list(answer.labels) for answer in answers] == GIVEN
    assert [list(answer.labels) for answer in lathe.load(folder / "topics")(TEXTS)] == GIVEN
    assert [answer.labels for answer in lathe.load(folder / "one")(["visa"])] == [("card",)]


def test_score_joins_the_labels(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "\n".join(TEXTS) + "\n", "utf-8")
    arguments = ["score", f"{folder}/topics", "--in", f"{tmp_path}/in.csv", "--out", f"{tmp_path}/out.csv"]
    refused = CliRunner().invoke(main, [*arguments, "--label-separator", "a"])
    assert "the label 'card' holds 'a'" in refused.output
    result = CliRunner().invoke(main, [*arguments, "--label-separator", "|"])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["|".join(labels) for labels in GIVEN]
    assert [float(row["score"]) for row in rows] == pytest.approx(sigmoid(LOGITS).max(axis=1).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("sentiment={0}/topics,banking-intents={0}/one", "LATHE_TRIAGE_SENTIMENT='sentiment' gives any number"),
        ("a={0}/topics@1+{0}/one@1", "members of an ensemble need the same"),
    ],
)
def test_what_needs_one_label_refuses_it(folder: Path, models: str, message: str) -> None:
    settings = load_settings({"LATHE_MODELS": models.format(folder)})
    with pytest.raises(ConfigurationError, match=message):
        check(settings, Path, partial(check_fit, settings))


def test_a_threshold_for_each_label_is_part_of_the_task(folder: Path) -> None:
    with pytest.raises(ValueError, match="several labels need one for each"):
        make_bundle(folder / "bad", WORDS, LABELS, thresholds=(0.5,))
    assert lathe.load(folder / "topics").bundle.task == SeveralLabels(LABELS, THRESHOLDS)
