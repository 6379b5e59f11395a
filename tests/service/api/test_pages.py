"""The pages, whose scripts show what others wrote: labels, names of models, messages."""

from pathlib import Path

import pytest

import service

PAGES = sorted((Path(service.__file__).parent / "static").glob("*.html"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_that_comes_from_elsewhere_is_taken_for_markup(page: Path) -> None:
    text = page.read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "createContextualFragment", "eval("):
        assert way not in text
