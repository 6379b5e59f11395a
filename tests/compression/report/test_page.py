import dataclasses
import hashlib

import pytest
from markdown_it import MarkdownIt

from compression.bundle import (
    AbstainOptions,
    Bundle,
    ClassFigures,
    Counterfactual,
    Difference,
    Manifest,
    SelectiveFigures,
    StepFigures,
    SwapReaction,
)
from compression.measure.evidence import Answer, Bin, Evidence, Flip
from compression.report.page import comparison, model_card, print_comparison, report_html, verdict
from compression.report.rendering import Origin
from compression.report.words import printable
from tests.pages import Page, require_standalone

ORIGIN = Origin("2026-01-02 03:04 UTC", "9.8.7", "A CPU, 2 cores, Linux")


@pytest.fixture
def manifest(sentiment_bundle: Bundle) -> Manifest:
    """One with all that can be measured in it."""
    manifest = sentiment_bundle.manifest
    assert manifest.figures.significance is not None
    steps = tuple(
        StepFigures(step=step, seconds=12.25, size_mb=size, agreement=0.98, accuracy=0.91, cached=step == "export")
        for step, size in (("export", 0.5), ("quantize", 0.2))
    )
    classes = tuple(
        ClassFigures(label=f"<label {index}>", texts=100, parent_recall=0.9, bundle_recall=0.9 - index / 100)
        for index in range(77)
    )
    reaction = SwapReaction(changed=0.125, largest_score_change=0.3)
    update = {
        "steps": steps,
        "classes": classes,
        "flipped": 60,
        "fairness": Counterfactual(found=16, texts=8, parent=reaction, bundle=reaction),
        "significance": manifest.figures.significance.model_copy(
            update={"accuracy": Difference(value=-0.004, low=-0.012, high=0.003)}
        ),
        "parent": manifest.figures.parent.model_copy(update={"size_mb": 90.0, "accuracy": 0.905}),
        "bundle": manifest.figures.bundle.model_copy(update={"size_mb": 22.5, "accuracy": 0.901}),
        "latency": tuple(
            one.model_copy(update={"ratio": 4.2 - place}) for place, one in enumerate(manifest.figures.latency)
        ),
    }
    return manifest.model_copy(update={"figures": manifest.figures.model_copy(update=update)})


@pytest.fixture
def evidence() -> Evidence:
    script = "<script>alert('text')</script> & more"
    flip = Flip(script, Answer("<b>good</b>", 0.75), Answer("bad", 0.51), "bad")
    return Evidence((flip,), (Bin(9, 0.9, 0.6), Bin(3, 0.5, 0.5)), (Bin(9, 0.7, 0.6), Bin(3, 0.5, 0.5)))


def test_verdict_is_one_sentence_of_gain_and_cost(manifest: Manifest) -> None:
    assert verdict(manifest) == (
        "25 % of the size, 4.2 times as fast at 1 x 24 tokens, 2.2 at 32 x 32; accuracy 90.5 to 90.1 % of "
        f"{manifest.data.labelled_test_texts} texts, difference -0.4 points, 95 % interval -1.2 to +0.3."
    )
    agreement = {"agreement": 0.987, "agreement_low": 0.977, "agreement_high": 0.992}
    bare = manifest.figures.model_copy(update={"significance": None, **agreement})
    sentence = verdict(manifest.model_copy(update={"figures": bare}))
    assert "the parent's label on 98.7 % of" in sentence
    assert sentence.endswith("95 % interval 97.7 to 99.2.")
    assert ("agreement with parent, % (95 %)", "", "98.7 (97.7 to 99.2)") in comparison(
        manifest.model_copy(update={"figures": bare})
    )


def test_report_is_whole_and_needs_nothing_else(manifest: Manifest, evidence: Evidence) -> None:
    html = report_html(manifest, ORIGIN, evidence)
    page = Page(html)
    require_standalone(html)
    images = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(images) == 4  # speed, size, labels, reliability
    assert all(image["role"] == "img" and image["aria-label"] for image in images)
    for shown in (
        verdict(manifest),
        "McNemar",
        "12.2 (cached)",
        "16 of",
        "selection texts",
        "9.8.7",
        "A CPU",
        "2026-01-02",
        "60 of",
        "labelled: bad",
        "temperature",
    ):
        assert shown in page.text, shown


