"""What a sentiment model's labels mean to triage: positive, neutral or negative, by the setting or by common names."""

from collections.abc import Mapping, Sequence

from service.api.schemas import Sentiment
from service.errors import ConfigurationError
from service.settings import Settings

_COMMON: Mapping[Sentiment, tuple[str, ...]] = {
    "negative": (
        "negative", "neg", "very negative", "1 star", "2 stars", "负面", "负向", "消极", "差评",
        "負面", "負向", "消極", "差評",
    ),
    "neutral": ("neutral", "neu", "3 stars", "中性", "中立", "中评", "中評"),
    "positive": (
        "positive", "pos", "very positive", "4 stars", "5 stars", "正面", "正向", "积极", "好评", "積極", "好評",
    ),
}  # fmt: skip
_MEANING: Mapping[str, Sentiment] = {name: sentiment for sentiment, names in _COMMON.items() for name in names}
_SHOWN = 8  # labels in a message
_EXAMPLES: Mapping[int, tuple[Sentiment, ...]] = {1: ("neutral",), 2: ("negative", "positive")}


def sentiments_of(labels: Sequence[str], settings: Settings) -> dict[str, Sentiment]:
    """The sentiment that each label stands for; case does not matter, and `_` and `-` are as spaces in common names.

    Raises:
        ConfigurationError: a label's meaning is not known, none means positive or none negative, or the setting names
            a label that the model lacks. Says the labels, the setting and an example.
    """
    given = {label.casefold(): sentiment for label, sentiment in settings.triage_sentiment_labels.items()}
    meanings = {label: given.get(label.casefold()) or _MEANING.get(_spaced(label)) for label in labels}
    known = {label: sentiment for label, sentiment in meanings.items() if sentiment is not None}
    unknown = [label for label in labels if label not in known]
    unused = [label for label in settings.triage_sentiment_labels if label.casefold() not in map(str.casefold, labels)]
    if unknown:
        problem = f"what {_listed(unknown)} stand for is not known"
    elif unused:
        problem = f"LATHE_TRIAGE_SENTIMENT_LABELS has {_listed(unused)} besides"
    elif not {"positive", "negative"} <= set(known.values()):
        problem = "triage needs one that means positive and one that means negative"
    else:
        return known
    some = (unknown or list(labels))[:3]
    pairs = zip(some, _EXAMPLES.get(len(some), ("negative", "neutral", "positive")), strict=True)
    example = ",".join(f"{label}={means}" for label, means in pairs)
    raise ConfigurationError(
        f"LATHE_TRIAGE_SENTIMENT={settings.triage_sentiment!r} has the labels {_listed(labels)}; {problem}. Say "
        f"what each means, for example LATHE_TRIAGE_SENTIMENT_LABELS={example}, or set LATHE_TRIAGE=off"
    )


def _spaced(label: str) -> str:
    return label.strip().casefold().replace("_", " ").replace("-", " ")


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more
