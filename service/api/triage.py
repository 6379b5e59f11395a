"""Triage: sentiment, intent, and whether a person should take over, from the probabilities of two models."""

from collections.abc import Mapping, Sequence

from compression.bundle import Bundle, SingleLabel
from service.api.schemas import Reason, Sentiment, TriageResult
from service.api.sentiment_labels import sentiments_of
from service.errors import ConfigurationError
from service.settings import Settings

# Of banking77: money or identity at risk, or a customer who leaves. A machine's answer is not enough there.
DEFAULT_HAND_OVER = (
    "card_payment_not_recognised",
    "cash_withdrawal_not_recognised",
    "compromised_card",
    "direct_debit_payment_not_recognised",
    "lost_or_stolen_card",
    "lost_or_stolen_phone",
    "terminate_account",
)

DEFAULT_MIN_CONFIDENCE = 0.5


class Triage:
    """The rules, made once from the settings and the labels of the two models.

    Raises:
        ConfigurationError: the sentiment model's labels have no known meaning, or the settings list an unknown intent.
    """

    def __init__(self, settings: Settings, sentiment_labels: Sequence[str], intent_labels: Sequence[str]) -> None:
        self._sentiments = sentiments_of(sentiment_labels, settings)
        unknown = sorted(set(settings.hand_over_intents or ()) - set(intent_labels))
        if unknown:
            raise ConfigurationError(
                f"LATHE_HAND_OVER_INTENTS has {', '.join(map(repr, unknown))}, which the model "
                f"{settings.triage_intent!r} does not know; GET /v1/models lists its labels"
            )
        listed = DEFAULT_HAND_OVER if settings.hand_over_intents is None else settings.hand_over_intents
        self._listed = frozenset(listed)
        self._settings = settings

    def judge(
        self,
        sentiment: Mapping[str, float],
        intent: Mapping[str, float],
        truncated: bool,
        abstained: bool | None = None,
    ) -> TriageResult:
        """Judges one message.

        Args:
            sentiment: calibrated probability of each label of the sentiment model.
            intent: likewise of the intent model.
            abstained: whether that does not stand by its answer; None where nothing says so.
        """
        probabilities: dict[Sentiment, float] = dict.fromkeys(sorted(set(self._sentiments.values())), 0.0)
        for label, probability in sentiment.items():
            probabilities[self._sentiments[label]] += probability
        given = self._sentiment(probabilities)
        likeliest = max(intent, key=intent.__getitem__)
        unsure = self._unsure(intent[likeliest], abstained)
        reason = self._reason(probabilities["negative"], likeliest, unsure)
        return TriageResult(
            sentiment=given,
            sentiment_score=probabilities.get(given),
            sentiment_probabilities=probabilities,
            intent=likeliest,
            confidence=intent[likeliest],
            hand_to_person=reason is not None,
            reason=reason,
            truncated=truncated,
            abstained=abstained,
        )

    def _sentiment(self, probabilities: Mapping[Sentiment, float]) -> Sentiment:
        if "neutral" in probabilities:
            return max(probabilities, key=probabilities.__getitem__)
        if probabilities["positive"] > self._settings.neutral_high:
            return "positive"
        return "negative" if probabilities["positive"] < self._settings.neutral_low else "neutral"

    def _unsure(self, confidence: float, abstained: bool | None) -> bool:
        """By the setting; where that is not set, by the model's own threshold, or the default where it has none."""
        least = self._settings.min_confidence
        if least is None and abstained is not None:
            return abstained
        return confidence < (DEFAULT_MIN_CONFIDENCE if least is None else least)

    def _reason(self, negative: float, intent: str, unsure: bool) -> Reason | None:
        if negative >= self._settings.anger:
            return "strong_anger"
        if intent in self._listed:
            return "listed_intent"
        return "low_confidence" if unsure else None


def check_fit(settings: Settings, bundles: Mapping[str, Bundle]) -> None:
    """Refuses models that triage cannot work with, where there is triage.

    Args:
        bundles: of each model, by name.

    Raises:
        ConfigurationError: the labels of a model of triage do not fit it, or it does not give one to a text, or reads
            pairs of texts.
    """
    if why_no_triage(settings) is not None:
        return
    sentiment, intent = bundles[settings.triage_sentiment], bundles[settings.triage_intent]
    for setting, name, bundle in (
        ("LATHE_TRIAGE_SENTIMENT", settings.triage_sentiment, sentiment),
        ("LATHE_TRIAGE_INTENT", settings.triage_intent, intent),
    ):
        if bundle.manifest.inputs == "pairs":
            raise ConfigurationError(
                f"{setting}={name!r} reads pairs of texts, and triage reads one message; name another model, or set "
                "LATHE_TRIAGE=off"
            )
        if not isinstance(bundle.task, SingleLabel):
            raise ConfigurationError(
                f"{setting}={name!r} gives {bundle.task.gives} to a text, and triage needs one label; name another "
                "model, or set LATHE_TRIAGE=off"
            )
    Triage(settings, sentiment.task.labels, intent.task.labels)


def why_no_triage(settings: Settings) -> str | None:
    """Why there is no triage: it is off, or one of its models is not served; None where there is."""
    if settings.triage == "off":
        return "triage is off here: LATHE_TRIAGE=off"
    if {settings.triage_sentiment, settings.triage_intent} <= set(settings.models):
        return None
    return (
        f"triage is off here: it needs the models {settings.triage_sentiment!r} and {settings.triage_intent!r}, which "
        "are not both served; LATHE_TRIAGE_SENTIMENT and LATHE_TRIAGE_INTENT name others"
    )
