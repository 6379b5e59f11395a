"""Clients of other servers, as their packages have them, against the real service."""

import re
import struct
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

import httpx
import huggingface_hub
import numpy as np
import numpy.typing as npt
import orjson
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from tritonclient.utils import InferenceServerException

from compression.bundle import Bundle, Runtime, softmax
from service.access.keys import add_key
from tests.integration.conftest import LiveService, ServiceFactory
from tests.wire.client import Client

pytestmark = pytest.mark.integration

TEXTS = ["a great and lovely service", "awful 😀", "my bank is slow"]


def probabilities(bundle: Bundle) -> npt.NDArray[np.float64]:
    """Of the labels for TEXTS, each text alone: (texts, labels)."""
    runtime = Runtime.of(bundle)
    return softmax(np.concatenate([runtime.logits([runtime.encode(text)]) for text in TEXTS]))


@pytest.fixture
def tritons(live_service: LiveService) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(urlsplit(live_service.url).netloc) as client:
        yield client


def tensor(texts: list[str], binary: bool = True, shape: tuple[int, ...] | None = None) -> triton.InferInput:
    array = np.array([text.encode() for text in texts], object).reshape(shape or (len(texts),))
    given = triton.InferInput("text", list(array.shape), "BYTES")
    given.set_data_from_numpy(array, binary_data=binary)
    return given


@pytest.mark.parametrize("absent", [None, []])
def test_what_is_null_is_as_if_it_were_absent(live_service: LiveService, absent: object) -> None:
    one = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}
    url = f"{live_service.url}/v2/models/sentiment/infer"
    expected = httpx.post(url, json={"inputs": [one]}).json()
    assert [output["name"] for output in expected["outputs"]] == ["label", "scores"]
    given = {"inputs": [{**one, "parameters": None}], "outputs": absent, "parameters": None, "id": None}
    assert httpx.post(url, json=given).json() == expected
    named = {"inputs": [one], "outputs": [{"name": "label", "parameters": None}]}
    assert httpx.post(url, json=named).json()["outputs"] == expected["outputs"][:1]


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_triton_s_client_gets_labels_and_scores(
    tritons: triton.InferenceServerClient, sentiment_bundle: Bundle,
    binary_input: bool, binary_output: bool, shape: tuple[int, ...],
) -> None:  # fmt: skip
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_output) for name in ("scores", "label")]
    answer = tritons.infer("sentiment", [tensor(TEXTS, binary_input, shape)], outputs=outputs, request_id="seven")
    expected = probabilities(sentiment_bundle)
    assert answer.as_numpy("scores") == pytest.approx(expected, abs=1e-4)
    assert answer.as_numpy("scores").dtype == np.float32
    labels = [label.decode() if binary_output else label for label in answer.as_numpy("label").tolist()]
    assert labels == [sentiment_bundle.manifest.labels[index] for index in expected.argmax(axis=1)]
    assert answer.get_response()["id"] == "seven"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_may_compress(tritons: triton.InferenceServerClient, compression: str, binary: bool) -> None:
    plain = tritons.infer("sentiment", [tensor(TEXTS, binary)])
    answer = tritons.infer("sentiment", [tensor(TEXTS, binary)], request_compression_algorithm=compression)
    assert answer.as_numpy("scores").tolist() == plain.as_numpy("scores").tolist()


def test_triton_s_client_gets_every_output_when_it_names_none(tritons: triton.InferenceServerClient) -> None:
    answer = tritons.infer("banking-intents", [tensor(["lost my wallet"])])
    assert answer.as_numpy("label").tolist() == [b"lost_or_stolen_card"]
    assert answer.as_numpy("scores").shape == (1, 3)


def test_triton_s_client_learns_what_there_is(tritons: triton.InferenceServerClient, sentiment_bundle: Bundle) -> None:
    assert tritons.is_server_live()
    assert tritons.is_server_ready()
    assert "binary_tensor_data" in tritons.get_server_metadata()["extensions"]
    metadata = tritons.get_model_metadata("sentiment")
    assert metadata["versions"] == [sentiment_bundle.version]
    assert [(one["name"], one["datatype"]) for one in metadata["inputs"]] == [("text", "BYTES")]
    label, scores = metadata["outputs"]
    assert (label["name"], scores["name"], scores["shape"]) == ("label", "scores", [-1, 2])
    assert scores["parameters"]["labels"] == list(sentiment_bundle.manifest.labels)
    assert tritons.is_model_ready("sentiment", sentiment_bundle.version)
    assert not tritons.is_model_ready("sentiment", "2")
    assert not tritons.is_model_ready("nobody")


