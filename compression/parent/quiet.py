"""What transformers and peft say to their programmers stays out of the user's terminal, but for a line."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Without their bars, their table of missing weights (`require_complete` speaks of those) and their outlook on
    names that will go: peft asks transformers by names of yesterday."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "Could not find a config file", UserWarning)  # of an embedded parent
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def reason(error: Exception) -> str:
    """What one of their errors says, in a line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
