"""HTML pages as a test reads them."""

import re
from html.parser import HTMLParser

_VOID = {"meta", "br", "line", "rect", "circle", "polyline", "input", "link"}
_FETCHING = {"src", "href", "action", "data", "poster", "srcset"}


class Page(HTMLParser):
    """Collects tags and text, and sees that what opens is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._pieces: list[tuple[tuple[str, ...], str]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        self._pieces.append((tuple(self.open), data))

    def texts_of(self, tag: str) -> list[str]:
        """The pieces of text inside elements of that name."""
        return [data for inside, data in self._pieces if tag in inside]


def require_standalone(html: str) -> None:
    """The page asks for nothing of another host, names both colour schemes, fits a phone, and its anchors resolve."""
    page = Page(html)
    for tag, attributes in page.tags:
        for name in _FETCHING & attributes.keys():
            assert not re.match(r"[a-z]+:|//", attributes[name] or ""), (tag, attributes)
    assert not re.search(r"url\(|@import", html)
    assert "width=device-width" in str(page.tags)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [target for _, attributes in page.tags if (target := attributes.get("href") or "").startswith("#")]
    assert {anchor[1:] for anchor in anchors} <= set(ids), set(anchors)
