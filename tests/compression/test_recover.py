import random

import pytest

from compression.recover import _vary

ENGLISH = ("the parcel was late, again", "my card has not arrived yet")
CHINESE = ("送餐很快，味道也不错！", "等了两个小时wifi还是连不上")  # noqa: RUF001


def variations(texts: tuple[str, ...]) -> set[str]:
    choose = random.Random(0)
    return {_vary(texts[0], texts, choose) for _ in range(2000)}


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE])
def test_variations_are_the_text_its_stretches_and_mixtures_with_others(texts: tuple[str, ...]) -> None:
    text, other = texts
    varied = variations(texts)
    assert text in varied
    stretches = {one for one in varied if one in text and one != text}
    assert len(stretches) > 3
    assert any(one[0] == text[0] and one[-1] == other[-1] and len(one) > 8 for one in varied)


def test_words_with_spaces_stay_whole() -> None:
    known = set(" ".join(ENGLISH).split())
    assert {word for one in variations(ENGLISH) for word in one.split()} <= known


def test_text_without_spaces_gets_none_and_keeps_its_latin_words() -> None:
    varied = variations(CHINESE)
    assert not any(" " in one for one in varied)
    assert {"wifi" in one for one in varied} == {True, False}
    assert all("wifi" in one for one in varied if any(letter in one for letter in "wif"))


def test_one_word_is_no_text_to_vary() -> None:
    choose = random.Random(0)
    assert {_vary("extraordinary", ("extraordinary", "other words"), choose) for _ in range(100)} == {"extraordinary"}
