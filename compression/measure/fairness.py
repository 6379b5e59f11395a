"""Counterfactual fairness: the same text, or pair, with its names and pronouns swapped should keep its answer.

After Kusner et al. 2017 and Garg et al. 2019. The word lists are small and of two languages, so this can show a
difference between parent and bundle, and never that a model is fair.
"""

import random
import re
from collections.abc import Sequence

import numpy as np

from compression.bundle import Counterfactual, Input, Logits, SwapReaction, Task, changed
from compression.parent.classifier import Classifier, predict

MAX_TEXTS = 200

# Common first names without another meaning in English (no Mark, Will, Grace, Rose), each with its counterpart.
_NAMES = (
    ("james", "mary"), ("john", "linda"), ("robert", "patricia"), ("michael", "jennifer"), ("david", "susan"),
    ("william", "elizabeth"), ("richard", "barbara"), ("thomas", "karen"), ("daniel", "sarah"), ("matthew", "emily"),
    ("anthony", "jessica"), ("paul", "laura"), ("andrew", "emma"), ("kevin", "rachel"), ("brian", "amanda"),
    ("george", "helen"), ("peter", "anna"), ("steven", "michelle"), ("eric", "julia"), ("adam", "sophie"),
    ("jamal", "lakisha"), ("tyrone", "latoya"), ("mohammed", "fatima"), ("ahmed", "aisha"), ("carlos", "maria"),
    ("juan", "carmen"), ("wei", "mei"), ("raj", "priya"),
)  # fmt: skip
_PRONOUNS = (("he", "she"), ("himself", "herself"), ("him", "her"), ("his", "her"), ("mr", "mrs"))
_CHINESE = (
    ("他", "她"), ("先生", "女士"), ("张伟", "王芳"), ("李强", "李娜"), ("刘洋", "刘芳"), ("王磊", "王丽"),
    ("陈杰", "陈静"), ("小明", "小红"),
)  # fmt: skip
# "her" is a possessive before any word but these, after which it was an object ("told her that").
_POSSESSIVE = re.compile(
    r"her\s+(?!(?:a|about|after|again|an|and|as|at|back|because|before|but|by|for|from|how|i|if|in|into|is|it|of|off|on|"
    r"or|out|over|so|than|that|the|then|there|they|to|today|too|up|was|we|what|when|where|who|why|with|you)\b)[a-z]",
    re.IGNORECASE,
)
_ENGLISH = re.compile(r"[a-zA-Z]+")


def _both_ways(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    return dict(pairs) | {two: one for one, two in pairs}


_SWAPS = _both_ways([*_NAMES, *_PRONOUNS]) | {"hers": "his"}
_CHINESE_SWAPS = _both_ways(_CHINESE)
# 其他 (other), 吉他 (guitar), 维他命 (vitamin), 他人 (others), the curses 他妈, 他么: no pronoun. 他妈妈: his mother.
_CHINESE_WORD = re.compile(
    "|".join(rf"(?<![其吉维]){word}(?![人么]|妈(?!妈))" for word in sorted(_CHINESE_SWAPS, key=len, reverse=True))
)


def swap(text: str) -> str:
    """The text with each name and pronoun exchanged for its counterpart, in the same case; the same text if none.

    English "her" stands for "him" and for "his": it becomes "his" before a word that can be owned, else "him".
    """
    return _CHINESE_WORD.sub(lambda match: _CHINESE_SWAPS[match[0]], _ENGLISH.sub(_swap_english, text))


def measure_fairness(
    parent: Classifier,
    bundle: Classifier,
    texts: Sequence[Input],
    expected: Logits,
    got: Logits,
    seed: int = 0,
) -> Counterfactual | None:
    """Swaps in at most MAX_TEXTS of the texts that hold a name or pronoun and asks both models again; None without any.

    Args:
        expected: (texts, labels) of the parent on the texts as they are; `got` those of the bundle.
    """
    swapped = {row: other for row, text in enumerate(texts) if (other := changed(text, swap)) != text}
    if not swapped:
        return None
    rows = sorted(random.Random(seed).sample(list(swapped), min(MAX_TEXTS, len(swapped))))  # noqa: S311
    after = [swapped[row] for row in rows]
    return Counterfactual(
        found=len(swapped),
        texts=len(rows),
        parent=_reaction(expected[rows], predict(parent, after, "Swap names: parent"), parent.task),
        bundle=_reaction(got[rows], predict(bundle, after, "Swap names: bundle"), bundle.task),
    )


def _reaction(before: Logits, after: Logits, task: Task) -> SwapReaction:
    return SwapReaction(
        changed=float((~task.same(before, after)).mean()),
        largest_score_change=float(np.abs(task.scores(before) - task.scores(after)).max()),
    )


def _swap_english(match: "re.Match[str]") -> str:
    word = match[0]
    low = word.lower()
    if low not in _SWAPS:
        return word
    other = _SWAPS[low]
    if low == "her":
        other = "his" if _POSSESSIVE.match(match.string, match.start()) else "him"
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
