"""Bodies that are compressed: what is unpacked, how far, and what is no such body."""

import asyncio
import gzip
import tracemalloc
import zlib

import pytest

from service.access.caller import ANYBODY
from service.errors import InvalidRequest, UnsupportedEncoding
from service.http.body import read_body
from service.http.coding import coding_of, unpack
from service.http.messages import Message, Request
from service.settings import Settings

TEXT = b'{"inputs": "good"}' * 100
GZIPPED = gzip.compress(TEXT, mtime=0)  # the time would come into the names of the tests
MOST = 1_000_000


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (None, TEXT),
        ("identity", TEXT),
        ("gzip", GZIPPED),
        (" GZip ", GZIPPED),
        ("x-gzip", GZIPPED),
        ("deflate", zlib.compress(TEXT)),
    ],
)
def test_a_body_is_unpacked(header: str | None, body: bytes) -> None:
    assert unpack(coding_of(header), body, MOST) == TEXT


@pytest.mark.parametrize(
    ("header", "bomb"), [("gzip", gzip.compress(bytes(50_000_000))), ("deflate", zlib.compress(bytes(50_000_000)))]
)
def test_no_more_is_unpacked_than_may_come(header: str, bomb: bytes) -> None:
    assert len(unpack(header, bomb, 1000)) == 1000


@pytest.mark.parametrize(
    ("header", "body", "says"),
    [
        ("gzip", TEXT, "is not gzip"),
        ("gzip", zlib.compress(TEXT), "is not gzip"),
        ("deflate", GZIPPED, "is not deflate"),
        ("gzip", b"", "ends too early"),
        ("gzip", GZIPPED[:-1], "ends too early"),
        ("deflate", zlib.compress(TEXT)[:-1], "ends too early"),
        ("gzip", GZIPPED[:-8] + bytes(8), "is not gzip"),
        ("gzip", GZIPPED * 2, "something follows"),
        ("deflate", zlib.compress(TEXT) + b"x", "something follows"),
    ],
)
def test_what_is_not_what_it_says_is_refused(header: str, body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        unpack(header, body, MOST)


@pytest.mark.parametrize("header", ["zstd", "br", "gzip, gzip", "identity, gzip", "*"])
def test_other_codings_are_refused_with_what_is_taken(header: str) -> None:
    with pytest.raises(UnsupportedEncoding) as refusal:
        coding_of(header)
    assert refusal.value.headers == {"Accept-Encoding": "gzip, deflate"}


def test_of_a_body_that_is_not_complete_no_more_is_held_than_has_come() -> None:
    packer = zlib.compressobj(wbits=31)
    part = packer.compress(b" " * MOST) + packer.flush(zlib.Z_SYNC_FLUSH)
    held: list[int] = []

    async def receive() -> Message:
        held.append(tracemalloc.get_traced_memory()[0])
        body = part if len(held) == 1 else packer.flush()
        return {"type": "http.request", "body": body, "more_body": len(held) == 1}

    headers = {b"content-type": b"application/json", b"content-encoding": b"gzip"}
    tracemalloc.start()
    try:
        content = asyncio.run(read_body(Request("id", headers, receive, ANYBODY, {}), Settings()))
    finally:
        tracemalloc.stop()
    assert len(content) == MOST
    assert held[1] - held[0] < MOST / 10
