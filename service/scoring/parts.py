"""What has been scored so far: a directory beside the output, which a run that goes on reads."""

import fcntl
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.batching import Logits
from service.errors import ScoringError

NOTES = ("", "truncated", "no_text", "inference_failed", "not_a_number")  # of a row; its number is the place here

Plan = Mapping[str, str | int]


@dataclass(frozen=True)
class Part:
    """The answers to one chunk.

    Attributes:
        logits: (rows, labels); not a number where a row has no answer.
        notes: (rows,) places in `NOTES`.
    """

    logits: Logits
    notes: npt.NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """As an npz file."""
        buffer = io.BytesIO()
        np.savez(buffer, logits=self.logits, notes=self.notes)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Part":
        """What `to_bytes` made."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(arrays["logits"], arrays["notes"])


class Progress:
    """The parts of one output.

    Raises:
        ScoringError: there are parts of another plan; names what differs. Or another run is at it.
    """

    def __init__(self, out: Path, plan: Plan) -> None:
        self.folder = out.with_name(f"{out.name}.progress")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")  # held as long as this process lives, however that ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ScoringError(f"{out}: another run is writing it; wait for its end, or name another file") from error
        try:
            self._begin(plan)
        except BaseException:
            self.close()
            raise

    def _begin(self, plan: Plan) -> None:
        if self.done():
            self._require_same(json.loads((self.folder / "plan.json").read_bytes()), plan)
        else:
            self._write("plan.json", json.dumps(plan, indent=2).encode())

    def close(self) -> None:
        """Lets another run go on; leaves nothing where nothing was scored, so that the input can be mended."""
        if not self.done():
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def done(self) -> frozenset[int]:
        """Numbers of the chunks that are scored."""
        return frozenset(int(path.stem) for path in self.folder.glob("*.npz"))

    def save(self, number: int, part: Part) -> None:
        """Keeps a part, whole or not at all."""
        self._write(f"{number:06}.npz", part.to_bytes())

    def load(self, number: int) -> Part:
        """A part that is scored."""
        return Part.from_bytes((self.folder / f"{number:06}.npz").read_bytes())

    def remove(self) -> None:
        """Removes everything; the output is complete."""
        shutil.rmtree(self.folder)

    def _write(self, name: str, content: bytes) -> None:
        unfinished = self.folder / "unfinished"
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.folder / name)

    def _require_same(self, before: Plan, plan: Plan) -> None:
        for key in sorted({*before, *plan}):
            if before.get(key) != plan.get(key):
                raise ScoringError(
                    f"{self.folder}: holds what an unfinished run scored with {key} {before.get(key)!r}, and now it is "
                    f"{plan.get(key)!r}; run it as before to go on, or remove that directory to begin anew"
                )
