"""The routes that describe the others: the OpenAPI document, and a page to try them."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from service.api.openapi import Json, openapi_document
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, Group

_PAGE = Path(__file__).parent.parent / "static" / "docs.html"


class Documentation:
    """The handlers.

    Args:
        groups: the routes to describe, besides these.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        document = Operation("docs", "This API, as OpenAPI 3.1.", Json)
        page = Operation("docs_page", "Swagger UI of this API.", str, "text/html")
        self.group = Group(
            "Documents",
            "`/docs` needs no key: it holds nothing of the service, and asks for one where `/docs.json` needs it.",
            [
                Endpoint("GET", "/", None, Operation("page", "A page to try this API.", str, "text/html")),
                Endpoint("GET", "/docs.json", self.document, document),
                Endpoint("GET", "/docs", self.page, page, public=True),
                Endpoint("GET", "/static_content/{file}", None, public=True),  # Swagger UI, as BentoML brings it
            ],
        )
        self._described = [*groups, self.group]

    async def document(self, _: Request) -> Response:
        """GET /docs.json."""
        return Response.json(self._document)

    async def page(self, _: Request) -> Response:
        """GET /docs."""
        return Response(200, [(b"content-type", b"text/html; charset=utf-8")], self._page)

    @cached_property
    def _page(self) -> bytes:
        return _PAGE.read_bytes()

    @cached_property
    def _document(self) -> Json:
        return openapi_document(self._described)


def routes(others: Sequence[Group]) -> Group:
    """Documents of the others and of themselves."""
    return Documentation(others).group
