"""The HTTP API of the real service."""

import concurrent.futures
import random
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from compression.bundle import Bundle, Runtime, softmax
from tests.integration.conftest import LiveService, ServiceFactory

pytestmark = pytest.mark.integration

JSON = {"content-type": "application/json"}


def classify(client: httpx.Client, **body: object) -> httpx.Response:
    return client.post("/v1/classify", json={"model": "sentiment", **body})


def test_one_text_gets_one_result(client: httpx.Client, sentiment_bundle: Bundle) -> None:
    answer = classify(client, inputs="a great and lovely service").json()
    (result,) = answer["results"]
    assert answer["model"] == "sentiment"
    assert answer["version"] == sentiment_bundle.version
    assert result["label"] == "positive"
    assert result["scores"] == {"positive": result["score"]}
    assert not result["truncated"]
    assert answer["usage"]["tokens"] == 7


def test_results_come_in_the_order_of_the_inputs(client: httpx.Client) -> None:
    texts = [f"{'great lovely' if index % 3 else 'awful bad'} {'the ' * (index % 20)}" for index in range(60)]
    results = classify(client, inputs=texts).json()["results"]
    assert [result["label"] for result in results] == ["positive" if n % 3 else "negative" for n in range(60)]


def test_top_k_gives_the_most_probable_labels_first(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", json={"model": "banking-intents", "inputs": "lost my wallet", "top_k": 3})
    scores = answer.json()["results"][0]["scores"]
    assert len(scores) == 3
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert sum(scores.values()) == pytest.approx(1)
    assert len(classify(client, inputs="fine", top_k=99).json()["results"][0]["scores"]) == 2


def test_scores_are_those_of_the_bundle(client: httpx.Client, sentiment_bundle: Bundle) -> None:
    runtime = Runtime.of(sentiment_bundle)
    expected = softmax(runtime.logits([runtime.encode("my bank is slow")]))[0].max()
    assert classify(client, inputs="my bank is slow").json()["results"][0]["score"] == pytest.approx(expected, abs=1e-6)


def test_an_answer_does_not_depend_on_who_else_asks(client: httpx.Client) -> None:
    choose = random.Random(0)
    words = ["the", "bank", "my", "card", "is", "in", "post", "or", "lost", "change", "a", "pin", "number", "xyz"]
    texts = [" ".join(choose.choices(words, k=choose.randint(1, 50))) for _ in range(64)]

    def ask(some: list[str]) -> list[dict[str, Any]]:
        body = {"model": "banking-intents", "inputs": some}
        results: list[dict[str, Any]] = client.post("/v1/classify", json=body).json()["results"]
        return results

    alone = {text: ask([text])[0] for text in texts}
    crowds = [choose.sample(texts, 16) for _ in range(40)]
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        for crowd, results in zip(crowds, threads.map(ask, crowds), strict=True):
            for text, result in zip(crowd, results, strict=True):
                assert result["label"] == alone[text]["label"]
                assert result["score"] == pytest.approx(alone[text]["score"], abs=1e-4)


def test_a_text_longer_than_the_window_is_cut_and_says_so(client: httpx.Client) -> None:
    answer = classify(client, inputs=["good " * 500, "good"]).json()
    assert [result["truncated"] for result in answer["results"]] == [True, False]
    assert answer["usage"]["tokens"] == 64 + 3


def test_triage_names_sentiment_intent_and_whether_a_person_takes_over(client: httpx.Client) -> None:
    answer = client.post("/v1/triage", json={"inputs": ["awful my wallet is stolen", "great the pin change was fast"]})
    angry, happy = answer.json()["results"]
    assert (angry["sentiment"], angry["intent"]) == ("negative", "lost_or_stolen_card")
    assert angry["hand_to_person"]
    assert angry["reason"] in ("strong_anger", "listed_intent")
    assert (happy["sentiment"], happy["intent"], happy["reason"]) == ("positive", "change_pin", None)
    assert not happy["hand_to_person"]


def test_models_lists_labels_version_and_figures(client: httpx.Client, intent_bundle: Bundle) -> None:
    models = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert set(models) == {"sentiment", "banking-intents"}
    assert models["banking-intents"]["version"] == intent_bundle.version
    assert models["banking-intents"]["labels"] == list(intent_bundle.manifest.labels)
    assert models["banking-intents"]["figures"]["agreement"] == intent_bundle.manifest.figures.agreement


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"not json", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"model": "sentiment"}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": 5}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": null}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": []}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": ""}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": ["fine", " \\n"]}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": [["nested"]]}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": "x", "top_k": 0}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": "x", "top_k": "1"}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": "x", "topk": 1}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": "\xff\xfe"}', 400, "invalid_request"),
        (b'{"model": "sentiment", "inputs": "\\ud800"}', 400, "invalid_request"),
        (b"[" * 50_000, 400, "invalid_request"),
        (b'{"model": "nobody", "inputs": "x"}', 404, "model_not_found"),
        (b'{"model": "sentiment", "inputs": ["x"' + b', "x"' * 256 + b"]}", 413, "payload_too_large"),
        (b'{"model": "sentiment", "inputs": "' + b"x" * 1_100_000 + b'"}', 413, "payload_too_large"),
    ],
)  # fmt: skip
def test_bad_bodies_get_one_error_shape(client: httpx.Client, body: bytes, status: int, code: str) -> None:
    answer = client.post("/v1/classify", content=body, headers=JSON)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "retryable", "request_id"}
    assert error["code"] == code
    assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/nope", {}, 404, "not_found"),
        ("GET", "/v1/nope", {}, 404, "not_found"),
        ("GET", "/v1/classify", {}, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", {}, 405, "method_not_allowed"),
        ("POST", "/v1/classify", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ("POST", "/v1/classify", {}, 415, "unsupported_media_type"),
        ("POST", "/v1/classify", {**JSON, "content-encoding": "zstd"}, 415, "unsupported_encoding"),
        ("POST", "/v1/classify", {**JSON, "content-encoding": "gzip"}, 400, "invalid_request"),
        ("POST", "/v1/triage", {**JSON, "x-request-timeout-ms": "soon"}, 400, "invalid_request"),
    ],
)
def test_bad_requests_get_one_error_shape(
    client: httpx.Client, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.request(method, path, headers=headers, content=b'{"inputs": "x"}' if method == "POST" else None)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"]


def test_a_wrong_method_is_told_the_right_one(client: httpx.Client) -> None:
    assert client.get("/v1/classify").headers["allow"] == "POST"


def test_error_messages_say_where_and_what(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", json={"model": "sentiment", "inputs": ["fine", "", "fine"]})
    assert "inputs.1: is empty; send a text, or leave it out" in answer.json()["error"]["message"]
    answer = client.post("/v1/classify", json={"model": "sentiments", "inputs": "x"})
    assert "banking-intents, sentiment" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "text",
    ["\x00", "a\x00b", "😀" * 10_000, "x" * 900_000, "שלום עולם", "\u202eabc", "\ufeff", "\u200b", "़" * 1000],
)  # fmt: skip
def test_hostile_text_is_answered(client: httpx.Client, text: str) -> None:
    assert classify(client, inputs=text).status_code in (200, 400)


def test_a_deadline_is_kept(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/classify",
        json={"model": "sentiment", "inputs": ["good " * 60] * 256},
        headers={"X-Request-Timeout-Ms": "1"},
    )
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"


def test_probes_mean_it(client: httpx.Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_metrics_count_what_happened(client: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    ok = 'lathe_requests_total{code="ok",route="/v1/classify",status="200"}'
    bad = 'lathe_requests_total{code="invalid_request",route="/v1/classify",status="400"}'
    tokens = 'lathe_tokens_total{kind="text",model="sentiment",role="live"}'
    before = value(ok), value(bad), value(tokens)
    classify(client, inputs=["a b", "c"])
    classify(client, inputs="")
    assert (value(ok), value(bad), value(tokens)) == (before[0] + 1, before[1] + 1, before[2] + 7)
    assert value("lathe_model_info") == 2
    assert value("lathe_queue_texts") == 0


def test_openapi_lists_every_route_and_error(client: httpx.Client) -> None:
    document = client.get("/docs.json").json()
    assert set(document["paths"]) == {
        "/v1/classify", "/v1/triage", "/v1/mask", "/v1/usage", "/v1/models", "/metrics", "/livez", "/readyz",
        "/predict", "/",
        "/docs.json", "/docs", "/health", "/info", "/rerank", "/v2", "/v2/health/live", "/v2/health/ready",
        *(
            f"/v2/models/{{model}}{version}{path}"
            for version in ("", "/versions/{version}")
            for path in ("", "/ready", "/infer")
        ),
        *(f"/v1/models/{{name}}/{change}" for change in ("load", "promote", "drop", "rollback")),
    }  # fmt: skip
    assert set(document["paths"]["/v1/classify"]["post"]["responses"]) == {
        "200", "400", "401", "403", "404", "408", "413", "415", "429", "500", "503", "504",
    }  # fmt: skip
    assert "text/html" in client.get("/").headers["content-type"]


def test_the_page_of_the_api_loads_only_what_this_service_has(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.findall(r"[a-z]+://|[\"'(]//", page.text)  # no address of another host
    assert "validatorUrl: null" in page.text  # without it Swagger UI asks validator.swagger.io
    parts = re.findall(r"(?:href|src)=\"(?!data:)([^\"]+)\"", page.text)
    assert parts
    for part in [*parts, *re.findall(r"fetch\(\"([^\"]+)\"", page.text)]:
        assert client.get(f"/{part}").status_code == 200, part


def test_a_cache_gives_the_same_answers_and_says_how_many_it_had(
    live_service: LiveService, service_factory: ServiceFactory
) -> None:
    body = {"model": "sentiment", "inputs": ["a great app", "slow and broken", "a great app"]}
    uncached = httpx.post(f"{live_service.url}/v1/classify", json=body).json()
    with service_factory(LATHE_CACHE_BYTES="100000") as service:
        for _ in range(3):
            cached = httpx.post(f"{service.url}/v1/classify", json=body).json()
            assert cached["usage"] == uncached["usage"]
            for one, other in zip(cached["results"], uncached["results"], strict=True):
                assert (one["label"], one["score"]) == (other["label"], pytest.approx(other["score"], abs=1e-6))
        metrics = httpx.get(f"{service.url}/metrics").text
    for outcome, count in (("miss", 2), ("hit", 4), ("shared", 3)):
        assert f'lathe_cache_texts_total{{model="sentiment",outcome="{outcome}",role="live"}} {count}.0' in metrics


def _received(service: LiveService, request: bytes, pieces: int = 1) -> list[bytes]:
    """What comes on a new connection, as it comes."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(request)
        return [connection.recv(1 << 20) for _ in range(pieces)]


def _request(method: str, path: str, body: bytes = b"", headers: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n"
    return head.encode() + headers + b"\r\n" + body


def test_an_answer_comes_in_one_piece(live_service: LiveService) -> None:
    request = _request("POST", "/v1/classify", b'{"model": "sentiment", "inputs": "good"}')
    for _ in range(20):  # two pieces may be received as one by chance
        (answer,) = _received(live_service, request)
        assert answer.endswith(b"}")


def test_two_requests_in_one_piece_are_both_answered(live_service: LiveService) -> None:
    request = _request("POST", "/v1/classify", b'{"model": "sentiment", "inputs": "good"}')
    closing = _request("GET", "/livez", headers=b"connection: close\r\n")
    answers = b"".join(_received(live_service, request + closing, 10))  # to the end: the service closes
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_a_head_has_no_body_and_a_client_that_waits_to_be_asked_for_one_is_asked(live_service: LiveService) -> None:
    (head,) = _received(live_service, _request("HEAD", "/v1/models"))
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert head.endswith(b"\r\n\r\n")
    body = b'{"model": "sentiment", "inputs": "good"}'
    request = _request("POST", "/v1/classify", body, b"expect: 100-continue\r\n")
    (asked,) = _received(live_service, request[: -len(body)])
    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_without_keys_a_page_in_a_browser_can_ask_and_change_nothing(live_service: LiveService) -> None:
    with httpx.Client(base_url=live_service.url) as client:
        body = {"model": "sentiment", "inputs": "good"}
        rebound = {"Host": "evil.example:3000"}  # its page, on a name that resolves to 127.0.0.1
        for answer in (
            client.post("/v1/classify", json=body, headers=rebound),
            client.get("/v1/models", headers=rebound),
            client.get("/metrics", headers=rebound),
            client.post("/v1/models/sentiment/rollback", headers=rebound),
            client.post("/v1/models/sentiment/rollback", headers={"Origin": "https://evil.example"}),
            client.post("/v1/models/sentiment/promote", data={"a": "b"}, headers={"Origin": "null"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert client.post("/v1/models/sentiment/rollback").status_code == 409  # a program here; there is no version
        assert client.post("/v1/classify", json=body, headers={"Origin": live_service.url}).status_code == 200
        assert client.get("/readyz", headers=rebound).status_code == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/json", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
        ("text/plain;version=0.0.4, application/openmetrics-text;q=0.1", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "text/plain;q=0.1, application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("application/openmetrics-text;version=0.0.1, text/plain;q=0.5", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_metrics_are_written_as_the_client_asks(client: httpx.Client, accept: str | None, content_type: str) -> None:
    request = client.build_request("GET", "/metrics")
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    answer = client.send(request)
    assert answer.headers["content-type"] == content_type
    assert answer.text.endswith("# EOF\n") is content_type.startswith("application/")
    assert 'lathe_requests_total{code="ok"' in answer.text