def test_a_version_can_be_asked_for(tritons: triton.InferenceServerClient, sentiment_bundle: Bundle) -> None:
    answer = tritons.infer("sentiment", [tensor(TEXTS)], model_version=sentiment_bundle.version)
    assert answer.get_response()["model_version"] == sentiment_bundle.version
    with pytest.raises(InferenceServerException, match="no version '2'"):
        tritons.infer("sentiment", [tensor(TEXTS)], model_version="2")


def test_triton_s_client_can_read_the_errors(tritons: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="there is banking-intents, sentiment") as error:
        tritons.infer("nobody", [tensor(TEXTS)])
    assert error.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"inputs\.0\.data\.1: is empty; send a text"):
        tritons.infer("sentiment", [tensor(["fine", " "])])
    with pytest.raises(InferenceServerException, match="at most 256") as error:
        tritons.infer("sentiment", [tensor(["fine"] * 257)])
    assert error.value.status() == "413"
    with pytest.raises(InferenceServerException, match="milliseconds above 0"):
        tritons.infer("sentiment", [tensor(TEXTS)], headers={"X-Request-Timeout-Ms": "0"})


def test_what_triton_alone_offers_is_an_error_that_its_client_can_read(tritons: triton.InferenceServerClient) -> None:
    for ask in (
        partial(tritons.get_model_config, "sentiment"), partial(tritons.get_inference_statistics, "sentiment"),
        tritons.get_inference_statistics, tritons.get_model_repository_index, partial(tritons.load_model, "sentiment"),
        partial(tritons.unload_model, "sentiment"), tritons.get_trace_settings, tritons.get_log_settings,
        partial(tritons.update_log_settings, {}), tritons.get_system_shared_memory_status,
    ):  # fmt: skip
        with pytest.raises(InferenceServerException, match=r"no such path|no model named 'stats'") as error:
            ask()
        assert error.value.status() == "404"


