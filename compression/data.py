"""Labelled or unlabelled texts, or pairs of them, from files of rows, and how they are divided.

Every cell is taken as the string it is: a label `1`, a text `NA` or an empty label keep their meaning.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from compression.bundle import Input, InputKind, kind_of, texts_of
from compression.errors import DataError
from compression.progress import warn
from compression.tables import Cell, Cells, Chunk, Format, Table, doubt_of_pairs, open_table

Labels: TypeAlias = str | tuple[str, ...] | None  # one, any number (a list in the file), or not known

ENOUGH_TEXTS = 2000  # to judge by: a share of them is known to some two points (95 %), and of ten times as many to 0.7
_PARTS = ("calibration", "selection", "test")


@dataclass(frozen=True)
class Columns:
    """Where a data file keeps what, which labels count as missing, and how the file is written.

    Attributes:
        text_pair: the second text of a pair; None where each row is one text.
        outside_labels: of rows that none of the model's labels fits.
        names: by what stands for labels in the file, the labels.
        label_separator: between the labels of a text in one cell; None where a cell is one label, or a list of them.
    """

    text: str = "text"
    label: str = "label"
    split: str = "split"
    ignored_labels: tuple[str, ...] = ()
    outside_labels: tuple[str, ...] = ()
    form: Format = Format()
    label_separator: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    text_pair: str | None = None


@dataclass(frozen=True)
class Examples:
    """Texts, or pairs of them, and, position by position, their labels and splits; None where a row has none.

    Attributes:
        places: where each stands in its file, in words; empty where that is not known.
        outside: which of them the model was not made for, so that any answer is wrong, and none is among the labels;
            empty where none is known to be.
    """

    texts: tuple[Input, ...]
    labels: tuple[Labels, ...]
    splits: tuple[str | None, ...]
    places: tuple[str, ...] = ()
    outside: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def inputs(self) -> InputKind:
        """Whether they are texts or pairs."""
        return kind_of(self.texts)

    @property
    def single_texts(self) -> tuple[str, ...]:
        """The texts, where they are no pairs."""
        return tuple(one for one in self.texts if isinstance(one, str))

    @property
    def several(self) -> bool:
        """Whether rows have lists of labels."""
        return any(isinstance(label, tuple) for label in self.labels)

    @property
    def labelled(self) -> "Examples":
        """The rows that have a label."""
        return self.where([label is not None for label in self.labels])

    @property
    def known(self) -> list[bool]:
        """Which rows say whether an answer is right: those with a label, and those outside."""
        outside = self.outside or (False,) * len(self)
        return [label is not None or out for label, out in zip(self.labels, outside, strict=True)]

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
            tuple(self.outside[row] for row in rows) if self.outside else (),
        )


def read_examples(path: Path, columns: Columns = Columns(), quiet: bool = False) -> Examples:
    """Reads a data file.

    Args:
        quiet: whether what is doubtful stays unsaid, since the file is read again.

    Raises:
        DataError: the file, a text column or a label column of another name than usual is not there, a row cannot be
            read or lacks a text, or there is none.
    """
    table = open_table(path, columns.form)
    texts: list[Input] = []
    labels: list[Labels] = []
    splits: list[str | None] = []
    places: list[str] = []
    outside: list[bool] = []
    names: set[str] = set()
    try:
        for chunk in _chunks(table, columns):
            names.update(chunk.names)
            wanted = [chunk.cells[name] for name in (columns.label, columns.split)]
            for number, text, *cells in zip(chunk.numbers, _texts(chunk, table, columns), *wanted, strict=True):
                where = f"{path}: {table.unit} {number}"
                split = _whole(cells[1], where)
                label = _renamed(_labels(cells[0], columns.label_separator, where), columns.names)
                found = set(names_of(label))
                is_outside = bool(found & set(columns.outside_labels))
                texts.append(text)
                labels.append(None if is_outside or found & set(columns.ignored_labels) else label)
                outside.append(is_outside)
                splits.append(split)
                places.append(f"{table.unit} {number}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not texts:
        raise DataError(f"{path}: no rows")
    _require_label_column(names, columns, path)
    _require_split_column(names, columns, path)
    doubt = doubt_of_pairs(columns.text, columns.text_pair, names)
    if doubt is not None and not quiet:
        warn(f"{path}: {doubt}")
    return Examples(tuple(texts), tuple(labels), tuple(splits), tuple(places), tuple(outside) if any(outside) else ())


def _chunks(table: Table, columns: Columns) -> Iterator[Chunk]:
    """The chunks of a file that has the columns of texts."""
    second = columns.text_pair
    if second == columns.text:
        raise DataError(f"the column {second!r} cannot be both texts of a pair; name another with --text-pair-column")
    for number, chunk in enumerate(table.chunks(columns.text, (columns.label, columns.split, *filter(None, [second])))):
        if second is not None and not number and second not in chunk.names:
            raise table.no_column(second, chunk.names, "name it with --text-pair-column")
        yield chunk


def _texts(chunk: Chunk, table: Table, columns: Columns) -> Iterator[Input]:
    """The text or pair of each row."""
    firsts = _filled(chunk, table, columns.text)
    return firsts if columns.text_pair is None else zip(firsts, _filled(chunk, table, columns.text_pair), strict=True)


def _filled(chunk: Chunk, table: Table, column: str) -> Iterator[str]:
    for number, cell in zip(chunk.numbers, chunk.cells[column], strict=True):
        where = f"{table.path}: {table.unit} {number}"
        text = _whole(cell, where)
        if text is None or not text.strip():
            raise DataError(f"{where}: has an empty {column!r}; remove it or fill it in")
        yield text


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
    from proves nothing, and public sets do repeat some. A file without splits is divided 5 : 1 : 4. It is a hash of
    the letters and digits of a text, or of both, that decides, so that copies stay together and the split stays the
    same.

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
    alike = _alike(names, columns.label)
    if alike:
        raise DataError(
            f"{path}: has a column {alike[0]!r} and none called {columns.label!r}, so no label would count; "
            f"pass --label-column {repr(alike[0]) if alike[0] != alike[0].strip() else alike[0]}"
        )
    if columns.label != Columns.label:
        raise DataError(f"{path}: no row has a column {columns.label!r}; name the right one with --label-column")


def _require_split_column(names: Iterable[str], columns: Columns, path: Path) -> None:
    """Else texts that are there to judge would be learned from."""
    alike = _alike(names, columns.split)
    if columns.split not in names and alike:
        raise DataError(
            f"{path}: has a column {alike[0]!r} and none called {columns.split!r}, so the file would be divided by a "
            f"hash of the texts; rename it to {columns.split!r}, or to something else"
        )


def _alike(names: Iterable[str], wanted: str) -> list[str]:
    """Columns that differ in case, spaces around or the plural alone."""
    plain = wanted.strip().casefold()
    return sorted(name for name in names if name.strip().casefold() in (plain, f"{plain}s"))


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


def _share(given: Input) -> float:
    """Where a text or pair falls between 0 and 1."""
    letters = "\0".join(map(_letters, texts_of(given)))
    return int.from_bytes(hashlib.sha256(letters.encode()).digest()[:4]) / 2**32
