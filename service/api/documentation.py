"""The routes that describe the others: the OpenAPI document, and pages to try them."""

from collections.abc import Sequence
from functools import cached_property

from service.api.openapi import Json, openapi_document
from service.api.pages import page
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, Group


class Documentation:
    """The handlers.

    Args:
        groups: the routes to describe, besides these.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        document = Operation("docs", "This API, as OpenAPI 3.1.", Json)
        home = Operation("home", "A page that shows what is served, and tries it.", str, "text/html")
        docs = Operation("docs_page", "Swagger UI of this API.", str, "text/html")
        self.group = Group(
            "Documents",
            "`/` and `/docs` need no key: they hold nothing of the service, and ask for one where it is needed.",
            [
                page("/", home, "index.html"),
                Endpoint("GET", "/docs.json", self.document, document),
                page("/docs", docs, "docs.html", scripts="'self'", styles="'self' 'unsafe-inline'"),
                Endpoint("GET", "/static_content/{file}", None, public=True),  # Swagger UI, as BentoML brings it
            ],
        )
        self._described = [*groups, self.group]

    async def document(self, _: Request) -> Response:
        """GET /docs.json."""
        return Response.json(self._document)

    @cached_property
    def _document(self) -> Json:
        return openapi_document(self._described)


def routes(others: Sequence[Group]) -> Group:
    """Documents of the others and of themselves."""
    return Documentation(others).group
