"""Bounds on what a request may bring in: content type, size of the body, its shape, and its time."""

import re
from collections.abc import Collection, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from service.http.coding import NONE, coding_of, unpack
from service.http.messages import Request
from service.http.problems import problems
from service.http.turns import LARGE_BYTES
from service.settings import Settings

Body = TypeVar("Body", bound=BaseModel)

JSON = ("application/json",)
TIMEOUT = b"x-request-timeout-ms"
_SHOWN_PROBLEMS = 3
_SEPARATORS = (b",", b"[", b"{")  # each value of JSON but the first follows one
# Without an end, too: what begins as a string is never looked at twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


async def read_body(request: Request, settings: Settings, content_types: Collection[str] = JSON) -> bytes:
    """Reads a body, and no more of it than allowed; how long it may take is the connection's to say.

    Raises:
        UnsupportedMediaType: its content type is another one.
        UnsupportedEncoding, InvalidRequest: it is compressed in a way that is not taken, or not as it says.
        PayloadTooLarge: it says it is too long, or turns out to be when it is unpacked.
        BodyTimeout: it did not come in time; see Deadlines.
        ClientGone: the connection closed before the end.
        Overloaded: too many large bodies wait for their turn.
    """
    max_bytes = settings.max_body_bytes
    content_type = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if content_type not in content_types:
        raise UnsupportedMediaType(f"the content type is {content_type[:64]!r}; send application/json")
    coding = coding_of(request.header(b"content-encoding"))
    length = request.header(b"content-length") or ""
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            content = await _unpacked(request, coding, bytes(body), max_bytes + 1)
            if len(content) > max_bytes:
                raise _too_large(max_bytes)
            return content


async def _unpacked(request: Request, coding: str, body: bytes, most: int) -> bytes:
    """What a complete body holds; a large one, or one that may be, waits for its turn."""
    if request.turns is None or (coding == NONE and len(body) <= LARGE_BYTES):
        return unpack(coding, body, most)
    async with request.turns.take() as spend:
        size = most  # of one that cannot be unpacked
        try:
            content = unpack(coding, body, most)
            size = len(content)
            return content
        finally:
            spend(size)


def parse(model: type[Body], body: bytes, max_inputs: int) -> Body:
    """Checks a body against its schema, of a list no further than to the first item that does not fit.

    Args:
        max_inputs: texts that a request may have.

    Raises:
        InvalidRequest: names the first problems by their place; never quotes the text that was sent.
        PayloadTooLarge: it has far more texts than that.
    """
    _require_few_values(body, 8 * max_inputs + 2000)
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(problems(error)) from None
    if parsed.model_extra:
        known = ", ".join(model.model_fields)
        raise _invalid([f"{key[:64]}: there is no such field; send {known}" for key in parsed.model_extra])
    return parsed


def _require_few_values(body: bytes, most: int) -> None:
    """Refuses JSON of so many values that to make objects of them, which the schema then refuses, stops everybody.

    Each of 350,000 empty lists, which is 1 MB, takes a microsecond: parsers make them in the event loop.
    """
    # A quote opens or closes a string, or stands behind a backslash; one that closes a string may do so, too.
    if body.count(b'"') - body.count(b'\\"') > 2 * most:
        raise PayloadTooLarge(f"the body has more than {most} texts and names; send fewer texts in one request")
    if sum(map(body.count, _SEPARATORS)) > most:  # of texts, maybe
        rest = _STRING.sub(b"", body)
        if sum(map(rest.count, _SEPARATORS)) > most:
            raise InvalidRequest(f"the body has more than {most} values; send the texts and no more")


def timeout_ms(value: str | None, default: int) -> int:
    """The request's time: the default, or less where the client asks for less by X-Request-Timeout-Ms, this value.

    Raises:
        InvalidRequest: the header is not a whole number of milliseconds above zero.
    """
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal()) or int(value[:12]) == 0:
        raise InvalidRequest(f"X-Request-Timeout-Ms is {value[:32]!r}; send a whole number of milliseconds above 0")
    return min(default, int(value[:12]))


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has more than {max_bytes} bytes; send fewer texts in one request")


def _invalid(found: Sequence[str]) -> InvalidRequest:
    more = f". And {len(found) - _SHOWN_PROBLEMS} more" if len(found) > _SHOWN_PROBLEMS else ""
    return InvalidRequest(". ".join(found[:_SHOWN_PROBLEMS]) + more)