OPEN_INFERENCE = [
    "/v2", "/v2/", "/v2/nothing", "/v2/health", "/v2/health/live", "/v2/models", "/v2/models/sentiment",
    "/v2/models/sentiment/infer", "/v2/models/sentiment/infer/", "/v2/models/nobody/ready", "/v2/repository/index",
]  # fmt: skip
ERROR_KEYS = {
    **{path: {"error"} for path in OPEN_INFERENCE},
    **{path: {"error", "error_type"} for path in ("/predict", "/", "/health", "/info")},
}
GARBLED = [
    b"POST %s HTTP/1.1\r\n\r\n", b"POST %s?a=b HTTP/3\r\n\r\n",
    b"POST %s HTTP/1.1\r\nHost: x\r\n" + 101 * b"A: b\r\n" + b"\r\n",
    b"POST %s HTTP/1.1\r\nHost: x\r\nA: " + 70000 * b"b", b"POST %s?" + 9000 * b"a", b"POST %s HTTP/1.1\nHost: x\n\n",
    b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: zip, chunked\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("path", ERROR_KEYS)
def test_every_error_of_a_dialect_is_in_its_shape(live_service: LiveService, client: httpx.Client, path: str) -> None:
    def check(status: int, body: bytes) -> None:
        if status >= 400:
            error = orjson.loads(body)
            assert set(error) == ERROR_KEYS[path]
            assert isinstance(error["error"], str)

    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = client.request(method, path)
        check(answer.status_code, answer.content)
        assert answer.status_code in (404, 405)
    for headers in ({}, {"Host": "evil.example"}, {"X-Request-Timeout-Ms": "0"}, {"Content-Type": "text/csv"}):
        answer = client.post(path, content=b"{" * 2_000_000, headers=headers)
        check(answer.status_code, answer.content)
        assert answer.status_code >= 400
    address = urlsplit(live_service.url)
    assert address.hostname is not None
    assert address.port is not None
    for request in GARBLED:
        with Client(address.hostname, address.port) as raw:
            raw.say(request % path.encode())
            refused = raw.answer()
            check(refused.status, refused.body)
            assert refused.status >= 400


@pytest.mark.parametrize(
    ("binary", "says"),
    [
        (struct.pack("<I", 9) + b"good", "ends within the text"),
        (b"\x01\x00", "ends within the text"),
        (struct.pack("<I", 2) + b"\xff\xfe", "not UTF-8"),
        (b"", "does not fit 0 texts"),
        (struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b", "does not fit 2 texts"),
    ],
)
def test_broken_binary_tensors_are_refused(client: httpx.Client, binary: bytes, says: str) -> None:
    header = (
        b'{"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": %d}}]}'
        % len(binary)
    )
    answer = client.post(
        "/v2/models/sentiment/infer",
        content=header + binary,
        headers={"Inference-Header-Content-Length": str(len(header))},
    )
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"[" * 50_000, b'{"inputs": []}', b'{"inputs": [{"name": "t", "datatype": "FP32", "shape": [1]}]}',
        b'{"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1]}]}',
        b'{"inputs": [{"name": "t", "datatype": "BYTES", "shape": [-1, -1], "data": ["x"]}]}',
        b'{"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1], "data": ["x"]}], "outputs": [{"name": "y"}]}',
        b'{"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}',
    ],
)  # fmt: skip
def test_bad_inference_requests_are_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v2/models/sentiment/infer", content=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("value", ["-1", "x", "9" * 5000, "99"])
def test_a_json_that_is_longer_than_the_body_is_refused(client: httpx.Client, value: str) -> None:
    headers = {"Inference-Header-Content-Length": value}
    assert client.post("/v2/models/sentiment/infer", content=b"{}", headers=headers).status_code == 400


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets huggingface_hub's client talk to the service where the environment keeps it from the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield
    monkeypatch.undo()
    huggingface_hub.close_session()


@pytest.mark.usefixtures("online")
def test_hugging_face_s_client_gets_every_label(live_service: LiveService, sentiment_bundle: Bundle) -> None:
    client = InferenceClient(base_url=live_service.url)
    for text, expected in zip(TEXTS, probabilities(sentiment_bundle), strict=True):
        answer = client.text_classification(text)
        assert [element.score for element in answer] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
        assert answer[0].label == sentiment_bundle.manifest.labels[expected.argmax()]
    assert len(client.text_classification(TEXTS[0], top_k=1)) == 1
    logits = client.text_classification(TEXTS[0], function_to_apply="none")
    assert softmax(np.array([[element.score for element in logits]]))[0].max() == pytest.approx(
        probabilities(sentiment_bundle)[0].max(), abs=1e-4
    )


@pytest.mark.usefixtures("online")
def test_hugging_face_s_client_can_read_the_errors(live_service: LiveService) -> None:
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="inputs: is empty; send a text"):
        InferenceClient(base_url=live_service.url).text_classification(" ")


def predict(client: httpx.Client, **body: object) -> httpx.Response:
    return client.post("/predict", json=body)


def test_predict_answers_one_text_with_a_list_and_several_with_lists(
    client: httpx.Client, sentiment_bundle: Bundle
) -> None:
    one = predict(client, inputs=TEXTS[0], truncate=True).json()
    assert {element["label"] for element in one} == set(sentiment_bundle.manifest.labels)
    assert one[0]["score"] > one[1]["score"]
    assert predict(client, inputs=[TEXTS[0]]).json() == one
    several = predict(client, inputs=[[text] for text in TEXTS]).json()
    assert [element[0]["score"] for element in several] == pytest.approx(
        probabilities(sentiment_bundle).max(axis=1), abs=1e-4
    )
    assert len(predict(client, inputs=[[TEXTS[0]]]).json()[0]) == 2