def test_what_the_bundle_abstains_from_is_shown(manifest: Manifest, evidence: Evidence) -> None:
    selective = SelectiveFigures(texts=400, parent_aurc=0.0123, bundle_aurc=0.0234, answered=300, right=291)
    figures = manifest.figures.model_copy(update={"selective": selective})
    curves = ((0.5, 0.01), (1.0, 0.1)), ((0.5, 0.02), (1.0, 0.12))
    seen = dataclasses.replace(evidence, parent_risk=curves[0], bundle_risk=curves[1])
    runtime = manifest.runtime.model_copy(update={"abstain": AbstainOptions(below=0.71, error=0.05)})
    abstaining = manifest.model_copy(update={"figures": figures, "runtime": runtime})
    assert ("answered, % (95 %)", "", "75.0 (70.5 to 79.0)") in comparison(abstaining)
    assert ("accuracy of what is answered, % (95 %)", "", "97.0 (94.4 to 98.4)") in comparison(abstaining)
    assert "whose calibrated confidence is below 0.7100" in model_card(abstaining, "mine")
    html = report_html(abstaining, ORIGIN, seen)
    require_standalone(html)
    page = " ".join(Page(html).text.split())
    assert (
        "below 0.7100: of 400 texts with labels it answers 75.0 (300 of 400) %, and of these 3.0 (9 of 300) %" in page
    )
    assert "parent 1.2, bundle 2.3" in page
    assert 'aria-label="Error among the surest texts, 1.0 % of half and 10.0 % of all of the parent' in html

    none = manifest.model_copy(update={"figures": figures})
    assert not any("answered" in what for what, *_ in comparison(none))
    assert "abstains" not in model_card(none, "mine")
    assert "The bundle abstains from no answer" in Page(report_html(none, ORIGIN, seen)).text


def test_texts_and_labels_are_escaped(manifest: Manifest, evidence: Evidence) -> None:
    html = report_html(manifest, ORIGIN, evidence)
    assert "<script>" not in html
    assert "<b>good</b>" not in html
    assert "<label 5" not in html
    assert "<script>alert('text')</script> & more" in Page(html).text


