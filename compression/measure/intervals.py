"""95 % intervals of counts, in closed form, so that they need neither scipy nor the texts."""

import math
from statistics import NormalDist

Interval = tuple[float, float]  # low, high
Z = NormalDist().inv_cdf(0.975)


def wilson(found: int, texts: int) -> Interval:
    """Interval of the fraction `found / texts`, of at least one text (Wilson 1927).

    A bootstrap would say 1 to 1 where all of a few texts agree; this interval stays as wide as they are few.
    """
    fraction = found / texts
    centre = (fraction + Z**2 / (2 * texts)) / (1 + Z**2 / texts)
    half = Z / (1 + Z**2 / texts) * math.sqrt(fraction * (1 - fraction) / texts + Z**2 / (4 * texts**2))
    # At the ends the sums are exact only on paper.
    return 0.0 if found == 0 else centre - half, 1.0 if found == texts else centre + half


def newcombe(before: int, after: int, texts: int) -> Interval:
    """Interval of the difference `(after - before) / texts` of two fractions (Newcombe 1998, method 10).

    It takes the two for independent; of two models that answer the same texts mostly alike, it is wider than need be.
    """
    (low, high), (other_low, other_high) = wilson(before, texts), wilson(after, texts)
    first, second = before / texts, after / texts
    return (
        second - first - math.hypot(second - other_low, high - first),
        second - first + math.hypot(other_high - second, first - low),
    )
