"""The pictures of both READMEs."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.contrast import contrast

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURES = ("flow.svg", "flow.zh-CN.svg")
SVG = "{http://www.w3.org/2000/svg}"
COLOUR = r"(#[0-9a-f]{6})"


@pytest.mark.parametrize("name", PICTURES)
def test_arrowheads_are_filled_and_arrows_are_not(name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    tree = ElementTree.fromstring(text)
    assert [path.get("class") for path in tree.findall(f".//{SVG}marker/{SVG}path")] == ["tip"]
    assert {path.get("class") for path in tree.findall(f"{SVG}path")} == {"arrow"}
    fills = re.findall(r"\.tip \{ fill: ([^;]+); \}", text)
    assert len(fills) == 2  # light and dark
    assert not re.search(r"(?<![.\w])path \{[^}]*fill", text)  # would take the fill from the heads, too


@pytest.mark.parametrize("name", PICTURES)
def test_words_stand_out_from_their_boxes_in_both_schemes(name: str) -> None:
    light, dark = (DOCS / name).read_text("utf-8").split("@media (prefers-color-scheme: dark)")
    for part in (light, dark):
        boxes = [re.search(rf"{rule} \{{ fill: {COLOUR}", part) for rule in ("rect", r"\.main")]
        words = [re.search(rf"{rule} \{{ (?:font-size: 12px; )?fill: {COLOUR}", part) for rule in ("text", r"\.small")]
        for box in boxes:
            for word in words:
                assert box is not None
                assert word is not None
                assert contrast(box[1], word[1]) >= 4.5, (box[0], word[0])


def test_the_chinese_picture_is_the_english_one_with_other_words() -> None:
    def drawn(name: str) -> list[tuple[str, dict[str, str]]]:
        tree = ElementTree.fromstring((DOCS / name).read_text("utf-8"))
        return [(element.tag, dict(element.attrib)) for element in tree.iter() if element is not tree]

    assert drawn("flow.svg") == drawn("flow.zh-CN.svg")
    texts = ElementTree.fromstring((DOCS / "flow.zh-CN.svg").read_text("utf-8")).findall(f".//{SVG}text")
    english = {"lathe compress", "Hugging Face、peft"}  # names
    assert all(re.search(r"[一-鿿]", text.text or "") for text in texts if text.text not in english)


def test_each_readme_shows_its_own_picture() -> None:
    assert "(docs/flow.svg)" in (DOCS.parent / "README.md").read_text("utf-8")
    assert "(docs/flow.zh-CN.svg)" in (DOCS.parent / "README.zh-CN.md").read_text("utf-8")
