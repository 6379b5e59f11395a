"""What the pages have in common."""

import re
from importlib import resources

import pytest

from compression.report.rendering import Origin, render
from compression.report.words import counted, short, width
from tests.contrast import DARK, LIGHT, contrast, palettes

CSS = (resources.files("compression.report") / "templates" / "page.css").read_text("utf-8")


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_words_stand_out_from_what_is_behind_them(scheme: str) -> None:
    colours = palettes(CSS)[scheme]
    for behind in ("page", "card"):
        for word in ("text", "weak", "bundle", "loss"):  # the last two also colour the key of a diagram, and links
            assert contrast(colours[word], colours[behind]) >= 4.5, (word, behind)


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_bars_stand_out_from_the_page(scheme: str) -> None:
    colours = palettes(CSS)[scheme]
    for bar in ("bundle", "parent", "loss", "gain", "few", "text"):
        assert contrast(colours[bar], colours["page"]) >= 3, bar  # WCAG's bound for graphics


def test_no_word_is_smaller_than_11_px() -> None:
    sizes = re.findall(r"font-size: ([\d.]+)(px|rem)", CSS)
    assert sizes
    assert all(float(size) * (16 if unit == "rem" else 1) >= 11 for size, unit in sizes)


def test_a_table_that_is_cut_shows_that_there_is_more() -> None:
    rule = re.search(r"\.scroll \{([^}]*)\}", CSS)
    assert rule is not None
    assert "overflow-x: auto" in rule[1]
    assert rule[1].count("local") == 2  # the covers scroll with the table
    assert rule[1].count("var(--shade)") == 2  # the shadows do not


def test_origin_says_when_by_what_and_where() -> None:
    origin = Origin.now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", origin.date)
    assert re.fullmatch(r"[\d.]+\S*", origin.lathe)
    assert "cores" in origin.machine


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(Exception, match="undefined"):
        render("compare.html", title="a", origin=Origin.now())


def test_counts_stand_beside_percentages() -> None:
    assert counted(0.975, 40) == "97.5 (39 of 40)"
    assert counted(None, 0) == "no labels"


def test_a_long_name_keeps_both_ends_within_its_width() -> None:
    assert short("bundles/mine", 20) == "bundles/mine"
    cut = short("bundles/a-very-long-name-of-a-bundle-small", 20)
    assert cut.startswith("bundles")
    assert cut.endswith("small")
    assert width(cut) <= 20
    assert width(short("退款" * 40, 20)) <= 20
