import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from compression.report.plots import Axis, Row, bar_chart, dot_chart, risk_coverage

NUMBERS = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))


@given(st.lists(NUMBERS, min_size=1, max_size=9))
def test_an_axis_holds_its_values_between_a_few_round_numbers(values: list[float]) -> None:
    axis = Axis.around(values, "MB")
    numbers = axis.numbers()
    assert 2 <= len(numbers) <= 7
    room = axis.step * 1e-6
    assert all(axis.low - room <= value <= axis.high + room for value in values)
    assert re.match(r"[125]e", f"{axis.step:.0e}")
    assert axis.at(axis.low) == 0
    assert axis.at(axis.high) == 1


def test_bars_begin_at_zero_and_end_at_their_value() -> None:
    rows = [Row("loss", "-10", -10.0, "loss", (-20.0, 5.0)), Row("gain", "+20", 20.0, "gain")]
    chart = ElementTree.fromstring(bar_chart("Change", rows, Axis.around([-20.0, 20.0], "points", signed=True)))
    loss, gain = chart.findall("rect")
    assert (loss.get("x"), loss.get("width")) == ("25.00%", "25.00%")
    assert (gain.get("x"), gain.get("width")) == ("50.00%", "50.00%")
    axis = chart.findall("line[@class='axis']")
    assert [(line.get("x1"), line.get("x2")) for line in axis] == [("50.00%", "50.00%")]
    (whisker,) = chart.findall("line[@class='spread']")
    assert (whisker.get("x1"), whisker.get("x2")) == ("0.00%", "62.50%")
    words = [text.text for text in chart.findall("text")]
    assert words[-6:] == ["-20", "-10", "0", "+10", "+20", "points"]


def test_marks_and_words_of_a_chart_never_share_a_place() -> None:
    rows = [Row(name, "98.9 (358 of 362), 97.2 to 99.6", 98.9, "bundle", (97.2, 99.6)) for name in ("a", "a" * 99)]
    chart = ElementTree.fromstring(dot_chart("Agreement", rows, Axis.around([97.2, 99.6], "%")))
    heights = [int(mark.get("cy", "")) for mark in chart.findall("circle")]
    assert len(set(heights)) == 2
    lines = [int(text.get("y", "")) for text in chart.findall("text") if text.get("class") != "unit"]
    assert len(set(lines)) == len(lines) == 4
    assert min(abs(height - line) for height in heights for line in lines) >= 10
    assert "viewBox" not in chart.attrib  # which would shrink the words on a phone


def test_errors_are_drawn_over_coverage_with_a_line_at_the_bundle_s_own() -> None:
    curve = ((0.5, 0.0), (1.0, 0.1))
    chart = ElementTree.fromstring(risk_coverage(curve, curve, 0.5))
    before, after = chart.findall("polyline")
    assert before.get("points") == after.get("points") == "194.0,308.0 344.0,8.0"  # its highest error is the axis's end
    (line,) = chart.findall("line[@class='axis']")
    assert line.get("x1") == line.get("x2") == "194.0"
    assert not ElementTree.fromstring(risk_coverage(curve, curve, None)).findall("line[@class='axis']")


def test_what_is_drawn_is_also_said() -> None:
    chart = ElementTree.fromstring(bar_chart("Size", [Row("<b>", "1 MB", 1.0, "bundle")], Axis.around([0, 1], "MB")))
    assert chart.get("role") == "img"
    assert chart.get("aria-label") == "Size: <b>: 1 MB"