HOSTILE = [
    "<script>alert(1)</script>", "[a](javascript:alert(1))", "![a](https://evil.example/x.png)", "*a* _b_ **c** ~~d~~",
    "`code`", "``", "a|b", "&lt;", "<https://evil.example>", "a_b_c", "a\\", "# a",
    "a\nb\x1b[31m", "=cmd()", "差评",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_the_card_shows_names_as_they_are(manifest: Manifest, name: str) -> None:
    hostile = manifest.model_copy(
        update={
            "labels": (name, "other"),
            "parent": manifest.parent.model_copy(update={"name": name}),
            "data": manifest.data.model_copy(update={"name": name}),
            "recipe": {"name": name},
        }
    )
    page = Page(MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(model_card(hostile, name)))
    assert {tag for tag, _ in page.tags} <= {"h1", "p", "code", "table", "thead", "tbody", "tr", "th", "td"}
    shown = printable(name)
    assert page.texts_of("h1") == [shown.strip()]
    assert [text.strip() for text in page.texts_of("code")[:3]] == [shown.strip(), shown.strip(), "report.html"]
    assert f" texts of {shown.strip()}" in page.text
    assert [text.strip() for text in page.texts_of("code")[3:]] == [shown.strip(), "other"]


@pytest.mark.parametrize("name", ["[/b]", "[red]x", ":cat:"])
def test_the_table_shows_a_name_as_it_is(manifest: Manifest, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(name, manifest)
    assert capsys.readouterr().out.startswith(f"{name} on ")


def test_a_text_may_be_of_another_language_than_the_page(manifest: Manifest, evidence: Evidence) -> None:
    flip = Flip("味道不错", Answer("好评", 0.75), Answer("差评", 0.51), "好评")
    page = Page(report_html(manifest, ORIGIN, dataclasses.replace(evidence, flips=(flip,))))
    assert ("p", {"lang": "", "dir": "auto"}) in page.tags
    assert "味道不错" in page.text
    assert "parent: 好评" in page.text


def test_only_the_largest_changes_are_drawn_and_all_are_listed(manifest: Manifest) -> None:
    page = Page(report_html(manifest, ORIGIN))
    assert sum(tag == "rect" and attributes["class"] == "loss" for tag, attributes in page.tags) == 20
    drawn = page.texts_of("svg")
    assert "<label 76>" in drawn
    assert "<label 56>" not in drawn
    assert "<label 56>" in page.text


def test_wide_tables_scroll_by_themselves(manifest: Manifest, evidence: Evidence) -> None:
    page = Page(report_html(manifest, ORIGIN, evidence))
    regions = [attributes for tag, attributes in page.tags if attributes.get("class") == "scroll"]
    assert len(regions) >= 5
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)


def test_a_manifest_without_labels_renders(manifest: Manifest) -> None:
    bare = {"significance": None, "calibration": None, "classes": (), "steps": (), "fairness": None, "robustness": ()}
    figures = manifest.figures.model_copy(update=bare)
    without = manifest.model_copy(update={"figures": figures})
    assert "nothing was measured" in Page(report_html(without, ORIGIN)).text
    assert "McNemar" not in report_html(without, ORIGIN)


def test_speeds_stand_beside_those_of_the_parent_in_onnx_runtime(manifest: Manifest) -> None:
    figures = manifest.figures
    with_it, without = (
        manifest.model_copy(
            update={
                "figures": figures.model_copy(
                    update={"latency": tuple(one.model_copy(update={"onnx_ratio": ratio}) for one in figures.latency)}
                )
            }
        )
        for ratio in (1.73, None)
    )
    assert "| speed, 1 x 24 tokens | 1; 1.7 in ONNX Runtime | 4.2 x" in model_card(with_it, "mine")
    assert "1 x 24 tokens, parent in ONNX Runtime" in report_html(with_it, ORIGIN)
    assert "| speed, 1 x 24 tokens | 1 | 4.2 x" in model_card(without, "mine")
    assert "ONNX Runtime</text>" not in report_html(without, ORIGIN)
    assert "onnx_ratio" not in without.figures.model_dump_json()  # as before there was one


def test_card_and_table_hold_the_interval(manifest: Manifest) -> None:
    card = model_card(manifest, "mine")
    assert "-0.4 (-1.2 to +0.3)" in card
    assert "label changed by typos, %" in card
    assert "swapped names and pronouns, % | 12.5 (1 of 8) | 12.5 (1 of 8) |" in card
    assert ("accuracy, points of difference (95 %)", "", "-0.4 (-1.2 to +0.3)") in comparison(manifest)


def test_speed_names_its_shape_also_where_there_is_one(manifest: Manifest) -> None:
    one = manifest.figures.model_copy(update={"latency": manifest.figures.latency[:1]})
    assert "size, 4.2 times as fast at 1 x 24 tokens; accuracy" in verdict(manifest.model_copy(update={"figures": one}))


def test_percentages_come_with_counts(manifest: Manifest, evidence: Evidence) -> None:
    labelled = manifest.data.labelled_test_texts
    parent, bundle = (f"{100 * right:.1f} ({round(right * labelled)} of {labelled})" for right in (0.905, 0.901))
    assert ("accuracy, %", parent, bundle) in comparison(manifest)
    page = Page(report_html(manifest, ORIGIN, evidence))
    assert "12.5 (1 of 8)" in page.text  # names swapped
    assert "90.0 (90 of 100)" in page.text  # recall
    assert "98.0 (" in page.text  # agreement after a step


def test_a_change_of_a_label_is_drawn_on_an_axis_that_shows_how_little_it_is(manifest: Manifest) -> None:
    many = ClassFigures(label="many", texts=180, parent_recall=0.9, bundle_recall=0.9 - 2 / 180)
    few = ClassFigures(label="few", texts=4, parent_recall=0.5, bundle_recall=0.75)
    figures = manifest.figures.model_copy(update={"classes": (few, many)})
    page = Page(report_html(manifest.model_copy(update={"figures": figures}), ORIGIN))
    drawn = page.texts_of("svg")
    assert drawn.index("many") < drawn.index("few")
    assert {"-1.1 points, -2 of 180 texts", "+25.0 points, +1 of 4 texts", "-30", "0", "points of recall"} <= set(drawn)
    loss, grey = ([attributes for tag, attributes in page.tags if tag == "rect" and attributes["class"] == style]
                  for style in ("loss", "few"))  # fmt: skip
    assert len(loss) == len(grey) == 1
    assert float((loss[0]["width"] or "").rstrip("%")) < 2.5  # 1.1 of the axis' 60 points


def test_two_pages_of_the_same_figures_are_the_same_bytes(manifest: Manifest, evidence: Evidence) -> None:
    assert report_html(manifest, ORIGIN, evidence) == report_html(manifest, ORIGIN, evidence)
    assert "2026-01-02" not in model_card(manifest, "mine")


def test_where_and_when_a_report_was_made_is_no_part_of_the_version(manifest: Manifest) -> None:
    versions = set()
    for origin in (ORIGIN, Origin.now()):
        digest = hashlib.sha256(report_html(manifest, origin).encode()).hexdigest()
        versions.add(manifest.model_copy(update={"files": {**manifest.files, "report.html": digest}}).version())
    assert len(versions) == 1
