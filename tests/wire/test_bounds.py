"""What one client can make the service take, keep, or wait for."""

import contextlib
import itertools
import time
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]
import pytest

from tests.integration.conftest import LiveService
from tests.wire.client import Client, counted
from tests.wire.conftest import DESCRIPTORS, QUEUE_BYTES
from tests.wire.test_conformance import BODY, CHUNKED, JSON, LIVE, POST, SIZED

pytestmark = pytest.mark.integration

MB = 1_000_000
FIRST = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
LONG = LIVE.replace(b"livez", b"docs.json")  # its answer
NOWHERE = b"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + JSON


@contextlib.contextmanager
def flat_memory(service: LiveService, most: int) -> Iterator[None]:
    """Fails where the service has grown by more bytes than that."""

    def memory() -> int:
        processes = [psutil.Process(service.process.pid)]
        processes += processes[0].children(recursive=True)
        return sum(int(process.memory_info().rss) for process in processes)

    before = memory()
    yield
    assert memory() - before < most


@pytest.mark.parametrize(
    ("begin", "again", "code"),
    [
        (b"GET /", b"x", "uri_too_long"),
        (b"GET /livez?", b"x=%20&", "uri_too_long"),
        (b"GET http://x/", b"x", "uri_too_long"),
        (b"G", b"E", "uri_too_long"),
        (FIRST, b"A: b\r\n", "headers_too_large"),
        (FIRST + b"A: ", b"b", "headers_too_large"),
        (FIRST, b"a", "headers_too_large"),
        (POST + CHUNKED + b"\r\n0\r\n", b"A: b\r\n", "headers_too_large"),
        (POST + CHUNKED + b"\r\n0\r\nA: ", b"b", "headers_too_large"),
        (POST + CHUNKED + b"\r\n", b"1\r\n \r\n", "payload_too_large"),
        (POST + CHUNKED + b"\r\n5;", b"a", "payload_too_large"),
        (POST + CHUNKED + b"\r\n", b"1;" + b"a" * 100 + b"\r\n \r\n", "payload_too_large"),
        (POST + CHUNKED + b"\r\n", b"0" * 8, "payload_too_large"),
        (POST + CHUNKED + b"\r\n", b"8000\r\n" + b" " * 32768 + b"\r\n", "payload_too_large"),
        (POST + b"Content-Length: 9000000000\r\n\r\n", b" " * 65536, "payload_too_large"),
        (NOWHERE + b"Content-Length: 9000000000\r\n\r\n", b" " * 65536, "not_found"),
    ],
)
def test_what_has_no_end_is_answered_and_closed(
    wire: Client, wire_service: LiveService, begin: bytes, again: bytes, code: str
) -> None:
    with flat_memory(wire_service, 20 * MB):
        wire.say(begin)
        sent = wire.flood(again * (65536 // len(again)), 64 * MB)
    assert sent < 64 * MB  # most of it in the kernel's buffers
    with contextlib.suppress(ConnectionResetError):  # a client that does not listen loses the answer
        assert wire.answer().code == code
        assert wire.closed()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 8192), "uri_too_long"),
        (FIRST + b"".join(b"A%d: b\r\n" % n for n in range(100)) + b"\r\n", "headers_too_large"),
        (FIRST + b"A: %s\r\n\r\n" % (b"b" * 65536), "headers_too_large"),
    ],
)
def test_a_head_that_is_too_large_is_answered(wire: Client, said: bytes, code: str) -> None:
    wire.say(said)
    assert wire.answer().code == code
    assert wire.closed()


@pytest.mark.parametrize(
    "said",
    [
        b"GET /livez?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 8100),
        FIRST + b"".join(b"A%d: b\r\n" % n for n in range(99)) + b"\r\n",
        FIRST + b"A: %s\r\n\r\n" % (b"b" * 65000),
    ],
)
def test_a_head_within_the_bounds_is_understood(wire: Client, said: bytes) -> None:
    wire.say(said)
    assert wire.answer().status == 200
    assert wire.in_step()


