"""What `report.html` shows beyond the manifest: single texts and the bins of the reliability diagram."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Answer:
    """A label and its score: 0 to 1, or the number."""

    label: str
    score: float


@dataclass(frozen=True)
class Flip:
    """A test text that the bundle answers otherwise than its parent; `truth` is None where it has no label."""

    text: str
    parent: Answer
    bundle: Answer
    truth: str | None


@dataclass(frozen=True)
class Bin:
    """The texts whose top score lies in one of the equal parts of 0 to 1; both figures are their means."""

    texts: int
    confidence: float
    accuracy: float


RiskPoint: TypeAlias = tuple[float, float]  # coverage, and the error among what is answered
RiskCurve: TypeAlias = tuple[RiskPoint, ...]  # from the surest text to all of them


@dataclass(frozen=True)
class Evidence:
    """Empty where there is nothing to show.

    Attributes:
        flips: the first of the texts that flipped, surest answers of the bundle first; of numbers, the furthest.
        before: bins of the bundle at temperature 1; `after` at the temperature that it serves with.
        parent_risk: how errors go with coverage, of the parent, and `bundle_risk` of the bundle; at that temperature.
        numbers: the parent's and the bundle's, of the first of the test texts, where they are numbers.
    """

    flips: tuple[Flip, ...] = ()
    before: tuple[Bin, ...] = ()
    after: tuple[Bin, ...] = ()
    parent_risk: RiskCurve = ()
    bundle_risk: RiskCurve = ()
    numbers: tuple[tuple[float, float], ...] = ()
