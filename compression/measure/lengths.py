"""How many of a user's texts are longer than the window, and what reading them takes."""

from collections.abc import Sequence
from pathlib import Path

from compression.bundle import HeadTail, Input, LongTextFigures, LongTexts
from compression.data import Examples
from compression.errors import DataError
from compression.parent.classifier import Classifier
from compression.progress import console


def measure_lengths(classifier: Classifier, texts: Sequence[Input]) -> LongTextFigures | None:
    """Counts; None where no text is longer than the window."""
    lengths = [classifier.length(text) for text in texts]
    longer = [text for text, length in zip(texts, lengths, strict=True) if length > classifier.max_length]
    if not longer:
        return None
    windows = len(texts) - len(longer) + sum(len(classifier.encode(text).windows) for text in longer)
    return LongTextFigures(longer=len(longer), longest=max(lengths), windows=windows / len(texts))


def say_longer(classifier: Classifier, examples: Examples, data: Path) -> None:
    """Says, before the work, how many there are, what is done with them, and what else could be."""
    found = measure_lengths(classifier, examples.texts)
    if found is None:
        return
    console.print(
        f"{data}: {found.longer} of {len(examples)} {examples.inputs} ({100 * found.longer / len(examples):.1f} %) are "
        f"longer than the window of {classifier.max_length} tokens, the longest has {found.longest}; "
        f"{_done_with_them(classifier, examples, found)}",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip


def require_single_texts(long_texts: LongTexts | None, examples: Examples, data: Path) -> None:
    """Refuses a setting for pairs of texts.

    Raises:
        DataError: says what becomes of pairs.
    """
    if long_texts is not None and examples.inputs == "pairs":
        raise DataError(
            f"{data}: holds pairs of texts, of which the longer text is cut first; --long-texts {long_texts.read} is "
            "for single texts: leave it out"
        )


def _done_with_them(classifier: Classifier, examples: Examples, found: LongTextFigures) -> str:
    if classifier.long_texts is None:
        if examples.inputs == "pairs":
            return "of these the longer text is cut first"
        return "they are cut, and --long-texts head-tail or windows would read more of them"
    if isinstance(classifier.long_texts, HeadTail):
        return "their beginnings and ends are read"
    return f"they are read window by window, {found.windows:.2f} windows to a text on average"
