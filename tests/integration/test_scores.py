"""A score means one thing on every route: the model's own probability, and the calibrated one where it is asked for."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from compression.bundle import softmax
from lathe import main
from tests.handmade import make_bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration

LOGITS = np.array([[-1.5, 0.5]])
TEXT = "good"
TEMPERATURE = 2.0
OWN, CALIBRATED = (softmax(LOGITS, temperature)[0].tolist() for temperature in (1.0, TEMPERATURE))


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[httpx.Client]:
    """The service with `sentiment`, `banking-intents` and `plain`, which was never calibrated."""
    words = {TEXT: LOGITS[0].tolist()}
    make_bundle(folder / "sentiment", words, temperature=TEMPERATURE)
    make_bundle(folder / "intents", words, ("lost_card", "card_arrival"), temperature=TEMPERATURE)
    make_bundle(folder / "plain", words)
    models = f"sentiment={folder / 'sentiment'},banking-intents={folder / 'intents'},plain={folder / 'plain'}"
    with (
        serve(folder / "log", {"LATHE_MODELS": models, **settings}) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        yield client


def classify(client: httpx.Client, model: str = "sentiment", **body: object) -> tuple[list[float], bool]:
    """Scores of negative and positive, and whether the answer calls them calibrated."""
    answer = client.post("/v1/classify", json={"model": model, "inputs": TEXT, "top_k": 2, **body}).json()
    scores = answer["results"][0]["scores"]
    return [scores["negative"], scores["positive"]], answer["calibrated"]


def predict(client: httpx.Client, **body: object) -> list[float]:
    answer: list[dict[str, Any]] = client.post("/predict", json={"inputs": TEXT, **body}).json()
    scores = {prediction["label"]: prediction["score"] for prediction in answer}
    return [scores["negative"], scores["positive"]]


def infer(client: httpx.Client, **parameters: object) -> tuple[list[float], bool]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
    body = {"inputs": [tensor], "outputs": [{"name": "scores"}], "parameters": parameters}
    answer = client.post("/v2/models/sentiment/infer", json=body).json()
    return answer["outputs"][0]["data"], answer.get("parameters", {}).get("calibrated", False)


def score_file(folder: Path, *options: str, **environment: str) -> list[float]:
    source, out = folder / "in.csv", folder / "out.csv"
    source.write_text(f"text\n{TEXT}\n", "utf-8")
    out.unlink(missing_ok=True)
    arguments = ["score", str(folder / "sentiment"), "--in", str(source), "--out", str(out), "--probabilities"]
    result = CliRunner().invoke(main, [*arguments, *options], env=environment)
    assert result.exit_code == 0, result.output
    with out.open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return [float(row["probability_negative"]), float(row["probability_positive"])]


def close(scores: list[float]) -> Any:
    return pytest.approx(scores, abs=1e-6)


def test_every_route_gives_the_model_s_own_probability_and_a_calibrated_one_on_request(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        for scores in (classify(client)[0], predict(client), infer(client)[0], score_file(tmp_path)):
            assert scores == close(OWN)
        assert not classify(client)[1]
        assert not infer(client)[1]
        for answer in (classify(client, calibrated=True), infer(client, calibrated=True)):
            assert answer == (close(CALIBRATED), True)
        assert score_file(tmp_path, "--calibrated") == close(CALIBRATED)
        assert classify(client, "plain", calibrated=True) == (close(OWN), False)
        triage = client.post("/v1/triage", json={"inputs": TEXT}).json()
        assert triage["calibrated"]
        assert triage["results"][0]["confidence"] == pytest.approx(CALIBRATED[1])


def test_a_setting_changes_what_is_given_where_nothing_is_asked(tmp_path: Path) -> None:
    with serving(tmp_path, LATHE_CALIBRATED="true") as client:
        assert classify(client) == infer(client) == (close(CALIBRATED), True)
        assert predict(client) == score_file(tmp_path, LATHE_CALIBRATED="true") == close(CALIBRATED)
        assert classify(client, calibrated=False) == infer(client, calibrated=False) == (close(OWN), False)
        assert score_file(tmp_path, "--not-calibrated", LATHE_CALIBRATED="true") == close(OWN)
        assert predict(client, raw_scores=True) == close(LOGITS[0].tolist())


def test_it_is_the_score_of_transformers_pipeline(client: httpx.Client, sentiment_parent: Path) -> None:
    from transformers import pipeline

    texts = ["the service was slow and helpful", "good", "my card", "it is bad and broken and so slow"]
    expected = pipeline("text-classification", str(sentiment_parent))(texts)
    results = client.post("/v1/classify", json={"model": "sentiment", "inputs": texts}).json()["results"]
    assert [result["label"] for result in results] == [one["label"] for one in expected]
    assert [result["score"] for result in results] == pytest.approx([one["score"] for one in expected], abs=0.005)