def test_small_chunks_are_understood(wire: Client) -> None:
    wire.say(POST + CHUNKED + b"\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n")
    assert wire.answer().status == 200
    assert wire.in_step()


@pytest.mark.parametrize("length", [0, 100_000, 1_000_000])
def test_a_body_that_is_refused_and_not_too_long_is_passed_over(wire: Client, length: int) -> None:
    wire.say(NOWHERE + b"Content-Length: %d\r\n\r\n" % length)
    assert wire.answer().code == "not_found"
    wire.say(b" " * length)
    assert wire.in_step()


def test_of_bodies_without_an_end_the_longest_on_its_way_makes_room(wire: Client, wire_service: LiveService) -> None:
    begun = POST + b"Content-Length: 1000000\r\n\r\n" + BODY + b" " * (900_000 - len(BODY))
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(Client(*wire.socket.getpeername())) for _ in range(QUEUE_BYTES // 900_000)]
        for client in (wire, *others):  # one more than there is room for
            client.say(begun)
            time.sleep(0.1)
        assert wire.answer().code == "overloaded"
        assert wire.closed()
        for client in others:
            client.say(b" " * 100_000)
            assert client.answer().status == 200
        for _ in range(2):  # what has ended counts no more
            for client in others:
                client.say(begun, b" " * 100_000)
                assert client.answer().status == 200


def test_requests_wait_in_the_network_while_answers_are_not_fetched(wire: Client, wire_service: LiveService) -> None:
    def timed_out() -> float:
        with Client(*wire.socket.getpeername()) as other:
            return counted(other, 'lathe_connections_closed_total{reason="timeout"}')

    before = timed_out()
    address = wire.socket.getpeername()
    with flat_memory(wire_service, 20 * MB), Client(*address, receive_bytes=4096) as deaf:
        assert deaf.flood(LONG * 1000, 64 * MB) < 64 * MB
        deadline = time.monotonic() + 10
        while timed_out() == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_requests_in_a_row_are_answered_one_after_the_other(wire: Client) -> None:
    wire.say((LIVE + POST + SIZED + b"\r\n" + BODY) * 100)
    assert [wire.answer().status for _ in range(200)] == [200] * 200
    assert wire.in_step()


@pytest.mark.parametrize(
    ("said", "again"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (LIVE, b"\r\n"),
        (b"\r", b""),
        (NOWHERE + b"Content-Length: 100\r\n\r\n", b" "),
        (NOWHERE + b"Content-Length: 100\r\n\r\n", b""),
        (NOWHERE + CHUNKED + b"\r\n", b"1\r\n \r\n"),
        (FIRST, b"A: b\r\n"),
        (FIRST, b""),
        (POST + SIZED + b"\r\n", b" "),
        (POST + SIZED + b"Expect: 100-continue\r\n\r\n", b""),
        (b"no request\r\n\r\n", b" "),
    ],
    ids=repr,
)
def test_nobody_keeps_a_connection_with_a_byte_now_and_then(wire: Client, said: bytes, again: bytes) -> None:
    wire.say(said)
    wire.socket.settimeout(0.25)
    for _ in range(40):
        try:
            if not wire.socket.recv(65536):
                return
            wire.socket.sendall(again)
        except TimeoutError:
            with contextlib.suppress(ConnectionError):
                wire.socket.sendall(again)
        except ConnectionError:
            return
    pytest.fail("it is still open")


def test_idle_connections_make_room_for_others(wire: Client, wire_service: LiveService) -> None:
    address = wire.socket.getpeername()
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(Client(*address))
        busy.say((POST + SIZED + b"\r\n" + BODY)[:-1])
        for number in itertools.count():
            other = stack.enter_context(Client(*address))
            if number % 3 == 1:
                other.say(FIRST)
            if number % 3 == 2:
                assert other.in_step()
            if number > DESCRIPTORS + 20:
                break
        busy.say(BODY[-1:])
        assert busy.answer().status == 200
        assert counted(busy, 'lathe_connections_closed_total{reason="full"}') > 20
    assert wire_service.log.read_text().count("there is no room for more than") in (1, 2)
