import dataclasses
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from compression.bundle import Bundle, BundleError
from compression.data import read_examples
from compression.errors import DataError
from compression.measure.latency import Quartiles
from compression.pipeline import compress
from compression.recipe import load_recipe
from compression.report.compare import Comparison, Entry, compare_manifests, compare_on, rows
from compression.report.compare_page import comparison_html
from compression.report.rendering import Origin
from lathe import main
from tests.conftest import SENTIMENT, write_rows
from tests.pages import Page, require_standalone


@pytest.fixture(scope="session")
def float_bundle(workspace: Path, sentiment_parent: Path, sentiment_data: Path) -> Bundle:
    return compress(str(sentiment_parent), sentiment_data, load_recipe("float"), workspace / "bundles" / "float")


def test_manifests_speak_where_no_data_is_given(sentiment_bundle: Bundle, float_bundle: Bundle) -> None:
    comparison = compare_manifests([sentiment_bundle.path, float_bundle.path])
    assert comparison.warning == ""
    for entry, bundle in zip(comparison.entries, (sentiment_bundle, float_bundle), strict=True):
        figures = bundle.manifest.figures
        assert (entry.size_mb, entry.accuracy) == (figures.bundle.size_mb, figures.bundle.accuracy)
        assert {shape: speed.median for shape, speed in entry.speeds.items()} == {
            (one.batch, one.tokens): one.ratio for one in figures.latency
        }


def test_figures_from_different_data_come_with_a_warning(sentiment_bundle: Bundle, intent_bundle: Bundle) -> None:
    result = CliRunner().invoke(main, ["compare", str(sentiment_bundle.path), str(intent_bundle.path)])
    assert result.exit_code == 0
    assert "2 different data files" in result.stderr
    assert "--data" in result.stderr


def test_with_data_all_are_measured_on_the_same_texts(sentiment_bundle: Bundle, float_bundle: Bundle,
                                                      tmp_path: Path) -> None:  # fmt: skip
    wrong = {"negative": SENTIMENT["positive"], "positive": SENTIMENT["negative"]}  # unlike what the manifests say
    data = write_rows(tmp_path / "rows.csv", wrong, 80, seed=9)
    quantized, exact = compare_on([sentiment_bundle.path, float_bundle.path], read_examples(data), data).entries
    assert quantized.agreement == 1.0  # with itself: the first is the reference
    assert exact.agreement >= 0.95
    for entry in (quantized, exact):
        assert entry.accuracy is not None
        assert entry.accuracy < 0.1
    assert {speed.median for speed in quantized.speeds.values()} == {1.0}
    assert exact.speeds.keys() == quantized.speeds.keys()


def test_bundles_of_different_tasks_are_refused(sentiment_bundle: Bundle, intent_bundle: Bundle,
                                                tmp_path: Path) -> None:  # fmt: skip
    data = tmp_path / "texts.csv"
    data.write_text("text\na text\n", "utf-8")
    with pytest.raises(DataError, match="different labels"):
        compare_on([sentiment_bundle.path, intent_bundle.path], read_examples(data), data)


