"""How often noise that leaves the meaning alone changes the label: typos, case, punctuation, whitespace.

The kinds are of the sort that CheckList (Ribeiro et al. 2020) calls invariance tests. What counts is parent against
bundle: compression is known to cost most on texts that are already hard (Hooker et al. 2020).
"""

import random
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from compression.bundle import Perturbation, Reaction
from compression.bundle.runtime import Logits
from compression.classifier import Classifier, predict
from compression.data import Examples

MAX_TEXTS = 200
_WORD = re.compile(r"[^\W\d_]{4,}")  # a run of Chinese characters counts as one
_PUNCTUATION = re.compile(r"[.,;:!?…。，、；：！？]+")  # noqa: RUF001
_SPACE = re.compile(r"\s+")
_WORDS_PER_TYPO = 8

Perturb = Callable[[str, random.Random], str]


def typos(text: str, choose: random.Random) -> str:
    """In one of eight words, at least in one: two inner letters change places, or one is left out or doubled."""
    words = [match.start() for match in _WORD.finditer(text)]
    for start in sorted(choose.sample(words, -(-len(words) // _WORDS_PER_TYPO)), reverse=True):
        word = _WORD.match(text, start)
        assert word is not None
        at = choose.randrange(start + 1, word.end() - 2)  # first and last letter stay
        one, two = text[at], text[at + 1]
        text = text[:at] + choose.choice([two + one, two, one + one + two]) + text[at + 2 :]
    return text


def case(text: str, choose: random.Random) -> str:
    """All capitals; small letters where the text is in capitals."""
    return text.upper() if text.upper() != text else text.lower()


def punctuation(text: str, choose: random.Random) -> str:
    """None; a full stop where the text has none."""
    return _PUNCTUATION.sub("", text) if _PUNCTUATION.search(text) else f"{text}."


def whitespace(text: str, choose: random.Random) -> str:
    """Two spaces, a tab or a line break for each space, and one before and after the text."""
    return f" {_SPACE.sub(lambda _: choose.choice(['  ', chr(9), chr(10)]), text)} "


KINDS: dict[str, Perturb] = {"typos": typos, "case": case, "punctuation": punctuation, "whitespace": whitespace}


def measure_robustness(
    parent: Classifier, bundle: Classifier, test: Examples, expected: Logits, got: Logits, seed: int = 0
) -> tuple[Perturbation, ...]:
    """Perturbs at most MAX_TEXTS of the test texts in each way and asks both models again.

    Args:
        expected: (texts, labels) of the parent on the test texts as they are; `got` those of the bundle.
    """
    rows = sorted(random.Random(seed).sample(range(len(test)), min(MAX_TEXTS, len(test))))  # noqa: S311
    changed: dict[str, tuple[list[int], list[str]]] = {}
    for kind, perturb in KINDS.items():
        choose = random.Random(f"{kind} {seed}")  # noqa: S311
        after = [perturb(test.texts[row], choose) for row in rows]
        kept = [(row, text) for row, text in zip(rows, after, strict=True) if text != test.texts[row] and text.strip()]
        if kept:
            changed[kind] = ([row for row, _ in kept], [text for _, text in kept])
    texts = [text for _, kind_texts in changed.values() for text in kind_texts]
    if not texts:
        return ()
    answers = [predict(model, texts, f"Perturb: {who}") for model, who in ((parent, "parent"), (bundle, "bundle"))]
    figures, start = [], 0
    for kind, (kind_rows, kind_texts) in changed.items():
        part = slice(start, start + len(kind_texts))
        start = part.stop
        reactions = [
            _reaction(
                before[kind_rows].argmax(1), after[part].argmax(1), [test.labels[row] for row in kind_rows], model
            )
            for model, before, after in zip((parent, bundle), (expected, got), answers, strict=True)
        ]
        figures.append(Perturbation(kind=kind, texts=len(kind_texts), parent=reactions[0], bundle=reactions[1]))
    return tuple(figures)


def _reaction(
    before: npt.NDArray[np.intp], after: npt.NDArray[np.intp], labels: Sequence[str | None], model: Classifier
) -> Reaction:
    labelled = [index for index, label in enumerate(labels) if label is not None]
    truth = np.array([model.labels.index(str(labels[index])) for index in labelled])
    accuracies = [float((answers[labelled] == truth).mean()) if labelled else None for answers in (before, after)]
    return Reaction(
        changed=float((before != after).mean()), accuracy_before=accuracies[0], accuracy_after=accuracies[1]
    )
