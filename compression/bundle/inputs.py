"""What a model reads: a text, or a pair of texts of which one answer is wanted (a premise and its hypothesis, say)."""

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

Input: TypeAlias = str | tuple[str, str]  # a text; or text and text_pair, as transformers calls them
InputKind: TypeAlias = Literal["texts", "pairs"]  # what all inputs of a model are


def texts_of(given: Input) -> tuple[str, ...]:
    """The one text, or both."""
    return (given,) if isinstance(given, str) else given


def changed(given: Input, change: Callable[[str], str]) -> Input:
    """The same input with each of its texts changed."""
    return change(given) if isinstance(given, str) else (change(given[0]), change(given[1]))


def kind_of(inputs: Iterable[Input]) -> InputKind:
    """What these are; they are all of one kind."""
    return "texts" if all(isinstance(one, str) for one in inputs) else "pairs"


def shown(given: Input) -> str:
    """For people, in one line of text; a pair with a mark between its texts."""
    return " | ".join(texts_of(given))
