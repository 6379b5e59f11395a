import pytest

from service.api.triage import Triage
from service.errors import ConfigurationError
from service.settings import load_settings

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


def test_a_model_with_a_neutral_label_decides_itself() -> None:
    rules = Triage(load_settings({}), ("negative", "neutral", "positive"), INTENTS)
    probabilities = {"negative": 0.3, "neutral": 0.6, "positive": 0.1}
    assert rules.judge(probabilities, {"card_arrival": 1.0}, truncated=False).sentiment == "neutral"


def test_labels_that_are_no_sentiment_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="triage needs positive and negative"):
        Triage(load_settings({}), ("LABEL_0", "LABEL_1"), INTENTS)
