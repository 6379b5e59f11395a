"""Pages of other origins, as BentoML's configuration (`http.cors`) has it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from loadtests.run import CannotRun, start
from service.access.keys import add_key
from tests.integration.conftest import LiveService, serve, service_environment

pytestmark = pytest.mark.integration

PAGE = "https://shop.example"
BODY = {"model": "sentiment", "inputs": "good"}
CONFIGURATION = """\
services:
  lathe:
    http:
      cors:
        enabled: true
        access_control_allow_methods: [GET, POST]
        access_control_allow_headers: [Authorization, Content-Type]
        access_control_expose_headers: X-Request-Id
"""


def settings(folder: Path, bundle: Bundle, configuration: str) -> dict[str, str]:
    (folder / "bentoml.yaml").write_text(configuration)
    return {"LATHE_MODELS": f"sentiment={bundle.path}", "BENTOML_CONFIG": str(folder / "bentoml.yaml")}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    return file, add_key(file, "shop")


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, sentiment_bundle: Bundle, key: tuple[Path, str]
) -> Iterator[LiveService]:
    folder = tmp_path_factory.mktemp("cors")
    origins = f"        access_control_allow_origins: [{PAGE}]\n"
    given = settings(folder, sentiment_bundle, CONFIGURATION + origins)
    with serve(folder / "service.log", {**given, "LATHE_KEYS_FILE": str(key[0])}) as service:
        yield service


def test_a_browser_is_told_what_a_page_may_ask(service: LiveService) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    answer = httpx.options(f"{service.url}/v1/classify", headers={"Origin": PAGE, **asked})
    assert answer.status_code == 200  # without a key, which no browser sends with this
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    other = httpx.options(f"{service.url}/v1/classify", headers={"Origin": "https://evil.example", **asked})
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/classify", 200), ("GET", "/readyz", 200), ("GET", "/v1/classify", 405), ("POST", "/nope", 404),
        ("POST", "/v2/models/nobody/infer", 415), ("POST", "/v1/models/sentiment/load", 403),
    ],
)  # fmt: skip
def test_a_page_can_read_every_answer(
    service: LiveService, key: tuple[Path, str], method: str, path: str, status: int
) -> None:
    def ask(origin: str, given: str) -> httpx.Response:
        headers = {"Origin": origin, "Authorization": f"Bearer {given}"}
        files = {"data": b"x"} if status == 415 else None
        body = BODY if method == "POST" and files is None else None
        return httpx.request(method, service.url + path, json=body, files=files, headers=headers)

    for given, expected in ((key[1], status), ("wrong", status if path == "/readyz" else 401)):
        answer = ask(PAGE, given)
        assert answer.status_code == expected
        assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
        assert answer.headers["access-control-expose-headers"] == "X-Request-Id"
        assert answer.headers["x-request-id"]
        assert "access-control-allow-origin" not in ask("https://evil.example", given).headers


def test_without_an_origin_it_is_an_error_at_start(tmp_path: Path, sentiment_bundle: Bundle) -> None:
    given = settings(tmp_path, sentiment_bundle, CONFIGURATION)
    with pytest.raises(CannotRun, match="set access_control_allow_origins"):
        start(tmp_path / "service.log", service_environment(**given))
