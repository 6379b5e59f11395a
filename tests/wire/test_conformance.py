"""What the service makes of bytes: the rule that says so, and what h11, which is strict by design, makes of them."""

# ruff: noqa: E501  # one case is one line

import time
from dataclasses import dataclass, field

import h11
import pytest

from tests.wire.client import Client, counted

pytestmark = pytest.mark.integration

BODY = b'{"model": "sentiment", "inputs": "good"}'
JSON = b"Content-Type: application/json\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n" + JSON
SIZED = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """Bytes, and what becomes of them.

    Attributes:
        h11: how many requests h11 understands, then the status that it proposes, if it refuses the rest.
        ours: the statuses of our answers; an error's code in its place is looked for in the body.
        goes_on: whether another request is understood afterwards; otherwise the connection is closed.
    """

    name: str
    rule: str
    said: bytes
    h11: tuple[int, int | None]
    ours: list[int | str] = field(default_factory=list)
    goes_on: bool = True


def refused(name: str, rule: str, said: bytes, h11: tuple[int, int | None], code: str = "malformed_request") -> Case:
    return Case(name, rule, said, h11, [code], goes_on=False)


def get(*lines: bytes, first: bytes = b"GET /livez HTTP/1.1", host: bytes = b"Host: x") -> bytes:
    return b"\r\n".join([line for line in (first, host, *lines) if line]) + b"\r\n\r\n"


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
CASES = [
    Case("a GET", "9112 3", LIVE, (1, None), [200]),
    Case("a POST of known length", "9112 6.2", POST + SIZED + b"\r\n" + BODY, (1, None), [200]),
    Case("a POST in chunks", "9112 7.1", POST + CHUNKED + b"\r\n" + CHUNKS, (1, None), [200]),
    Case("chunked in capitals", "9110 10.1.4: case-insensitive", POST + CHUNKED.upper() + b"\r\n" + CHUNKS, (1, None), [200]),
    Case("requests in a row", "9112 9.3.2", LIVE + POST + SIZED + b"\r\n" + BODY + LIVE, (3, None), [200, 200, 200]),
    Case("a method that nobody knows", "9110 9.1", get(first=b"FOO /v1/classify HTTP/1.1"), (1, None), ["method_not_allowed"]),
    Case("empty lines before a request", "9112 2.2: SHOULD ignore", b"\r\n\r\n" + LIVE, (0, 400), [200]),
    Case("a URL as the target", "9112 3.2.2: MUST accept", get(first=b"GET http://x/livez HTTP/1.1"), (1, None), [200]),
    Case("a URL of another host than the header's", "9112 3.2.2: MUST ignore Host", get(first=b"GET http://evil.example/v1/models HTTP/1.1"), (1, None), ["forbidden"]),
    Case("a header of another host than the URL's", "9112 3.2.2: MUST ignore Host", get(first=b"GET http://x/v1/models HTTP/1.1", host=b"Host: evil.example"), (1, None), [200]),
    refused("a URL with a user", "9110 4.2.4: SHOULD treat as an error", get(first=b"GET http://me@x/livez HTTP/1.1"), (1, None)),
    Case("the target *", "9112 3.2.4", get(first=b"OPTIONS * HTTP/1.1"), (1, None), ["not_found"]),
    Case("HTTP/1.0 without Host", "9112 9.3: closes", get(first=b"GET /livez HTTP/1.0", host=b""), (1, None), [200], False),
    Case("Connection: close", "9112 9.6", get(b"Connection: foo, Close"), (1, None), [200], False),
    # An upgrade that is not taken: 9110 7.8, a server MAY ignore it; then the request is as if it was not there.
    Case("h2c with GET", "9110 7.8", get(*H2C.split(b"\r\n")), (1, None), [200]),
    Case("h2c with POST", "9110 7.8", POST + H2C + SIZED + b"\r\n" + BODY, (1, None), [200]),
    Case("h2c with chunks", "9110 7.8", POST + H2C + CHUNKED + b"\r\n" + CHUNKS, (1, None), [200]),
    Case("h2c, then another", "9110 7.8", POST + H2C + SIZED + b"\r\n" + BODY + LIVE, (2, None), [200, 200]),
    Case("websocket", "9110 7.8", get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Version: 13"), (1, None), [200]),
    Case("h2c, to nowhere", "9110 7.8", POST.replace(b"classify", b"nope") + H2C + SIZED + b"\r\n" + BODY, (1, None), ["not_found"]),
    Case("h2c, a body that is refused unread", "9110 7.8", POST.replace(b"json", b"text") + H2C + SIZED + b"\r\n" + BODY, (1, None), ["unsupported_media_type"]),
    Case("h2c, a body that is a request", "9110 7.8", POST + H2C + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, (1, None), ["invalid_request"]),
    # Host: 9112 3.2, a server MUST answer 400.
    refused("no Host", "9112 3.2", get(host=b""), (0, 400)),
    refused("two of it", "9112 3.2", get(b"Host: x"), (0, 400)),
    refused("two, of 1.0", "9112 3.2", get(b"Host: y", first=b"GET /livez HTTP/1.0"), (0, 400)),
    refused("no host at all", "9112 3.2", get(host=b"Host: x/y z"), (1, None)),
    # How long a body is: 9112 6.1 and 6.3.
    refused("two lengths", "9112 6.3.5", POST + SIZED + b"Content-Length: 1\r\n\r\n" + BODY, (0, 400)),
    refused("the same length twice", "9112 6.3.5: MAY reject", POST + SIZED + SIZED + b"\r\n" + BODY, (1, None)),
    refused("a list of lengths", "9112 6.3.5: MAY reject", POST + b"Content-Length: 40, 40\r\n\r\n" + BODY, (1, None)),
    refused("a signed length", "9110 8.6", POST + b"Content-Length: +40\r\n\r\n" + BODY, (0, 400)),
    refused("a hexadecimal length", "9110 8.6", POST + b"Content-Length: 0x28\r\n\r\n" + BODY, (0, 400)),
    refused("an empty length", "9110 8.6", POST + b"Content-Length:\r\n\r\n" + BODY, (0, 400)),
    refused("a length of 30 digits", "9110 8.6", POST + b"Content-Length: " + b"0" * 28 + b"40\r\n\r\n" + BODY, (0, 400)),
    refused("length and chunks", "9112 6.1: ought to be an error", POST + SIZED + CHUNKED + b"\r\n" + CHUNKS, (1, None)),
    refused("chunks of 1.0", "9112 6.1: MUST be faulty", get(b"Transfer-Encoding: chunked", first=b"POST /livez HTTP/1.0"), (1, None)),
    refused("a coding, then chunked", "9112 6.1: 501", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS, (0, 501), "unsupported_transfer"),
    refused("a coding on a line of its own", "9112 6.1: 501", POST + b"Transfer-Encoding: x\r\n" + CHUNKED + b"\r\n" + CHUNKS, (0, 501), "unsupported_transfer"),
    refused("chunked not last", "9112 6.3.4: 400", POST + b"Transfer-Encoding: chunked, x\r\n\r\n" + CHUNKS, (0, 501)),
    refused("chunked twice", "9112 6.1: MUST NOT", POST + CHUNKED + CHUNKED + b"\r\n" + CHUNKS, (0, 501)),
    refused("identity", "9112 6.1", POST + b"Transfer-Encoding: identity\r\n\r\n" + BODY, (0, 501)),
    refused("an empty coding", "9112 6.1", POST + b"Transfer-Encoding:\r\n\r\n" + BODY, (0, 501)),
    refused("chunked with a tail", "9112 6.1", POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + CHUNKS, (0, 501)),
    # Lines: 9112 2.2 and 5.
    refused("a line feed alone", "9112 2.2: MAY take it as an end", LIVE.replace(b"\r\n", b"\n"), (1, None)),
    refused("one line feed alone", "9112 2.2", b"GET /livez HTTP/1.1\nHost: x\r\n\r\n", (1, None)),
    refused("a carriage return alone", "9112 2.2: MUST be invalid", get(b"A: b\rc"), (0, 400)),
    refused("a folded line", "9112 5.2: MUST reject or replace", get(b"A: b", b" c"), (1, None)),
    refused("a space before the colon", "9112 5.1: MUST reject", get(b"A : b"), (0, 400)),
    refused("a header without a name", "9112 5.1", get(b": b"), (0, 400)),
    refused("a header without a colon", "9112 5", get(b"A"), (0, 400)),
    refused("a NUL", "9110 5.5: MUST reject or replace", get(b"A: \0"), (0, 400)),
    refused("a space before the first header", "9112 2.2", b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n", (0, 400)),
    refused("two spaces in the first line", "9112 3: SHOULD answer 400", get(first=b"GET  /livez HTTP/1.1"), (0, 400)),
    refused("a space in the target", "9112 3.2", get(first=b"GET /li vez HTTP/1.1"), (0, 400)),
    refused("a target that is no path", "9112 3.2", get(first=b"GET livez HTTP/1.1"), (1, None)),
    refused("a byte that is no ASCII in the target", "9112 3.2", get(first=b"GET /\xff HTTP/1.1"), (0, 400)),
    refused("small letters", "9112 2.3: case-sensitive", get(first=b"GET /livez http/1.1"), (0, 400)),
    refused("no version", "9112 3", get(first=b"GET /livez"), (0, 400)),
    refused("TLS", "9112 3", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", (0, 400)),
    refused("HTTP/2", "9110 15.6.6", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (1, 400), "http_version_not_supported"),
    refused("CONNECT", "9110 9.3.6: no proxy", b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", (1, None), "unsupported_transfer"),
    # Chunks: 9112 7.1.
    Case("an extension", "9112 7.1.1: MUST ignore", POST + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b";a=b\r\n", 1), (1, None), [200]),
    Case("trailers", "9112 7.1.2", POST + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"Content-Length: 5\r\nA: b\r\n\r\n", (1, None), [200]),
    refused("a size that is no number", "9112 7.1", POST + CHUNKED + b"\r\nxyz\r\n", (1, 400)),
    refused("a signed size", "9112 7.1", POST + CHUNKED + b"\r\n+28\r\n", (1, 400)),
    refused("a size of 20 digits", "9112 7.1: MUST prevent overflow", POST + CHUNKED + b"\r\n" + b"f" * 21 + b"\r\n", (1, 400)),
    refused("a chunk that is too long", "9112 7.1", POST + CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n", (1, 400)),
    refused("a size that ends in a line feed", "9112 7.1", POST + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b"\n", 1), (1, 400)),
    refused("a trailer that is none", "9112 7.1.2", POST + CHUNKED + b"\r\n0\r\nA : b\r\n\r\n", (1, 400)),
]  # fmt: skip


def by_h11(said: bytes) -> tuple[int, int | None]:
    """How many requests h11 finds, and the status that it would answer the rest with."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(said)
    requests = 0
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return requests, None
            if isinstance(event, h11.Request):
                requests += 1
            if isinstance(event, h11.EndOfMessage):
                connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return requests, None
                connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return requests, error.error_status_hint


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("pieces", ["at once", "in pieces"])
def test_bytes_are_understood_as_the_rule_says(wire: Client, case: Case, pieces: str) -> None:
    assert by_h11(case.said) == case.h11
    said = case.said
    third = max(1, len(said) // 3)
    wire.say(*([said] if pieces == "at once" else [said[:third], said[third : 2 * third], said[2 * third :]]))
    for expected in case.ours:
        answer = wire.answer()
        assert (answer.status if isinstance(expected, int) else answer.code) == expected, answer
        assert answer.headers["x-request-id"]
    assert wire.in_step() if case.goes_on else wire.closed()


def test_each_byte_may_come_alone(wire: Client) -> None:
    said = POST + H2C + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"A: b\r\n\r\n"
    for at in range(len(said)):
        wire.socket.sendall(said[at : at + 1])
    assert wire.answer().status == 200
    assert wire.in_step()


def test_what_is_no_request_is_counted(wire: Client) -> None:
    names = (
        'lathe_requests_total{code="malformed_request",route="other",status="400"}',
        'lathe_connections_closed_total{reason="refused"}',
    )
    before = [counted(wire, name) for name in names]
    with Client(*wire.socket.getpeername()) as other:
        other.say(b"no request\r\n\r\n")
        assert other.answer().status == 400
        assert other.closed()
    time.sleep(0.1)  # it sees that we have closed, too
    assert [counted(wire, name) for name in names] == [count + 1 for count in before]
    assert counted(wire, 'lathe_connections{state="waiting"}') == 1  # this one
