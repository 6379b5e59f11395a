from typing import Any

import pytest

from service.api.triage import Triage
from service.environment import load_settings
from service.errors import ConfigurationError

INTENTS = ("card_arrival", "compromised_card")


def judge(positive: float, intent: str = "card_arrival", confidence: float = 0.9, **settings: str) -> object:
    rules = Triage(load_settings(settings), ("negative", "positive"), INTENTS)
    other = next(name for name in INTENTS if name != intent)
    sentiment = {"negative": 1 - positive, "positive": positive}
    return rules.judge(sentiment, {intent: confidence, other: 1 - confidence}, truncated=False)


@pytest.mark.parametrize(
    ("positive", "sentiment"),
    [(0.1, "negative"), (0.35, "neutral"), (0.5, "neutral"), (0.65, "neutral"), (0.9, "positive")],
)
def test_neutral_is_a_band(positive: float, sentiment: str) -> None:
    assert judge(positive, LATHE_NEUTRAL_LOW="0.35", LATHE_NEUTRAL_HIGH="0.65").sentiment == sentiment  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("positive", "intent", "confidence", "reason"),
    [
        (0.9, "card_arrival", 0.9, None),
        (0.01, "card_arrival", 0.9, "strong_anger"),
        (0.9, "compromised_card", 0.9, "listed_intent"),
        (0.9, "card_arrival", 0.51, "low_confidence"),
        (0.01, "compromised_card", 0.51, "strong_anger"),
    ],
)
def test_a_person_takes_over_for_a_reason(positive: float, intent: str, confidence: float, reason: str | None) -> None:
    result = judge(positive, intent, confidence, LATHE_MIN_CONFIDENCE="0.6", LATHE_ANGER="0.97")
    assert result.reason == reason  # type: ignore[attr-defined]
    assert result.hand_to_person == (reason is not None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("abstained", "confidence", "settings", "unsure"),
    [
        (None, 0.49, {}, True),
        (None, 0.51, {}, False),
        (True, 0.9, {}, True),
        (False, 0.3, {}, False),
        (True, 0.9, {"LATHE_MIN_CONFIDENCE": "0.8"}, False),
        (False, 0.7, {"LATHE_MIN_CONFIDENCE": "0.8"}, True),
        (True, 0.9, {"LATHE_MIN_CONFIDENCE": "0"}, False),
    ],
)
def test_confidence_is_low_by_the_setting_or_the_model_s_own_threshold(
    abstained: bool | None, confidence: float, settings: dict[str, str], unsure: bool
) -> None:
    rules = Triage(load_settings(settings), ("negative", "positive"), INTENTS)
    intent = {"card_arrival": confidence, "compromised_card": 0.0}
    result = rules.judge({"negative": 0.0, "positive": 1.0}, intent, truncated=False, abstained=abstained)
    assert (result.reason == "low_confidence") is unsure
    assert result.abstained is abstained


def test_a_model_with_a_neutral_label_decides_itself() -> None:
    rules = Triage(load_settings({}), ("negative", "neutral", "positive"), INTENTS)
    probabilities = {"negative": 0.3, "neutral": 0.6, "positive": 0.1}
    result = rules.judge(probabilities, {"card_arrival": 1.0}, truncated=False)
    assert (result.sentiment, result.sentiment_score) == ("neutral", 0.6)


@pytest.mark.parametrize(
    ("positive", "sentiment", "score"), [(0.1, "negative", 0.9), (0.9, "positive", 0.9), (0.35, "neutral", None)]
)
def test_the_sentiment_s_score_is_its_own_probability(positive: float, sentiment: str, score: float | None) -> None:
    result: Any = judge(positive)
    assert (result.sentiment, result.sentiment_score) == (sentiment, score)
    assert result.sentiment_probabilities == {"negative": 1 - positive, "positive": positive}


@pytest.mark.parametrize(
    ("labels", "setting"),
    [
        (("NEGATIVE", "POSITIVE"), ""),
        (("Neg", "pos"), ""),
        (("负面", "正面"), ""),
        (("差评", "好评"), ""),
        (("1 star", "5 stars"), ""),
        (("Very_Negative", "very-positive"), ""),
        (("LABEL_0", "LABEL_1"), "LABEL_0=negative,LABEL_1=positive"),
        (("label_0", "a=b"), "LABEL_0=negative, a=b=positive"),
        (("positive", "negative"), "positive=negative,negative=positive"),
    ],
)
def test_labels_have_a_meaning_by_common_names_or_by_the_setting(labels: tuple[str, str], setting: str) -> None:
    rules = Triage(load_settings({"LATHE_TRIAGE_SENTIMENT_LABELS": setting}), labels, INTENTS)
    results = [
        rules.judge(dict(zip(labels, row, strict=True)), {"card_arrival": 1.0}, truncated=False).sentiment
        for row in ((0.9, 0.1), (0.1, 0.9))
    ]
    assert results == ["negative", "positive"]


def test_labels_that_mean_the_same_are_added_up() -> None:
    stars = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
    rules = Triage(load_settings({}), stars, INTENTS)
    sentiment = dict(zip(stars, (0.05, 0.05, 0.3, 0.25, 0.35), strict=True))
    result = rules.judge(sentiment, {"card_arrival": 1.0}, truncated=False)
    assert result.sentiment == "positive"
    assert result.sentiment_probabilities == pytest.approx({"negative": 0.1, "neutral": 0.3, "positive": 0.6})


@pytest.mark.parametrize(
    ("labels", "setting", "says"),
    [
        (
            ("LABEL_0", "LABEL_1"),
            "",
            "the labels LABEL_0, LABEL_1; what LABEL_0, LABEL_1 stand for is not known. Say what each means, for "
            "example LATHE_TRIAGE_SENTIMENT_LABELS=LABEL_0=negative,LABEL_1=positive, or set LATHE_TRIAGE=off",
        ),
        (("negative", "positive", "mixed"), "", "LATHE_TRIAGE_SENTIMENT_LABELS=mixed=neutral"),
        (("positive", "neutral"), "", "needs one that means positive and one that means negative"),
        (("negative", "positive"), "LABEL_1=positive", "LATHE_TRIAGE_SENTIMENT_LABELS has LABEL_1 besides"),
        (tuple(map(str, range(77))), "", "0, 1, 2, 3, 4, 5, 6, 7 and 69 more"),
    ],
)
def test_labels_without_a_meaning_are_refused_with_the_setting_and_an_example(
    labels: tuple[str, ...], setting: str, says: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Triage(load_settings({"LATHE_TRIAGE_SENTIMENT_LABELS": setting}), labels, INTENTS)
    assert says in str(refusal.value)
