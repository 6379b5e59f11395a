"""Columns that hold the second text of a pair."""

from collections.abc import Collection

_SECOND_TEXTS = {  # by the column of a pair's first text, usual names of the second's
    "text": ("text_pair", "text2", "text_b"), "text1": ("text2",), "text_a": ("text_b",), "premise": ("hypothesis",),
    "sentence": ("sentence2",), "sentence1": ("sentence2",), "question1": ("question2",),
    "query": ("passage", "document"),
    "question": ("answer", "sentence", "context", "passage"),
}  # fmt: skip


def doubt_of_pairs(text: str, text_pair: str | None, names: Collection[str]) -> str | None:
    """What to say where a file looks as if its rows were pairs, and single texts are read; None where it does not.

    Args:
        text: the column that is read.
        text_pair: that of the second text; None where single texts are read.
        names: the columns that there are.
    """
    second = next((name for name in _SECOND_TEXTS.get(text, ()) if name in names), None)
    if text_pair is not None or second is None:
        return None
    return (
        f"has columns {text!r} and {second!r}, which look like pairs of texts; {second!r} is ignored. If the model "
        f"reads pairs: --text-pair-column {second}"
    )
