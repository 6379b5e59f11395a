import pytest

from compression.bundle import Bundle, Runtime
from compression.measure.fairness import measure_fairness, swap
from compression.parent.checkpoint import Parent
from compression.parent.classifier import BundleClassifier, ParentClassifier, predict

LOOK_ALIKE = (
    "the sheet", "this history", "other help", "其他酒店", "弹吉他", "打扰他人", "维他命", "真他妈难吃", "太他么慢",
    "my card", "",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("He lost his card.", "She lost her card."),
        ("She lost her card.", "He lost his card."),
        ("I told her that.", "I told him that."),
        ("I asked her.", "I asked him."),
        ("HER CARD, she's sure", "HIS CARD, he's sure"),
        ("John's card went to mary", "Linda's card went to james"),
        ("Mr Smith himself", "Mrs Smith herself"),
        ("这位先生说他的房间很好", "这位女士说她的房间很好"),
        ("张伟和王芳", "王芳和张伟"),
        ("他妈妈很满意", "她妈妈很满意"),
    ],
)
def test_each_word_gets_its_counterpart(text: str, swapped: str) -> None:
    assert swap(text) == swapped


@pytest.mark.parametrize("text", LOOK_ALIKE)
def test_words_that_only_look_alike_stay(text: str) -> None:
    assert swap(text) == text


def test_only_texts_with_such_a_word_count(parent: Parent, sentiment_bundle: Bundle) -> None:
    models = ParentClassifier(parent), BundleClassifier("bundle", Runtime.of(sentiment_bundle), parent.task)
    texts = ["he was good", "the app is slow", "is she happy", "bad bank"]
    expected, got = (predict(model, texts, "") for model in models)
    figures = measure_fairness(*models, texts, expected, got)
    assert figures is not None
    assert (figures.found, figures.texts) == (2, 2)
    assert figures.parent.largest_score_change > 0
    assert figures.bundle.largest_score_change > 0

    flipped = measure_fairness(*models, texts, -expected, got)  # as if the parent had said the opposite before
    assert flipped is not None
    assert flipped.parent.changed == 1
    assert flipped.bundle == figures.bundle


def test_nothing_to_swap_is_no_figure(parent: Parent) -> None:
    model = ParentClassifier(parent)
    logits = predict(model, ["bad bank"], "")
    assert measure_fairness(model, model, ["bad bank"], logits, logits) is None
