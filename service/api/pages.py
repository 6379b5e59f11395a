"""Pages, each under a policy that lets a browser load nothing but what stands in the page and what this service has."""

import base64
import hashlib
import re
from pathlib import Path

from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint

_FOLDER = Path(__file__).parent.parent / "static"
_INLINE = re.compile(rb"<(style|script)>(.*?)</\1>", re.DOTALL)


def page(path: str, operation: Operation, file: str, scripts: str = "", styles: str = "") -> Endpoint:
    """The endpoint of a page; it needs no key, because what it shows of this service it asks for itself.

    Args:
        scripts, styles: sources of them beside those in the page, as Content-Security-Policy names sources.
    """
    body = (_FOLDER / file).read_bytes()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _policy(body, scripts, styles).encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-cache"),
    ]

    async def handle(_: Request) -> Response:
        return Response(200, headers, body)

    return Endpoint("GET", path, handle, operation, public=True)


def _policy(body: bytes, scripts: str, styles: str) -> str:
    sources = {b"script": scripts, b"style": styles}
    for kind, text in _INLINE.findall(body):
        if "'unsafe-inline'" not in sources[kind]:  # which a hash beside it would undo
            sources[kind] += f" 'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {sources[b'script'].strip()}",
            f"style-src {sources[b'style'].strip()}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
