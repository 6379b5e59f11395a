"""Bodies that are compressed: what is unpacked, how far, and what is no such body."""

import gzip
import zlib

import pytest

from service.errors import InvalidRequest, UnsupportedEncoding
from service.http.coding import coding_of

TEXT = b'{"inputs": "good"}' * 100
GZIPPED = gzip.compress(TEXT, mtime=0)  # the time would come into the names of the tests
MOST = 1_000_000


def unpacked(header: str | None, body: bytes, pieces: int, most: int = MOST) -> bytes:
    """What comes out when a body comes in pieces of so many bytes."""
    coding, out = coding_of(header), b""
    for start in range(0, len(body), pieces):
        out += coding.unpack(body[start : start + pieces], most - len(out))
    coding.end()
    return out


@pytest.mark.parametrize("pieces", [1, 7, MOST])
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
def test_a_body_is_unpacked_however_it_comes(header: str | None, body: bytes, pieces: int) -> None:
    assert unpacked(header, body, pieces) == TEXT


@pytest.mark.parametrize(
    ("header", "bomb"), [("gzip", gzip.compress(bytes(50_000_000))), ("deflate", zlib.compress(bytes(50_000_000)))]
)
def test_no_more_is_unpacked_than_may_come(header: str, bomb: bytes) -> None:
    assert len(coding_of(header).unpack(bomb, 1000)) == 1000


@pytest.mark.parametrize("pieces", [1, MOST])
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
def test_what_is_not_what_it_says_is_refused(header: str, body: bytes, pieces: int, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        unpacked(header, body, pieces)


@pytest.mark.parametrize("header", ["zstd", "br", "gzip, gzip", "identity, gzip", "*"])
def test_other_codings_are_refused_with_what_is_taken(header: str) -> None:
    with pytest.raises(UnsupportedEncoding) as refusal:
        coding_of(header)
    assert refusal.value.headers == {"Accept-Encoding": "gzip, deflate"}
