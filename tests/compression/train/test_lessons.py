import dataclasses
import random
from pathlib import Path

import pytest
import torch

from compression.data import read_examples
from compression.parent.checkpoint import Parent
from compression.prune.layers import drop_layers
from compression.prune.vocabulary import prune_parent_vocabulary
from compression.train.lessons import distillation_loss, lessons, vary

ENGLISH = ("the parcel was late, again", "my card has not arrived yet")
CHINESE = ("送餐很快，味道也不错！", "等了两个小时wifi还是连不上")  # noqa: RUF001


@pytest.fixture(scope="module")
def texts(sentiment_data: Path) -> tuple[str, ...]:
    return read_examples(sentiment_data).single_texts[:40]


def other(parent: Parent) -> Parent:
    torch.manual_seed(1)
    return dataclasses.replace(parent, model=type(parent.model)(parent.model.config).eval())


def test_the_parent_itself_has_nothing_to_learn(parent: Parent, texts: tuple[str, ...]) -> None:
    for lesson in lessons(parent, parent, texts, hidden=True):
        assert distillation_loss(parent.model, lesson, 1.0).item() == pytest.approx(0, abs=1e-5)


def test_hidden_states_teach_every_layer(parent: Parent, texts: tuple[str, ...]) -> None:
    student = other(parent).model
    (lesson, *_) = lessons(parent, parent, texts, hidden=True)
    distillation_loss(student, lesson, 1.0).backward()  # type: ignore[no-untyped-call]
    layers = len(lesson.hidden)
    assert layers == parent.model.config.num_hidden_layers
    predictions, both = (distillation_loss(student, lesson, weight).item() for weight in (0.0, 1.0))
    assert 0.5 * layers < both - predictions < 5 * layers  # a random model is about as far from each as it is long


def test_texts_that_are_cut_otherwise_are_compared_at_the_first_token(parent: Parent, texts: tuple[str, ...]) -> None:
    pruned = prune_parent_vocabulary(parent, [], 0)
    (lesson, *_) = lessons(parent, pruned, texts, hidden=True)
    assert lesson.compared[:, 0].all()
    assert not lesson.compared[:, 1:].any()
    assert all(layer.shape[:2] == lesson.compared.shape for layer in lesson.hidden)
    assert torch.isfinite(distillation_loss(pruned.model, lesson, 1.0))


def test_a_model_with_fewer_layers_learns_from_the_last(parent: Parent, texts: tuple[str, ...]) -> None:
    fewer = drop_layers(parent, texts, 1)
    (lesson, *_) = lessons(parent, fewer, texts, hidden=True)
    assert torch.isfinite(distillation_loss(fewer.model, lesson, 1.0))


def variations(pair: tuple[str, ...]) -> set[str]:
    choose = random.Random(0)
    return {text for _ in range(2000) if isinstance(text := vary(pair[0], pair, choose), str)}


@pytest.mark.parametrize("pair", [ENGLISH, CHINESE])
def test_variations_are_the_text_its_stretches_and_mixtures_with_others(pair: tuple[str, ...]) -> None:
    text, other = pair
    varied = variations(pair)
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
    assert {vary("extraordinary", ("extraordinary", "other words"), choose) for _ in range(100)} == {"extraordinary"}
