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
from compression.pipeline import compress
from compression.recipe import load_recipe
from compression.report.compare import Comparison, Entry, compare_manifests, compare_on, rows
from compression.report.compare_page import comparison_html
from lathe import main
from tests.conftest import SENTIMENT, write_rows


@pytest.fixture(scope="session")
def float_bundle(workspace: Path, sentiment_parent: Path, sentiment_data: Path) -> Bundle:
    return compress(str(sentiment_parent), sentiment_data, load_recipe("float"), workspace / "bundles" / "float")


def test_manifests_speak_where_no_data_is_given(sentiment_bundle: Bundle, float_bundle: Bundle) -> None:
    comparison = compare_manifests([sentiment_bundle.path, float_bundle.path])
    assert comparison.warning == ""
    for entry, bundle in zip(comparison.entries, (sentiment_bundle, float_bundle), strict=True):
        figures = bundle.manifest.figures
        assert (entry.size_mb, entry.accuracy) == (figures.bundle.size_mb, figures.bundle.accuracy)
        assert entry.speeds == {(one.batch, one.tokens): one.ratio for one in figures.latency}


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
    assert set(quantized.speeds.values()) == {1.0}
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
    assert not re.search(r"(src|href)=|url\(|@import", text)
    assert len(plot(text).findall(".//circle")) == 2
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
    assert entry["speeds"][0] == {"batch": latency.batch, "tokens": latency.tokens, "speed": latency.ratio}


SMALL = Entry("small <b>", 8.0, 0.9, 0.9, 0.97, {(1, 24): 9.0})


@pytest.mark.parametrize(
    "entries",
    [
        (SMALL,),
        (SMALL, SMALL),
        (SMALL, dataclasses.replace(SMALL, size_mb=90.0, accuracy=0.5, speeds={(1, 24): 0.5})),
        (SMALL, dataclasses.replace(SMALL, accuracy=None, speeds={})),
    ],
)
def test_every_dot_lies_on_the_plot(entries: tuple[Entry, ...]) -> None:
    text = comparison_html(Comparison("measured", "its own parent", entries))
    assert "small &lt;b&gt;" in text
    svg = plot(text)
    for circle in svg.findall(".//circle"):
        assert 60 <= float(circle.get("cx", "nan")) <= 610
        assert 25 <= float(circle.get("cy", "nan")) <= 310
        assert 6 <= float(circle.get("r", "nan")) <= 18


def test_better_is_up_and_smaller_is_left() -> None:
    worse = dataclasses.replace(SMALL, size_mb=20.0, accuracy=0.8, speeds={(1, 24): 3.0})
    circles = plot(comparison_html(Comparison("measured", "its own parent", (SMALL, worse)))).findall(".//circle")
    better, other = ([float(circle.get(key, "nan")) for key in ("cx", "cy", "r")] for circle in circles)
    assert better[0] < other[0]
    assert better[1] < other[1]
    assert better[2] > other[2]  # larger dots are drawn first, so the faster one is the first


def plot(text: str) -> ElementTree.Element:
    svg = re.search(r"<svg.*</svg>", text, re.DOTALL)
    assert svg is not None
    return ElementTree.fromstring(svg[0])
