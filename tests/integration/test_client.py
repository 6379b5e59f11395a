"""`lathe.load` and the clients, against the real service."""

import asyncio
import contextlib
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import lathe
from compression.bundle import Bundle
from compression.errors import DataError
from service.access.keys import add_key
from tests.integration.conftest import LiveService, ServiceFactory

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent.parent
Answer = tuple[int, dict[str, str], bytes]  # status, headers, body
TEXTS = ["great happy app", "the bank is awful", "so it was good and bad today " * 30, "you", "lovely " * 9, "slow"]


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_loaded_bundle_gives_the_answers_of_the_service(
    calibrated: bool, live_service: LiveService, sentiment_bundle: Bundle
) -> None:
    classify = lathe.load(sentiment_bundle.path, batch_tokens=50)
    here = classify(TEXTS, top_k=None, calibrated=calibrated)
    with lathe.Client(live_service.url) as client:
        there = client.classify(TEXTS, "sentiment", top_k=None, calibrated=calibrated)
        assert client.classify("great", "sentiment") == classify("great")
    assert here == there
    assert [len(answer.scores) for answer in here] == [2] * len(TEXTS)
    assert list(classify("great")[0].scores) == ["positive"]
    with pytest.raises(DataError, match="top_k is 0; pass a whole number from 1 on, or None"):
        classify("great", top_k=0)
    assert [answer.truncated for answer in here] == [False, False, True, False, False, False]
    assert here[0].label == "positive"
    assert here[0].score == here[0].scores["positive"] > 0.5
    assert list(here[1].scores) == ["negative", "positive"]  # the most probable first


def test_a_text_alone_needs_no_list(live_service: LiveService, sentiment_bundle: Bundle) -> None:
    with lathe.Client(live_service.url) as client:
        answers = client.classify("great", "sentiment", top_k=2)
        assert answers == lathe.load(str(sentiment_bundle.path))("great", top_k=2)
        assert [one.intent for one in client.triage("great the card is in the post")] == ["card_arrival"]
        assert [one.sentiment for one in client.triage(["great", "awful"])] == ["positive", "negative"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [(" \n", "text 2 is empty"), (None, "text 2 is no text but NoneType"), ("\ud800", "text 2 is not valid Unicode")],
)
def test_what_is_no_text_is_named_by_its_place(text: str, reason: str, sentiment_bundle: Bundle) -> None:
    with pytest.raises(DataError, match=reason):
        lathe.load(sentiment_bundle.path)(["good", text])


def test_the_asynchronous_client_gives_the_same(live_service: LiveService) -> None:
    async def ask() -> list[list[lathe.Classification]]:
        async with lathe.AsyncClient(live_service.url) as client:
            assert (await client.triage("great"))[0].sentiment == "positive"
            return list(await asyncio.gather(*(client.classify(TEXTS, "sentiment") for _ in range(4))))

    with lathe.Client(live_service.url) as client:
        assert asyncio.run(ask()) == [client.classify(TEXTS, "sentiment")] * 4


def test_a_key_is_sent_and_failures_have_the_code_of_the_service(
    service_factory: ServiceFactory, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "shop")
    with service_factory(LATHE_KEYS_FILE=str(tmp_path / "keys.json")) as service:
        with lathe.Client(service.url, key) as client:
            assert client.classify("great", "sentiment")[0].label == "positive"
            with pytest.raises(lathe.RequestFailed, match="no model") as failure:
                client.classify("great", "nothing")
            assert (failure.value.code, failure.value.status) == ("model_not_found", 404)
            assert failure.value.request_id
        with lathe.Client(service.url, "lathe_wrong") as client, pytest.raises(lathe.RequestFailed) as failure:
            client.classify("great", "sentiment")
        assert (failure.value.code, failure.value.retryable) == ("unauthorized", False)


@dataclass
class Scripted:
    """A server whose answers are given: status, headers and body of each in turn, the last one again and again."""

    answers: list[Answer]
    times: list[float] = field(default_factory=list)  # when each request came
    timeouts_ms: list[int] = field(default_factory=list)  # what each had in X-Request-Timeout-Ms
    url: str = ""


@contextmanager
def scripted(*answers: Answer) -> Iterator[Scripted]:
    script = Scripted(list(answers))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            script.times.append(time.monotonic())
            script.timeouts_ms.append(int(self.headers["X-Request-Timeout-Ms"]))
            status, headers, body = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def failure(code: str, retryable: bool) -> bytes:
    return json.dumps({"error": {"code": code, "message": "m", "retryable": retryable, "request_id": "r"}}).encode()


