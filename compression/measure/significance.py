"""Can the test texts tell a bundle from its parent? Paired bootstrap of the difference, McNemar's test.

Both models answer the same texts, so most of the noise of a test set cancels in the difference: it is resampled in
pairs (Koehn 2004), not model by model.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from compression.bundle import Difference, Significance
from compression.bundle.task import Answers
from compression.measure.evaluate import Counts, macro_f1, micro_f1, numbered

RESAMPLES = 2000


def compare_answers(
    expected: Answers, parent: Answers, bundle: Answers, seed: int = 0, several: bool = False
) -> Significance:
    """Bundle against parent on the same labelled texts, at least one.

    Two texts with the same expected labels and the same two answers are alike to the bootstrap: it draws how often each
    distinct triple occurs, a multinomial, instead of single texts. The distribution is the same, at a fraction of the
    work.

    Args:
        expected: (texts, labels), as are the others.
        several: whether a text may have several labels: micro F1 is compared too.
    """
    sets, numbers = numbered(expected, parent, bundle)
    triples, counts = np.unique(np.stack(numbers), axis=1, return_counts=True)
    texts = int(counts.sum())
    resampled = np.random.default_rng(seed).multinomial(texts, counts / texts, size=RESAMPLES)
    drawn: Counts = np.concatenate([counts[None], resampled]).astype(np.float64)  # the data itself comes first
    truth, answers = sets[triples[0]], sets[triples[1:]]
    right = triples[1:] == triples[0]  # (2, triples)
    parent_only, bundle_only = (int(counts[one & ~other].sum()) for one, other in (right, right[::-1]))
    discordant = parent_only + bundle_only
    accuracy = drawn @ (right[1].astype(np.float64) - right[0]) / texts
    micro = micro_f1(drawn, truth, answers[1]) - micro_f1(drawn, truth, answers[0])
    return Significance(
        accuracy=_difference(accuracy),
        macro_f1=_difference(macro_f1(drawn, truth, answers[1]) - macro_f1(drawn, truth, answers[0])),
        micro_f1=_difference(micro) if several else None,
        resamples=RESAMPLES,
        parent_only=parent_only,
        bundle_only=bundle_only,
        mcnemar_p=float(binomtest(parent_only, discordant).pvalue) if discordant else 1.0,
    )


def _difference(values: npt.NDArray[Any]) -> Difference:
    """The first value is the data's own, the others are the resamples'."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Difference(value=float(values[0]), low=float(low), high=float(high))
