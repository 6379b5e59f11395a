"""How often noise that leaves the meaning alone changes the answer: typos, case, punctuation, whitespace.

The kinds are of the sort that CheckList (Ribeiro et al. 2020) calls invariance tests. What counts is parent against
bundle: compression is known to cost most on texts that are already hard (Hooker et al. 2020).
"""

import random
import re
from collections.abc import Callable, Sequence

from compression.bundle import Input, Labelling, Logits, Perturbation, Reaction, Task, changed, texts_of
from compression.data import Examples
from compression.measure.evaluate import labelled_rows
from compression.parent.classifier import Classifier, predict
from compression.words import SPACELESS

MAX_TEXTS = 200
_WORD = re.compile(r"[^\W\d_]{4,}")  # a run of Chinese characters counts as one
_PUNCTUATION = re.compile(r"[.,;:!?…。，、；：！？]+")  # noqa: RUF001
_SPACE = re.compile(r"\s+")
_SPACELESS = re.compile(f"[{SPACELESS}]")
_WORDS_PER_TYPO = 8

Perturb = Callable[[str, random.Random], str]


def typos(text: str, choose: random.Random) -> str:
    """In one of eight words, at least in one: two inner letters change places, or one is left out or doubled.

    No Chinese character is left out: it may be the one that says "not".
    """
    words = [match.start() for match in _WORD.finditer(text)]
    for start in sorted(choose.sample(words, -(-len(words) // _WORDS_PER_TYPO)), reverse=True):
        word = _WORD.match(text, start)
        assert word is not None
        at = choose.randrange(start + 1, word.end() - 2)  # first and last letter stay
        one, two = text[at], text[at + 1]
        changes = [two + one, two, one + one + two]
        if _SPACELESS.match(one):
            changes.remove(two)
        text = text[:at] + choose.choice(changes) + text[at + 2 :]
    return text


def case(text: str, choose: random.Random) -> str:
    """All capitals; small letters where the text is in capitals."""
    return text.upper() if text.upper() != text else text.lower()


def punctuation(text: str, choose: random.Random) -> str:
    """None; a full stop where the text has none."""
    if _PUNCTUATION.search(text):
        return _PUNCTUATION.sub("", text)
    return f"{text}。" if _SPACELESS.search(text) else f"{text}."


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
    perturbed: dict[str, dict[int, Input]] = {}  # kind: {row: changed text}
    for kind, perturb in KINDS.items():
        choose = random.Random(f"{kind} {seed}")  # noqa: S311
        after = {row: _perturbed(test.texts[row], perturb, choose) for row in rows}
        kept = {
            row: given
            for row, given in after.items()
            if given != test.texts[row] and all(text.strip() for text in texts_of(given))
        }
        if kept:
            perturbed[kind] = kept
    pairs = [(row, text) for kept in perturbed.values() for row, text in kept.items()]
    parent_after = _answers(parent, test.texts, pairs, expected, "Perturb: parent")
    bundle_after = _answers(bundle, test.texts, pairs, got, "Perturb: bundle")
    figures, start = [], 0
    for kind, kept in perturbed.items():
        part = slice(start, start + len(kept))
        start = part.stop
        figures.append(
            Perturbation(
                kind=kind,
                texts=len(kept),
                parent=_reaction(expected[list(kept)], parent_after[part], test.take(kept), parent.task),
                bundle=_reaction(got[list(kept)], bundle_after[part], test.take(kept), bundle.task),
            )
        )
    return tuple(figures)


def _perturbed(given: Input, perturb: Perturb, choose: random.Random) -> Input:
    return changed(given, lambda text: perturb(text, choose))


def _answers(
    model: Classifier, texts: Sequence[Input], pairs: Sequence[tuple[int, Input]], known: Logits, description: str
) -> Logits:
    """Logits of the changed texts; those whose tokens are still the same (case, to many tokenizers) are known."""
    logits = known[[row for row, _ in pairs]]
    asked = [at for at, (row, text) in enumerate(pairs) if model.encode(text).ids != model.encode(texts[row]).ids]
    if asked:
        logits[asked] = predict(model, [pairs[at][1] for at in asked], description)
    return logits


def _reaction(before: Logits, after: Logits, examples: Examples, task: Task) -> Reaction:
    changed = float((~task.same(before, after)).mean())
    if not isinstance(task, Labelling):
        return Reaction(changed=changed)
    labelled, truth = labelled_rows(task, examples)
    right = [(task.decide(logits[labelled]) == truth).all(axis=-1) for logits in (before, after)]
    return Reaction(
        changed=changed,
        accuracy_before=float(right[0].mean()) if labelled else None,
        accuracy_after=float(right[1].mean()) if labelled else None,
    )
