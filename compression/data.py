"""Labelled or unlabelled text from files of rows, and how it is divided.

Every cell is taken as the string it is: a label `1`, a text `NA` or an empty label keep their meaning.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from compression.errors import DataError
from compression.tables import Cell, Cells, Format, open_table

Labels: TypeAlias = str | tuple[str, ...] | None  # one, any number (a list in the file), or not known

ENOUGH_TEXTS = 2000  # to judge by: a share of them is known to some two points (95 %), and of ten times as many to 0.7
_PARTS = ("calibration", "selection", "test")
_SECOND_TEXTS = {  # by the column of a pair's first text, usual names of the second's
    "text": ("text_pair", "text2", "text_b"), "text1": ("text2",), "text_a": ("text_b",), "premise": ("hypothesis",),
    "sentence": ("sentence2",), "sentence1": ("sentence2",), "question1": ("question2",), "query": ("passage",),
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Where a data file keeps what, which labels count as missing, and how the file is written.

    Attributes:
        names: by what stands for labels in the file, the labels.
        label_separator: between the labels of a text in one cell; None where a cell is one label, or a list of them.
    """

    text: str = "text"
    label: str = "label"
    split: str = "split"
    ignored_labels: tuple[str, ...] = ()
    form: Format = Format()
    label_separator: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """Texts and, position by position, their labels and splits; None where a row has none.

    Attributes:
        places: where each stands in its file, in words; empty where that is not known.
    """

    texts: tuple[str, ...]
    labels: tuple[Labels, ...]
    splits: tuple[str | None, ...]
    places: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def several(self) -> bool:
        """Whether rows have lists of labels."""
        return any(isinstance(label, tuple) for label in self.labels)

    @property
    def labelled(self) -> "Examples":
        """The rows that have a label."""
        return self.where([label is not None for label in self.labels])

    def head(self, count: int) -> "Examples":
        """The first rows."""
        return self.take(range(min(count, len(self))))

    def of_split(self, split: str) -> "Examples":
        """The rows of one split."""
        return self.where([name == split for name in self.splits])

    def where(self, kept: Sequence[bool]) -> "Examples":
        """The rows at whose position `kept` is true."""
        return self.take([row for row, keep in enumerate(kept) if keep])

    def take(self, rows: Iterable[int]) -> "Examples":
        """These rows, in this order."""
        rows = list(rows)
        return Examples(
            tuple(self.texts[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            tuple(self.splits[row] for row in rows),
            tuple(self.places[row] for row in rows) if self.places else (),
        )


def read_examples(path: Path, columns: Columns = Columns()) -> Examples:
    """Reads a data file.

    Raises:
        DataError: the file, the text column or a label column of another name than usual is not there, a row cannot be
            read, or there is none.
    """
    table = open_table(path, columns.form)
    texts: list[str] = []
    labels: list[Labels] = []
    splits: list[str | None] = []
    places: list[str] = []
    names: set[str] = set()
    try:
        for chunk in table.chunks(columns.text, (columns.label, columns.split)):
            names.update(chunk.names)
            wanted = [chunk.cells[name] for name in (columns.text, columns.label, columns.split)]
            for number, *cells in zip(chunk.numbers, *wanted, strict=True):
                where = f"{path}: {table.unit} {number}"
                text, split = _whole(cells[0], where), _whole(cells[2], where)
                label = _renamed(_labels(cells[1], columns.label_separator, where), columns.names)
                if text is None or not text.strip():
                    raise DataError(f"{where}: has an empty {columns.text!r}; remove it or fill it in")
                texts.append(text)
                labels.append(None if set(names_of(label)) & set(columns.ignored_labels) else label)
                splits.append(split)
                places.append(f"{table.unit} {number}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not texts:
        raise DataError(f"{path}: no rows")
    _require_label_column(names, columns, path)
    _require_no_pairs(names, columns, path)
    return Examples(tuple(texts), tuple(labels), tuple(splits), tuple(places))


def require_labelled(examples: Examples, name: str) -> None:
    """Refuses rows that nothing can be learned from.

    Args:
        name: of what they are, for the message: their file.

    Raises:
        DataError: names the first row without a label.
    """
    lacking = [row for row, label in enumerate(examples.labels) if label is None]
    if not lacking:
        return
    if len(lacking) == len(examples):
        raise DataError(f"{name}: no row has a label, and training needs one in each; name the column: --label-column")
    place = f"{examples.places[lacking[0]]}: " if examples.places else ""
    others = f", as {len(lacking) - 1} more" if len(lacking) > 1 else ""
    none = "; one that is to have none has an empty list, or the separator alone" if examples.several else ""
    raise DataError(f"{name}: {place}has no label{others}; fill it in, or remove the row{none}")


def names_of(labels: Labels) -> tuple[str, ...]:
    """The labels of a row: one, any number, or none where it has none."""
    return (labels,) if isinstance(labels, str) else labels or ()


def concatenate(parts: Sequence[Examples]) -> Examples:
    """The rows of all parts, in their order."""
    return Examples(
        tuple(itertools.chain.from_iterable(part.texts for part in parts)),
        tuple(itertools.chain.from_iterable(part.labels for part in parts)),
        tuple(itertools.chain.from_iterable(part.splits for part in parts)),
    )


@dataclass(frozen=True)
class Splits:
    """Three parts that share no text.

    Attributes:
        calibration: what the steps learn from.
        selection: what chooses between candidates, and says when to stop.
        test: what judges the result, and nothing else.
        repeated: texts left out because they stand in a part that judges them too.
        spared: texts that would select or judge, were there not enough of them.
    """

    calibration: Examples
    selection: Examples
    test: Examples
    repeated: int = 0
    spared: int = 0


def split_examples(examples: Examples, path: Path, enough: int = ENOUGH_TEXTS) -> Splits:
    """Keeps the texts that calibrate, those that select and those that judge apart.

    A file with a split column says itself which is which (`calibration`, `selection`, `test`); without `selection`, a
    sixth of the calibration texts select. What it has in two parts stays only where it judges: a text that was learned
    from proves nothing, and public sets do repeat some. A file without splits is divided 5 : 1 : 4. It is a hash of a
    text's letters and digits that decides, so that copies stay together and the split stays the same.

    Args:
        enough: so many texts select, and so many judge; all of those whose split the file says.

    Raises:
        DataError: a split of another name, or a part that is empty.
    """
    shares = [_share(text) for text in examples.texts]
    if any(examples.splits):
        unknown = sorted({str(split) for split in examples.splits} - set(_PARTS))
        if unknown:
            raise DataError(
                f"{path}: column split holds {', '.join(map(repr, unknown[:5]))}; use calibration, selection and test"
            )
        sides = list(examples.splits)
        if "selection" not in sides:
            among = sorted(share for side, share in zip(sides, shares, strict=True) if side == "calibration")
            least = among[-max(1, len(among) // 6)] if among else 1.0
            sides = [
                "selection" if side == "calibration" and share >= least else side
                for side, share in zip(sides, shares, strict=True)
            ]
    else:
        sides = ["calibration" if share < 0.5 else "selection" if share < 0.6 else "test" for share in shares]
    # Steps look at the first so many texts, and a file is often sorted by label: these come in the order of the hash.
    order = sorted(range(len(examples)), key=lambda row: shares[row])
    shares_of = {name: {share for share, side in zip(shares, sides, strict=True) if side == name} for name in _PARTS}
    taken = {"calibration": shares_of["selection"] | shares_of["test"], "selection": shares_of["test"]}
    calibration, selection = (
        examples.take([row for row in order if sides[row] == name and shares[row] not in taken[name]])
        for name in ("calibration", "selection")
    )
    test = examples.where([side == "test" for side in sides])
    if not len(calibration) or not len(selection) or not len(test):
        raise DataError(
            f"{path}: {len(calibration)} texts to calibrate with, {len(selection)} to select with and {len(test)} to "
            "test with, copies counted in one part only; each part needs some. Add texts, or a column `split` that "
            "says calibration or test"
        )
    repeated = len(examples) - len(calibration) - len(selection) - len(test)
    if any(examples.splits):
        return Splits(calibration, selection, test, repeated)
    judges = set([row for row in order if sides[row] == "test"][:enough])
    kept = selection.head(enough), examples.where([row in judges for row in range(len(examples))])
    return Splits(calibration, *kept, repeated, len(selection) + len(test) - sum(map(len, kept)))


def _require_label_column(names: Iterable[str], columns: Columns, path: Path) -> None:
    """Labels are not needed; but who names a column means it, and `Label` is no other word than `label`."""
    if columns.label in names:
        return
    alike = sorted(name for name in names if name.strip().casefold() == columns.label.strip().casefold())
    if alike:
        raise DataError(
            f"{path}: has a column {alike[0]!r} and none called {columns.label!r}, so no label would count; "
            f"pass --label-column {repr(alike[0]) if alike[0] != alike[0].strip() else alike[0]}"
        )
    if columns.label != Columns.label:
        raise DataError(f"{path}: no row has a column {columns.label!r}; name the right one with --label-column")


def _require_no_pairs(names: Iterable[str], columns: Columns, path: Path) -> None:
    """A label of two texts says little of the first alone."""
    for second in _SECOND_TEXTS.get(columns.text, ()):
        if second in names:
            raise DataError(
                f"{path}: has columns {columns.text!r} and {second!r}, a pair of texts; Lathe takes "
                f"models of one text. Remove {second!r} if the label is not of both"
            )


def _labels(cell: Cells, separator: str | None, where: str) -> Labels:
    """The labels of a row. An empty cell has none known; a separator alone, or an empty list, says that it has none."""
    if isinstance(cell, tuple):
        return tuple(dict.fromkeys(name for name in (_whole(one, where) for one in cell) if name is not None))
    whole = _whole(cell, where)
    if whole is None or separator is None:
        return whole
    return tuple(dict.fromkeys(name for part in whole.split(separator) if (name := part.strip())))


def _renamed(labels: Labels, names: Mapping[str, str]) -> Labels:
    """The labels by their names in the model, where those are given."""
    if isinstance(labels, tuple):
        return tuple(dict.fromkeys(names.get(name, name) for name in labels))
    return None if labels is None else names.get(labels, labels)


def _whole(cell: Cells, where: str) -> Cell:
    """A cell, None where it is empty."""
    if isinstance(cell, tuple):
        raise DataError(f"{where}: has a list where one value belongs; write it as a string")
    if cell and not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell):
        raise DataError(f"{where}: has half a surrogate pair, which is no text; repair or remove it")
    return cell or None


def _letters(text: str) -> str:
    """What copies of a text have in common; all of it where it has no letters, as an emoji has none."""
    return "".join(character for character in text.casefold() if character.isalnum()) or text


def _share(text: str) -> float:
    """Where a text falls between 0 and 1."""
    return int.from_bytes(hashlib.sha256(_letters(text).encode()).digest()[:4]) / 2**32