GOOD: Answer = (
    200,
    {},
    b'{"results": [{"label": "a", "score": 1.0, "scores": {"a": 1.0}, "truncated": false, "new": 1}]}',
)
FULL: Answer = (429, {"Retry-After": "1"}, failure("overloaded", True))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_may_succeed_later_is_tried_again_when_the_service_says_so(kind: str) -> None:
    with scripted(FULL, (502, {}, b"<html>"), GOOD) as server:
        assert classify(kind, server.url).label == "a"
    first, second, third = server.times
    assert second - first >= 1.0  # Retry-After
    assert third - second >= 0.1  # and otherwise a pause
    assert server.timeouts_ms[0] > server.timeouts_ms[1] + 999  # the deadline is that of all attempts


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_cannot_succeed_or_has_no_time_is_not_tried_again(kind: str) -> None:
    with scripted((400, {}, failure("invalid_request", False)), GOOD) as server:
        with pytest.raises(lathe.RequestFailed, match="m") as raised:
            classify(kind, server.url)
        assert (raised.value.code, len(server.times)) == ("invalid_request", 1)
    with scripted((429, {"Retry-After": "60"}, failure("overloaded", True)), GOOD) as server:
        with pytest.raises(lathe.RequestFailed) as raised:
            classify(kind, server.url)
        assert (raised.value.code, len(server.times)) == ("overloaded", 1)
    with scripted((503, {}, failure("not_ready", True))) as server:
        with pytest.raises(lathe.RequestFailed) as raised:
            classify(kind, server.url, retries=2)
        assert (raised.value.code, len(server.times)) == ("not_ready", 3)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_service_that_is_not_there_is_a_failure_with_its_own_code(kind: str) -> None:
    with scripted(GOOD) as server:
        pass  # and is gone
    with pytest.raises(lathe.RequestFailed, match=r"http://127\.0\.0\.1:\d+ cannot be reached") as raised:
        classify(kind, server.url, retries=1)
    assert (raised.value.code, raised.value.status) == ("unreachable", None)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("body", [b"<html>", b"null", b"{}", b'{"results": []}', GOOD[2].replace(b"]", b", {}]")])
def test_a_success_that_is_no_answer_to_the_texts_is_a_failure(kind: str, body: bytes) -> None:
    with scripted((200, {}, body)) as server, pytest.raises(lathe.RequestFailed, match="check the address") as raised:
        classify(kind, server.url)
    assert (raised.value.code, raised.value.status, raised.value.retryable) == ("unknown", 200, False)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_answer_that_comes_byte_by_byte_has_no_more_time_than_any(kind: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(40):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.25)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    start = time.monotonic()
    try:
        with pytest.raises(lathe.RequestFailed) as raised:
            classify(kind, f"http://127.0.0.1:{server.server_port}", timeout_s=1)
    finally:
        server.shutdown()
        server.server_close()
    assert raised.value.code == "deadline_exceeded"
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_is_no_text_is_not_sent(kind: str) -> None:
    with scripted(GOOD) as server, pytest.raises(lathe.RequestFailed, match=r"inputs\[0\] holds half a surrogate pair"):
        classify(kind, server.url, text="\ud800")
    assert server.times == []


def classify(kind: str, url: str, retries: int = 3, timeout_s: float = 30, text: str = "text") -> lathe.Classification:
    async def ask() -> lathe.Classification:
        async with lathe.AsyncClient(url, timeout_s=timeout_s, retries=retries) as client:
            return (await client.classify(text, "a"))[0]

    if kind == "async":
        return asyncio.run(ask())
    with lathe.Client(url, timeout_s=timeout_s, retries=retries) as client:
        return client.classify(text, "a")[0]


def test_the_readme_in_python(
    live_service: LiveService, sentiment_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("README.md", "README.zh-CN.md"):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL)
        assert len(blocks) == 2
        for block in blocks:
            code = block.replace("bundles/mine", str(sentiment_bundle.path)).replace(
                "http://127.0.0.1:3000", live_service.url
            )
            exec(code, {})
            assert len(re.findall("^(?:negative|positive) 0.", capsys.readouterr().out, re.MULTILINE)) == 2
