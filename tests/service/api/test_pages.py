"""The pages: a browser may load nothing but what they say, and they say all of it in both languages."""

import asyncio
import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

import service
from service.api.pages import page
from service.http.messages import Response
from service.http.operation import Operation

STATIC = Path(service.__file__).parent / "static"
HOME = (STATIC / "index.html").read_text("utf-8")
PAGES = sorted(path.name for path in STATIC.glob("*.html"))


def answered(file: str, **sources: str) -> tuple[Response, dict[str, str]]:
    """What is answered for a page, and its policy by directive."""
    handler: Any = page("/", Operation("page", "", str, "text/html"), file, **sources).handler
    response: Response = asyncio.run(handler(None))
    policy = dict(response.headers)[b"content-security-policy"].decode()
    return response, dict(part.split(" ", 1) for part in policy.split("; "))


def test_the_policy_lets_run_what_stands_in_the_page_and_nothing_else() -> None:
    response, policy = answered("index.html")
    for kind in ("script", "style"):
        (text,) = re.findall(f"<{kind}>(.*?)</{kind}>", response.body.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


def test_what_swagger_ui_needs_is_let_in_beside_it() -> None:
    _, policy = answered("docs.html", scripts="'self'", styles="'self' 'unsafe-inline'")
    assert policy["script-src"].startswith("'self' 'sha256-")
    assert policy["style-src"] == "'self' 'unsafe-inline'"  # a hash would undo the latter


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_no_other_host(name: str) -> None:
    assert not re.findall(r"[a-z]+://|[\"'(]//\w", (STATIC / name).read_text("utf-8"))


def test_nothing_that_others_wrote_becomes_markup() -> None:
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", HOME)


def test_every_word_is_there_in_both_languages() -> None:
    english, chinese = (
        set(re.findall(r"(\w+): (?:\"|\w+ => )", re.search(rf"\n  {code}: {{(.*?)\n  }},", HOME, re.DOTALL).group(1)))  # type: ignore[union-attr]
        for code in ("en", "zh")
    )
    used = set(re.findall(r"data-say=\"(\w+)\"|say\(\"(\w+)\"", HOME))
    assert english == chinese
    assert {first or second for first, second in used} <= english
    assert {"negative", "neutral", "positive", "strong_anger", "listed_intent", "low_confidence"} <= english
