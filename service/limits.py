"""Bounds on what a request may bring in: content type, size of the body, its shape, and its time."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers

from service.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Body = TypeVar("Body", bound=BaseModel)

TIMEOUT_HEADER = "x-request-timeout-ms"
_SHOWN_PROBLEMS = 3


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


async def read_body(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """Reads a JSON body, and no more of it than allowed.

    Raises:
        UnsupportedMediaType: the content type is not application/json, or the body is compressed.
        PayloadTooLarge: it says it is too long, or turns out to be.
        ClientGone: the connection closed before the end.
    """
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise UnsupportedMediaType(f"the content type is {content_type[:64]!r}; send application/json")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"the content encoding is {encoding[:64]!r}; send the body as it is")
    too_large = PayloadTooLarge(f"the body has more than {max_bytes} bytes; send fewer texts in one request")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


def parse(model: type[Body], body: bytes) -> Body:
    """Checks a body against its schema.

    Raises:
        InvalidRequest: names the first problems by their place; never quotes the text that was sent.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = _problems(error)
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise InvalidRequest("; ".join(problems[:_SHOWN_PROBLEMS]) + more) from None


def timeout_ms(headers: Headers, default: int) -> int:
    """The request's time: the default, or less where the client asks for less.

    Raises:
        InvalidRequest: the header is not a whole number of milliseconds above zero.
    """
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal()) or int(value[:12]) == 0:
        raise InvalidRequest(f"X-Request-Timeout-Ms is {value[:32]!r}; send a whole number of milliseconds above 0")
    return min(default, int(value[:12]))


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        place = ".".join(str(part)[:64] for part in problem["loc"] if part not in ("text", "texts")) or "body"
        problems.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}")
    return problems
