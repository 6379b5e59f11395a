"""The directory that `lathe finetune` writes.

OUT/
  finetune.json   the options, beside model or adapter, when it has ended
  checkpoints/    while it trains
"""

from pathlib import Path

from compression.bundle.atomic_files import require_writable
from compression.errors import CheckpointError

RECORD = "finetune.json"
CHECKPOINTS = "checkpoints"
OUT_REMEDY = "make room there, or name another directory with --out"


def require_free(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuses a destination that would be lost without being asked for, or that cannot be written.

    Raises:
        CheckpointError: names it, and what to do.
        StorageError: it cannot be written.
    """
    if Path.cwd().is_relative_to(out.resolve()):
        raise CheckpointError(f"{out}: holds the directory that you are in; name another with --out")
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise CheckpointError(f"{place}: is a file; name a directory with --out")
    require_writable(out.absolute().parent, OUT_REMEDY)
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not names or resume:
        return
    if RECORD not in names and names != {CHECKPOINTS}:
        raise CheckpointError(f"{out}: holds files that lathe finetune has not written; name another directory")
    if not overwrite:
        held = "a fine-tuned model" if RECORD in names else "a run that was stopped; go on with --resume"
        raise CheckpointError(f"{out}: holds {held}; replace it with --overwrite, or name another directory")