def test_what_is_no_bundle_is_refused(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        compare_manifests([sentiment_bundle.path, tmp_path])


def test_the_page_stands_alone_and_holds_plot_and_table(sentiment_bundle: Bundle, float_bundle: Bundle,
                                                        tmp_path: Path) -> None:  # fmt: skip
    page = tmp_path / "page.html"
    result = CliRunner().invoke(
        main, ["compare", str(sentiment_bundle.path), str(float_bundle.path), "--html", str(page)]
    )
    assert result.exit_code == 0, result.output
    text = page.read_text("utf-8")
    require_standalone(text)
    assert [len(chart.findall("circle")) for chart in charts(text)[:2]] == [2, 2]  # accuracy, agreement
    for _, name, *_ in rows(compare_manifests([sentiment_bundle.path, float_bundle.path]))[1]:
        assert name in text


def test_nothing_is_cut_in_80_columns(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    name = tmp_path / f"a-name-that-is-{'very-' * 12}long"
    name.symlink_to(sentiment_bundle.path)
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["compare", str(sentiment_bundle.path), str(name)])
    assert result.exit_code == 0, result.output
    for number, path in enumerate((sentiment_bundle.path, name), start=1):
        assert f"\n{number}  {path}\n" in result.stdout
    assert "…" not in result.stdout
    headings, cells = rows(compare_manifests([sentiment_bundle.path, name]))
    printed = result.stdout.splitlines()[3:]
    assert [" ".join(line.split()) for line in printed] == [
        " ".join([line[0], *line[2:]]).strip() for line in (headings, *cells)
    ]


def test_json_holds_what_the_table_rounds(sentiment_bundle: Bundle) -> None:
    result = CliRunner().invoke(main, ["compare", str(sentiment_bundle.path), "--json"])
    (entry,) = json.loads(result.stdout)["entries"]
    figures = sentiment_bundle.manifest.figures
    assert (entry["name"], entry["accuracy"]) == (str(sentiment_bundle.path), figures.bundle.accuracy)
    latency = figures.latency[0]
    assert entry["speeds"][0] == {"batch": latency.batch, "tokens": latency.tokens, "speed": latency.ratio,
                                   "low": latency.ratio_low, "high": latency.ratio_high}  # fmt: skip


ORIGIN = Origin("2026-01-02 03:04 UTC", "9.8.7", "A CPU, 2 cores, Linux")
SMALL = Entry("small <b>", 8.0, 200, 100, 0.9, 0.9, 0.97, {(1, 24): Quartiles(8.0, 9.0, 9.5)})
BARE = dataclasses.replace(SMALL, labelled=0, accuracy=None, macro_f1=None, speeds={})


def page_of(*entries: Entry) -> Page:
    return Page(comparison_html(Comparison("measured", "its own parent", entries), ORIGIN))


@pytest.mark.parametrize(
    "entries",
    [
        (SMALL,),
        (SMALL, SMALL),
        (SMALL, dataclasses.replace(SMALL, size_mb=90.0, accuracy=0.5, speeds={(1, 24): Quartiles(0.4, 0.5, 0.6)})),
        (SMALL, BARE),
        (BARE,),
    ],
)
def test_every_bundle_has_a_row_of_its_own_and_lies_on_the_axis(entries: tuple[Entry, ...]) -> None:
    html = comparison_html(Comparison("measured", "its own parent", entries), ORIGIN)
    require_standalone(html)
    assert "small &lt;b&gt;" in html
    for chart in charts(html):
        marks = [*chart.findall("circle"), *chart.findall("rect")]
        assert len({mark.get("cy") or mark.get("y") for mark in marks}) == len(marks)
        for mark in marks:
            start = float((mark.get("cx") or mark.get("x") or "").rstrip("%"))
            assert 0 <= start <= start + float(mark.get("width", "0%").rstrip("%")) <= 100


def test_figures_have_intervals_and_counts() -> None:
    page = page_of(SMALL)
    drawn = page.texts_of("svg")
    assert "90.0 (90 of 100), 82.6 to 94.5" in drawn  # Wilson
    assert "97.0 (194 of 200), 93.6 to 98.6" in drawn
    assert "9.0 x (8.0 to 9.5)" in drawn
    assert "90.0 (90 of 100)" in page.texts_of("td")
    assert sum(tag == "line" and attributes["class"] == "spread" for tag, attributes in page.tags) == 3


def test_better_is_to_the_right_where_more_is_better() -> None:
    worse = dataclasses.replace(SMALL, accuracy=0.8, agreement=0.8)
    for chart in charts(comparison_html(Comparison("measured", "its own parent", (SMALL, worse)), ORIGIN))[:2]:
        better, other = (float(dot.get("cx", "").rstrip("%")) for dot in chart.findall("circle"))
        assert better > other


def test_the_page_says_when_and_where_it_was_made() -> None:
    text = page_of(SMALL).text
    assert "Made 2026-01-02 03:04 UTC by Lathe 9.8.7 on A CPU, 2 cores, Linux" in text


def charts(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
