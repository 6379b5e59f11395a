"""Keeps what clients write out of logs and error messages.

Nothing that a client sends as text is ever handed to a logger. An exception raised while texts are in hand may quote
them, so only its type and its place in the code are logged.
"""

import traceback


def describe_exception(error: BaseException) -> str:
    """Type and place of an exception and of what caused it, without their messages, which may quote a client's text."""
    parts = []
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
        parts.append(f"{type(current).__name__}{place}")
        current = current.__cause__ or current.__context__
    return ", caused by ".join(parts)
