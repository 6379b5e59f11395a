import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.bundle import Bundle, Runtime
from compression.data import Examples, read_examples
from compression.measure import robustness
from compression.measure.robustness import KINDS, measure_robustness
from compression.parent.checkpoint import Parent
from compression.parent.classifier import BundleClassifier, ParentClassifier, predict

TEXT = "The delivery, which I waited for, never arrived!"


def perturbed(kind: str, text: str, seed: int = 0) -> str:
    return KINDS[kind](text, random.Random(seed))


def test_what_each_kind_does() -> None:
    assert perturbed("case", TEXT) == TEXT.upper()
    assert perturbed("case", "LOUD") == "loud"
    assert perturbed("punctuation", TEXT) == "The delivery which I waited for never arrived"
    assert perturbed("punctuation", "no stop") == "no stop."
    assert perturbed("punctuation", "菜很好，送餐快！") == "菜很好送餐快"  # noqa: RUF001
    assert perturbed("punctuation", "很好吃") == "很好吃。"
    assert perturbed("whitespace", TEXT).split() == TEXT.split()
    assert perturbed("whitespace", TEXT) != TEXT


@given(st.text(), st.integers(0, 1000))
def test_no_text_is_too_strange(text: str, seed: int) -> None:
    for kind in KINDS:
        assert perturbed(kind, text, seed) == perturbed(kind, text, seed)


@given(st.lists(st.text("abcdefgh", min_size=4, max_size=12), min_size=1, max_size=30), st.integers(0, 1000))
def test_typos_are_few_and_inside_words(words: list[str], seed: int) -> None:
    after = perturbed("typos", " ".join(words), seed).split(" ")
    touched = [(one, two) for one, two in zip(words, after, strict=True) if one != two]
    assert len(touched) <= -(-len(words) // 8)
    for one, two in touched:
        assert (one[0], one[-1]) == (two[0], two[-1])
        assert abs(len(one) - len(two)) <= 1


def test_typos_reach_chinese_and_leave_out_no_character() -> None:
    text = "房间不是很干净"
    after = {perturbed("typos", text, seed) for seed in range(50)}
    assert after - {text}
    assert all(set(text) <= set(typo) for typo in after)


@pytest.fixture
def models(parent: Parent, sentiment_bundle: Bundle) -> tuple[ParentClassifier, BundleClassifier]:
    return ParentClassifier(parent), BundleClassifier("bundle", Runtime.of(sentiment_bundle), parent.task)


def test_figures_are_those_of_asking_again(
    models: tuple[ParentClassifier, BundleClassifier], sentiment_data: Path
) -> None:
    parent, bundle = models
    examples = read_examples(sentiment_data)
    test = examples.where([index < 100 for index in range(len(examples))])
    expected, got = (predict(model, test.texts, "") for model in models)
    figures = {noise.kind: noise for noise in measure_robustness(parent, bundle, test, expected, got, seed=3)}
    assert list(figures) == ["typos", "case", "punctuation", "whitespace"]
    for kind, noise in figures.items():
        choose = random.Random(f"{kind} 3")
        pairs = [(index, KINDS[kind](text, choose)) for index, text in enumerate(test.single_texts)]
        pairs = [(index, after) for index, after in pairs if after != test.texts[index]]
        assert noise.texts == len(pairs)
        for model, before, reaction in ((parent, expected, noise.parent), (bundle, got, noise.bundle)):
            rows = [index for index, _ in pairs]
            answers = predict(model, [text for _, text in pairs], "").argmax(1)
            assert reaction.changed == pytest.approx((answers != before[rows].argmax(1)).mean())
            right = [model.task.labels[answer] == test.labels[row] for answer, row in zip(answers, rows, strict=True)]
            assert reaction.accuracy_after == pytest.approx(np.mean(right))
    assert figures["typos"].parent.changed > 0
    assert figures["case"].parent.changed == 0  # the tokenizer lowers all letters


def test_at_most_200_texts_are_tried(
    models: tuple[ParentClassifier, BundleClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "MAX_TEXTS", 10)
    test = Examples(("good service",) * 30, (None,) * 30, (None,) * 30)
    expected, got = (predict(model, test.texts, "") for model in models)
    figures = measure_robustness(*models, test, expected, got)
    assert {noise.texts for noise in figures} <= set(range(1, 11))
    assert all(noise.parent.accuracy_after is None for noise in figures)
