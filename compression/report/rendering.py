"""What all pages and the model card share: the Jinja environment, the style sheet, the head with date and machine.

A page's own template holds its sections, each under `<h2 id="...">`; the contents on top are made from those.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from compression.bundle import extra
from compression.report import words

if TYPE_CHECKING:
    import jinja2
    import markupsafe

_SECTION = re.compile(r'<h2 id="([\w-]+)">(.*?)</h2>', re.DOTALL)


@dataclass(frozen=True)
class Origin:
    """When, by what and where a page was made. It stands on pages alone: a bundle's version depends on none of it.

    Attributes:
        date: UTC, to the minute.
        lathe: version.
        machine: CPU, cores and system.
    """

    date: str
    lathe: str
    machine: str

    @classmethod
    def now(cls) -> "Origin":
        """Of a page that this process makes now."""
        from compression.measure.machine import this_machine

        machine = this_machine()
        return cls(
            date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            lathe=metadata.version("lathe"),
            machine=f"{machine.cpu}, {machine.cores} cores, {machine.system}",
        )


def render(template: str, **values: Any) -> str:
    """A template with these values; everything is escaped in .html, nothing elsewhere.

    A page extends `page.html`, takes `title` and `origin`, and needs no other file and no network.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "jinja2.Environment":
    with extra("serve", "a page"):
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (resources.files("compression.report") / "templates" / name).read_text("utf-8")
        ),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=words.percent, counted=words.counted, small=words.small, markdown=words.markdown, code=words.code,
        headings=_headings, measured=words.measured,
    )  # fmt: skip
    return environment


def _headings(sections: "markupsafe.Markup") -> list[tuple[str, "markupsafe.Markup"]]:
    """Anchor and name of each section, in order."""
    return [(anchor, type(sections)(name)) for anchor, name in _SECTION.findall(sections)]
