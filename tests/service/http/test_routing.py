import pytest

from service.errors import ErrorResponse, ServiceError
from service.http.messages import Request, Response
from service.http.routing import Endpoint, ErrorShape, Routes


async def answer(_: Request) -> Response:
    return Response(200, [], b"")


ROUTES = Routes(Endpoint("GET", path, answer) for path in ("/a", "/a/{x}", "/a/{x}/b", "/a/{x}/c/{y}"))


@pytest.mark.parametrize(
    ("path", "endpoint", "parameters"),
    [
        ("/a", "/a", {}),
        ("/a/1", "/a/{x}", {"x": "1"}),
        ("/a/b", "/a/{x}", {"x": "b"}),
        ("/a/1/b", "/a/{x}/b", {"x": "1"}),
        ("/a/1/c/2", "/a/{x}/c/{y}", {"x": "1", "y": "2"}),
    ],
)
def test_a_path_finds_its_endpoint(path: str, endpoint: str, parameters: dict[str, str]) -> None:
    found, values = ROUTES.find("GET", path)
    assert found is not None
    assert (found.path, values) == (endpoint, parameters)


@pytest.mark.parametrize("path", ["/", "", "/b", "/a/", "/a//b", "/a/1/c", "/a/1/b/2", "/a/1/c/"])
def test_other_paths_find_none(path: str) -> None:
    assert ROUTES.find("GET", path) == (None, {})


def test_head_is_answered_as_get_and_other_methods_are_not() -> None:
    get = Endpoint("GET", "/a", answer, admit=lambda *_: None)
    routes = Routes([get])
    assert routes.find("HEAD", "/a")[0] is get
    other, _ = routes.find("POST", "/a")
    assert other is not None
    assert other.handler is not answer
    assert other.admit is None  # what is rejected for lack of capacity would have been answered


def test_an_unknown_path_below_a_protocol_s_has_its_errors_whatever_the_method() -> None:
    errors = ErrorShape(ErrorResponse, ServiceError.body)
    routes = Routes([Endpoint("GET", "/a", answer), Endpoint("POST", "/a/{x}", answer)], {"/a/": errors})
    for method, path in (("GET", "/a/"), ("POST", "/a/1/b"), ("PUT", "/a/1/b/")):
        found, _ = routes.find(method, path)
        assert found is not None
        assert (found.path, found.public, found.errors) == ("other", False, errors)
    assert routes.find("GET", "/ab") == (None, {})
    assert routes.find("POST", "/a/1")[0].handler is answer  # type: ignore[union-attr]  # is there