def test_raw_scores_are_logits(client: httpx.Client, sentiment_bundle: Bundle) -> None:
    runtime = Runtime.of(sentiment_bundle)
    expected = sorted(runtime.logits([runtime.encode(TEXTS[0])])[0].tolist(), reverse=True)
    answer = predict(client, inputs=TEXTS[0], raw_scores=True).json()
    assert [element["score"] for element in answer] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "inputs: is missing"),
        ({"inputs": ["one", "two"]}, 400, "is a pair, and 'sentiment' reads single texts; send [["),
        ({"inputs": [["one"], ["two", "three"]]}, 400, "inputs.1: is a pair, and"),
        ({"inputs": []}, 400, "inputs: is empty"),
        ({"inputs": [[]]}, 400, "inputs.0: is empty"),
        ({"inputs": 5}, 400, "send a text"),
        ({"inputs": [["fine"]] * 257}, 413, "at most 256"),
        ({"inputs": "good " * 500, "truncate": False}, 413, "more than 64 tokens"),
        ({"inputs": "x", "truncation_direction": "Left"}, 400, "truncation_direction"),
    ],
)
def test_predict_refuses_in_its_own_shape(client: httpx.Client, body: object, status: int, says: str) -> None:
    answer = client.post("/predict", json=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert answer.json()["error_type"] == "Validation"


@pytest.mark.usefixtures("online")
def test_hugging_face_s_client_learns_what_there_is(live_service: LiveService, sentiment_bundle: Bundle) -> None:
    client = InferenceClient(live_service.url, provider="hf-inference")
    assert client.health_check()
    info = client.get_endpoint_info()
    labels = sentiment_bundle.manifest.labels
    assert info["model_id"] == "sentiment"
    assert info["model_sha"] == sentiment_bundle.version
    assert info["model_dtype"] == "int8"
    assert info["model_type"]["classifier"]["id2label"] == {"0": labels[0], "1": labels[1]}
    assert info["model_type"]["classifier"]["label2id"] == {labels[0]: 0, labels[1]: 1}
    assert info["max_input_length"] == sentiment_bundle.manifest.max_length == 64
    assert info["max_client_batch_size"] == 256
    assert info["tokenization_workers"] >= 1
    assert set(info) == {  # of text-embeddings-inference 1.8
        "model_id", "model_sha", "model_dtype", "model_type", "max_concurrent_requests", "max_input_length",
        "max_batch_tokens", "max_batch_requests", "max_client_batch_size", "auto_truncate", "tokenization_workers",
        "version", "sha", "docker_label",
    }  # fmt: skip
    assert httpx.get(f"{live_service.url}/health").content == b""


def test_the_page_at_the_root_stays(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "fetch(path, {" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in re.findall(
        r'ask\("([^"]+)"\)|href="(?!data:)([^"]+)"', page.text
    ):  # relative, as behind a proxy's prefix
        assert client.get("".join(path)).status_code == 200


def test_the_model_that_predict_asks_can_be_chosen(service_factory: ServiceFactory) -> None:
    with service_factory(LATHE_PREDICT_MODEL="banking-intents") as service:
        answer = httpx.post(f"{service.url}/predict", json={"inputs": "lost my wallet"})
        assert answer.json()[0]["label"] == "lost_or_stolen_card"
        assert httpx.get(f"{service.url}/info").json()["model_id"] == "banking-intents"


def test_dialects_need_a_key_as_everything_does(
    service_factory: ServiceFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    key = add_key(file, "shop")
    with service_factory(LATHE_KEYS_FILE=str(file)) as service, httpx.Client(base_url=service.url) as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/health"):
            assert client.get(path).status_code == 200
        assert set(client.get("/info").json()) == {"error", "error_type"}
        for path in ("/v2", "/v2/models/sentiment", "/v2/models/sentiment/ready", "/v2/models/sentiment/config"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert answer.json() == {"error": "no key: send the header Authorization: Bearer KEY"}
        for path in ("/", "/predict", "/v2/models/sentiment/infer"):
            answer = client.post(path, json={"inputs": "good"})
            assert answer.status_code == 401
            assert answer.json()["error"] == "no key: send the header Authorization: Bearer KEY"
        headers = {"Authorization": f"Bearer {key}"}
        assert client.post("/predict", json={"inputs": "good"}, headers=headers).status_code == 200
