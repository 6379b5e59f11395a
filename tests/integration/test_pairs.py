"""Models of pairs of texts, through every route."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import lathe
from compression.bundle import NumberOptions, softmax
from compression.bundle.task import sigmoid
from service.api.triage import check_fit
from service.environment import load_settings
from service.errors import ConfigurationError
from service.models.registry import check
from tests.handmade import make_bundle
from tests.integration.conftest import LiveService, serve

pytestmark = pytest.mark.integration

Pair = tuple[str, str]
PAIRS: list[Pair] = [("good", "bad"), ("bad", "good"), ("good good", "good"), ("nothing", "bad bad")]
POSITIVE = [2.0, -2.0, 1.0, 2.0]  # the second logit, of first text less second; the first one is its opposite
SCORE = NumberOptions(function="sigmoid", spread=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    make_bundle(folder / "nli", inputs="pairs")
    make_bundle(folder / "opposite", {"good": (1.0, -1.0), "bad": (-1.0, 1.0)}, inputs="pairs")
    make_bundle(folder / "rank", {"good": (2.0,), "bad": (-1.0,)}, ["fit"], number=SCORE, inputs="pairs")
    make_bundle(folder / "plain")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[LiveService]:
    models = f"nli={folder}/nli,rank={folder}/rank,plain={folder}/plain,both={folder}/nli@3+{folder}/opposite@1"
    settings = {"LATHE_MODELS": models, "LATHE_BUNDLES_ROOT": str(folder), "LATHE_CACHE_BYTES": "1000000"}
    with serve(folder / "log", settings) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: LiveService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def written(pairs: list[Pair]) -> list[dict[str, str]]:
    return [{"text": one, "text_pair": two} for one, two in pairs]


def positive(pairs: list[Pair] = PAIRS) -> list[float]:
    """Expected probabilities of `positive`."""
    logits = np.array([POSITIVE[PAIRS.index(pair)] for pair in pairs])
    return [float(one) for one in softmax(np.stack([-logits, logits], 1))[:, 1]]


def ask(client: httpx.Client, **body: object) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/v1/classify", json={"top_k": None, **body}).raise_for_status().json()
    return answer


def refused(answer: httpx.Response, sentence: str) -> None:
    assert answer.status_code == 400, answer.text
    assert sentence in json.dumps(answer.json(), ensure_ascii=False).replace('\\"', '"'), answer.text


def test_classify_takes_pairs(client: httpx.Client, folder: Path) -> None:
    answer = ask(client, model="nli", inputs=written(PAIRS))
    assert [one["scores"]["positive"] for one in answer["results"]] == pytest.approx(positive())
    assert [one["label"] for one in answer["results"]] == ["positive", "negative", "positive", "positive"]
    assert answer["usage"]["tokens"] == 10
    (one,) = ask(client, model="nli", inputs=written(PAIRS)[1])["results"]  # one pair, without a list
    assert one == answer["results"][1]
    loaded = lathe.load(folder / "nli")(PAIRS, top_k=None)
    assert [one.scores for one in loaded] == [pytest.approx(one["scores"]) for one in answer["results"]]


def test_an_ensemble_of_pairs_averages(client: httpx.Client) -> None:
    results = ask(client, model="both", inputs=written(PAIRS))["results"]
    expected = [0.75 * one + 0.25 * (1 - one) for one in positive()]
    assert [one["scores"]["positive"] for one in results] == pytest.approx(expected)


def test_kept_answers_are_of_both_texts(client: httpx.Client) -> None:
    """With a cache: the same words in the other order, or divided otherwise, are another question."""
    for inputs in ([("good", "bad")], [("bad", "good")], [("good bad", "bad")], [("good", "bad bad")]):
        results = ask(client, model="nli", inputs=written(inputs))["results"]
        one, two = inputs[0]
        logit = sum({"good": 1, "bad": -1}[word] for word in one.split()) - sum(
            {"good": 1, "bad": -1}[word] for word in two.split()
        )
        assert results[0]["scores"]["positive"] == pytest.approx(float(sigmoid(np.array([2.0 * logit]))[0]))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            {"model": "nli", "inputs": "good"},
            "inputs.0: is a single text, and 'nli' reads pairs of texts; send each as {",
        ),
        ({"model": "nli", "inputs": ["good", "bad"]}, "inputs.0: is a single text"),
        (
            {"model": "plain", "inputs": written(PAIRS)},
            "inputs.0: is a pair, and 'plain' reads single texts; send each",
        ),
        ({"model": "nli", "inputs": [*written(PAIRS), "good"]}, "inputs.4: is a string; send an object"),
        ({"model": "plain", "inputs": ["good", *written(PAIRS)]}, "inputs.1: is an object; send a string"),
        ({"model": "nli", "inputs": {"text": "good"}}, "inputs.text_pair: is missing; send it"),
        ({"model": "nli", "inputs": [{"text_pair": "good"}]}, "inputs.0.text: is missing; send it"),
        ({"model": "nli", "inputs": [{"text": "a", "text_pair": " "}]}, "inputs.0.text_pair: is empty; send a text"),
        ({"model": "nli", "inputs": [{"text": "a", "text_pair": "b", "c": 1}]}, "inputs.0.c: there is no such field"),
        ({"model": "nli", "inputs": [["a", "b"]]}, "inputs.0: is a list; send a string"),
    ],
)
def test_what_does_not_fit_is_said(client: httpx.Client, body: dict[str, Any], sentence: str) -> None:
    refused(client.post("/v1/classify", json=body), sentence)


def test_no_text_of_a_pair_is_quoted(client: httpx.Client, folder: Path) -> None:
    for pair in ({"text": "secret", "text_pair": 7}, {"text": "secret", "text_pair": "", "more": "secret"}):
        answer = client.post("/v1/classify", json={"model": "nli", "inputs": [pair]})
        assert answer.status_code == 400
        assert "secret" not in answer.text
    assert "secret" not in (folder / "log").read_text("utf-8")


def test_models_say_what_they_read(client: httpx.Client) -> None:
    models = {one["name"]: one["inputs"] for one in client.get("/v1/models").json()["models"]}
    assert models == {"nli": "pairs", "rank": "pairs", "plain": "texts", "both": "pairs"}


def test_lathe_s_clients_send_pairs(service: LiveService) -> None:
    with lathe.Client(service.url) as client:
        answers = client.classify(PAIRS, "nli", top_k=None)
        with pytest.raises(lathe.RequestFailed, match="reads single texts"):
            client.classify(PAIRS, "plain")
    assert [one.scores["positive"] for one in answers] == pytest.approx(positive())

    async def asynchronously() -> list[lathe.Classification]:
        async with lathe.AsyncClient(service.url) as client:
            return await client.classify(PAIRS, "nli", top_k=None)

    assert asyncio.run(asynchronously()) == answers


# text-embeddings-inference


@pytest.fixture(scope="module")
def ranker(folder: Path) -> Iterator[httpx.Client]:
    """The protocol of a server with one model: the reranker."""
    settings = {"LATHE_MODELS": f"plain={folder}/plain,rank={folder}/rank", "LATHE_PREDICT_MODEL": "rank"}
    with serve(folder / "rank.log", settings) as service, httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def test_predict_takes_pairs_as_that_server_does(client: httpx.Client) -> None:
    """The first model is that of `nli`. A list of two is one pair; a list of lists are several."""
    batch = client.post("/predict", json={"inputs": [list(pair) for pair in PAIRS]}).raise_for_status().json()
    assert [max(one, key=lambda label: label["label"])["score"] for one in batch] == pytest.approx(positive())
    one = client.post("/predict", json={"inputs": list(PAIRS[1])}).raise_for_status().json()
    assert one == batch[1]
    raw = client.post("/predict", json={"inputs": [list(PAIRS[0])], "raw_scores": True}).json()
    assert raw == [[{"score": 2.0, "label": "positive"}, {"score": -2.0, "label": "negative"}]]
    for inputs, sentence in (
        ("good", "'nli' reads pairs of texts; send [["),
        (["good"], "inputs.0: is a single text"),
        ([["good", "bad"], ["good"]], "inputs.1: is a single text"),
        (["good", "bad", "good"], "has more texts than the two of a pair in one list"),
    ):
        refused(client.post("/predict", json={"inputs": inputs}), sentence)
    refused(client.post("/rerank", json={"query": "good", "texts": ["bad"]}), "and a reranker gives a number to a pair")


def test_rerank_gives_the_texts_in_their_order(ranker: httpx.Client) -> None:
    body: dict[str, Any] = {"query": "good", "texts": ["good", "bad", "nothing", "bad bad"]}
    logits = np.array([0.0, 3.0, 2.0, 4.0])
    ranks = ranker.post("/rerank", json=body).raise_for_status().json()
    assert [one["index"] for one in ranks] == [3, 1, 2, 0]
    assert [one["score"] for one in ranks] == pytest.approx(sigmoid(logits)[[3, 1, 2, 0]].tolist())
    assert all(set(one) == {"index", "score"} for one in ranks)
    raw = ranker.post("/rerank", json={**body, "raw_scores": True, "return_text": True}).json()
    assert raw == [{"index": at, "score": logits[at], "text": body["texts"][at]} for at in (3, 1, 2, 0)]
    assert ranker.get("/info").json()["model_type"] == {"reranker": {"id2label": {"0": "fit"}, "label2id": {"fit": 0}}}


def test_rerank_says_what_does_not_fit(ranker: httpx.Client) -> None:
    refused(ranker.post("/rerank", json={"query": "good"}), "texts: is missing")
    refused(ranker.post("/rerank", json={"query": " ", "texts": ["a"]}), "query: is empty")
    refused(ranker.post("/rerank", json={"query": "a", "texts": []}), "texts: is empty")
    many = ranker.post("/rerank", json={"query": "a", "texts": ["b"] * 257})
    assert many.status_code == 413
    assert many.json()["error_type"] == "Validation"
    long = ranker.post("/rerank", json={"query": "good " * 70, "texts": ["bad"], "truncate": False})
    assert long.status_code == 413
    assert ranker.post("/rerank", json={"query": "good " * 70, "texts": ["bad"]}).status_code == 200


# Open Inference Protocol


def tensor(name: str, texts: list[str], binary: bool) -> triton.InferInput:
    given = triton.InferInput(name, [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array([text.encode() for text in texts], object), binary_data=binary)
    return given


@pytest.mark.parametrize("binary", [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize("names", [("TEXT", "TEXT_PAIR"), ("text", "text_pair")])
def test_triton_s_client_sends_two_tensors(
    service: LiveService, binary: tuple[bool, bool], names: tuple[str, str]
) -> None:
    firsts, seconds = ([pair[side] for pair in PAIRS] for side in (0, 1))
    with triton.InferenceServerClient(urlsplit(service.url).netloc) as client:
        both = [tensor(names[0], firsts, binary[0]), tensor(names[1], seconds, binary[1])]
        for inputs in (both, both[::-1]):
            scores = client.infer("nli", inputs).as_numpy("scores")
            assert scores[:, 1] == pytest.approx(positive(), abs=1e-6)
        assert [one["name"] for one in client.get_model_metadata("nli")["inputs"]] == ["text", "text_pair"]
        for wrong, sentence in (
            (both[:1], "'nli' reads pairs of texts; send two tensors, text and text_pair"),
            ([both[0], tensor("other", seconds, binary[1])], "one of two called text_pair"),
            ([both[0], tensor(names[1], seconds[:2], binary[1])], "has 4 texts and 2; pairs need as many of both"),
            ([both[0], tensor(names[1], [*seconds[:3], " "], binary[1])], r"inputs\.1\.data\.3: is empty"),
        ):
            with pytest.raises(InferenceServerException, match=sentence):
                client.infer("nli", wrong)
        with pytest.raises(InferenceServerException, match="'plain' reads single texts; send one tensor"):
            client.infer("plain", both)


# What they are served for


def test_triage_refuses_them(folder: Path) -> None:
    for name in ("LATHE_TRIAGE_SENTIMENT", "LATHE_TRIAGE_INTENT"):
        other = {"LATHE_TRIAGE_SENTIMENT", "LATHE_TRIAGE_INTENT"} - {name}
        settings = load_settings(
            {
                "LATHE_MODELS": f"a={folder}/nli,b={folder}/plain",
                name: "a",
                other.pop(): "b",
                "LATHE_HAND_OVER_INTENTS": "",
            }
        )
        with pytest.raises(ConfigurationError, match=f"{name}='a' reads pairs of texts, and triage reads one message"):
            check(settings, Path, partial(check_fit, settings))


def test_members_of_an_ensemble_read_the_same(folder: Path) -> None:
    settings = load_settings({"LATHE_MODELS": f"a={folder}/nli@1+{folder}/plain@1", "LATHE_TRIAGE": "off"})
    with pytest.raises(
        ConfigurationError, match=r"reads texts, and .* reads pairs; members of an ensemble need the same"
    ):
        check(settings, Path, partial(check_fit, settings))


def test_a_version_that_reads_something_else_is_refused(client: httpx.Client) -> None:
    for name, bundle, reads in (("nli", "plain", "texts"), ("plain", "nli", "pairs")):
        answer = client.post(f"/v1/models/{name}/load", json={"bundle": bundle, "other_labels": True})
        assert answer.json()["error"]["code"] == "bundle_refused"
        assert f"it reads {reads}, and the live version" in answer.text


def test_pairs_go_to_a_version_on_trial_by_both_texts(client: httpx.Client) -> None:
    pairs = [("good", f"bad {number}") for number in range(200)]
    client.post("/v1/models/nli/load", json={"bundle": "opposite", "canary": 50}).raise_for_status()
    try:
        results = ask(client, model="nli", inputs=written(pairs))["results"]
        assert ask(client, model="nli", inputs=written(pairs))["results"] == results
    finally:
        client.post("/v1/models/nli/drop").raise_for_status()
    share = sum(one["label"] == "negative" for one in results) / len(results)
    assert 0.3 < share < 0.7


def test_the_document_knows_pairs(client: httpx.Client) -> None:
    document = client.get("/docs.json").json()
    assert set(document["components"]["schemas"]["TextPair"]["required"]) == {"text", "text_pair"}
    assert "/rerank" in document["paths"]
