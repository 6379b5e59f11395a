"""Bytes as text and back without loss: encodings, byte order marks, gzip."""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from compression.errors import DataError
from compression.tables.table import MAX_CHARACTERS

_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_NOT_TEXT = {b"PK\x03\x04": "a zip file, as xlsx is; save it as csv", b"\x1f\x8b": "gzip; let its name end in .gz"}
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
_SAMPLE_BYTES = 1 << 16
# What a text in an encoding is mostly made of, beside ASCII: ranges of characters that are common in it. Of two that
# fit as well the first is taken where there are many characters: Korean bytes are common Chinese ones too, but of
# Chinese ones only every second or so is Korean. Of few the most
# frequent ones of a language say which is the likelier.
_LATIN = "cp1252"
_NEIGHBOURS = re.compile(rb"[\x80-\xff]{2}")
_MANY_CHARACTERS = 10  # different ones
_BEYOND_CHANCE = 0.8  # of characters of several bytes that are common ones
_COMMON = {
    "euc_kr": (("\uac00", "\ud7a3"),),
    "gbk": (("\u3000", "\u303f"), ("\u4e00", "\u9fff"), ("\uff01", "\uff5e"), ("\u2014", "\u2026")),
    "shift_jis": (("\u3000", "\u30ff"), ("\u4e00", "\u9fff")),
    "big5": (("\u3000", "\u303f"), ("\u4e00", "\u9fff"), ("\uff01", "\uff5e")),
    _LATIN: (("\u00c0", "\u00ff"), ("\u2013", "\u20ac"), ("\u00a0", "\u00bf")),
}
_FREQUENT = {
    "euc_kr": "이다는의에을를가은로고하지도서기한사어리니인있자나아습게시들",
    "gbk": "的一是不了在人有我他这个们中来上大为到说时要就出会可也你对生能而子那得于下过好很没服务快慢天用还多太谢",
    "big5": "的一是不了在人有我他這個們中來上大為到說時要就出會可也你對生能而子那得於下過好很沒服務快慢天用還多太謝",
}


@dataclass(frozen=True)
class Encoding:
    """A codec, and whether the file begins with a byte order mark, which is written again."""

    codec: str
    mark: bool


@contextmanager
def reading(path: Path, encoding: str | None, newline: str) -> Iterator[tuple[IO[str], IO[bytes]]]:
    """The text of a file without its byte order mark, and the file on the disk, whose place says how far it is read.

    Args:
        newline: as `open` takes it: "" keeps all ends of lines, "\\n" knows no other.

    Raises:
        DataError: no such encoding, another one than it is, or a damaged gzip file.
    """
    found = encoding_of(path, encoding)
    with path.open("rb") as raw, _unpacked(path, raw) as unpacked:
        text = io.TextIOWrapper(unpacked, found.codec, newline=newline)
        try:
            if found.mark:
                text.read(1)
            yield text, raw
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: {_diagnosis(path, found.codec)}") from error
        except _DAMAGED as error:
            raise DataError(f"{path}: not a whole gzip file: {error}") from error
        finally:
            text.detach()


@contextmanager
def writing(path: Path, encoding: Encoding, packed: bool) -> Iterator[IO[str]]:
    """A file to write text to, as it is; packed with gzip the same text gives the same bytes each time."""
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))  # a GzipFile is no IO to the type checker
        if packed:
            file = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
        text = stack.enter_context(io.TextIOWrapper(file, encoding.codec, newline=""))
        if encoding.mark:
            text.write("\ufeff")
        yield text


def encoding_of(path: Path, encoding: str | None) -> Encoding:
    """The encoding to read a file with.

    Raises:
        DataError: there is none of that name, or the file is no text.
    """
    with path.open("rb") as raw, _unpacked(path, raw) as file:
        try:
            start = file.read(512)
        except _DAMAGED as error:
            raise DataError(f"{path}: not a whole gzip file: {error}") from error
    marked = next((codec for mark, codec in _MARKS.items() if start.startswith(mark)), None)
    if encoding is None:
        for magic, what in _NOT_TEXT.items():
            if start.startswith(magic):
                raise DataError(f"{path}: is no text but {what}")
        if marked is None and (likely := _utf16(start)):
            raise DataError(f"{path}: looks like UTF-16 without a byte order mark: pass --encoding {likely}")
        return Encoding(marked or "utf-8", marked is not None)
    try:
        codec = codecs.lookup(encoding).name
        "".encode(codec)  # what is no encoding of text, like base64, raises
    except LookupError as error:
        raise DataError(f"--encoding {encoding}: no such encoding; gbk, latin-1 and utf-16 are some") from error
    if codec == "utf-16":
        codec = marked if marked and marked.startswith("utf-16") else "utf-16-le"
    codec = codec.removesuffix("-sig")
    return Encoding(codec, marked == codec)


def bounded_line(file: IO[str], path: Path, number: int) -> str:
    """The next line with its end; empty at the end of the file.

    Raises:
        DataError: a line of more than 16,777,216 characters.
    """
    line = file.readline(MAX_CHARACTERS + 1)
    if len(line) > MAX_CHARACTERS:
        raise DataError(f"{path}: line {number}: has more than {MAX_CHARACTERS:,} characters; divide it")
    return line


def likely_encodings(sample: bytes) -> list[str]:
    """The encodings that bytes which are not UTF-8 look like, the likeliest first: few characters may fit several."""
    shares: dict[str, float] = {}
    found: dict[str, set[str]] = {}
    for codec, ranges in _COMMON.items():
        # A sample may end within a character: what cannot be read in its last bytes says nothing.
        text = codecs.getincrementaldecoder(codec)(errors="replace").decode(sample)
        others = [character for character in text if not character.isascii()]
        if codec == "gbk" and others:  # the level of GB 2312 that ordinary text is made of, else any bytes pass for it
            others = [one if _is_common_chinese(one) else "\ufffd" for one in others]
        common = sum(any(low <= one <= high for low, high in ranges) for one in others)
        if others:
            shares[codec] = common / len(others)
            found[codec] = set(others)
    if shares and not _NEIGHBOURS.search(sample):
        return [_LATIN]  # a letter with an accent stands among others
    if max((share for codec, share in shares.items() if codec != _LATIN), default=0.0) > _BEYOND_CHANCE:
        del shares[_LATIN]  # in which nearly any bytes are letters
    most = max(shares.values(), default=0.0)
    if most <= 0.5:
        return []
    alike = [codec for codec, share in shares.items() if share == most]
    if len(found[alike[0]]) >= _MANY_CHARACTERS:
        return alike[:1]
    return sorted(alike, key=lambda codec: -len(found[codec].intersection(_FREQUENT.get(codec, ""))))


def _is_common_chinese(character: str) -> bool:
    try:
        return character.encode("gb2312")[0] <= 0xD7
    except UnicodeEncodeError:
        return False


def _utf16(start: bytes) -> str | None:
    """By where the zeros stand: text in Latin letters has one in every second byte."""
    if start[1::2].count(0) > len(start) / 4:
        return "utf-16-le"
    return "utf-16-be" if start[::2].count(0) > len(start) / 4 else None


def _diagnosis(path: Path, codec: str) -> str:
    """Which line is not in this encoding, and what it looks like."""
    name = codec.upper()
    if codec.startswith("utf-16"):
        return f"is not {name}; leave --encoding away or pass another"
    with path.open("rb") as raw, _unpacked(path, raw) as file:
        number = 0
        while line := file.readline(MAX_CHARACTERS):
            number += 1
            try:
                line.decode(codec)
            except UnicodeDecodeError:
                break
        likely = likely_encodings(line + file.read(_SAMPLE_BYTES))
    if not likely or codec in likely:
        return f"line {number}: is not {name}; repair it, or name its encoding with --encoding"
    return (
        f"line {number}: is not {name}; it looks like {' or '.join(likely)}: pass "
        f"{' or '.join(f'--encoding {one}' for one in likely)}"
    )


@contextmanager
def _unpacked(path: Path, raw: IO[bytes]) -> Iterator[Any]:  # a GzipFile is no IO to the type checker
    if path.suffix.lower() != ".gz":
        yield raw
        return
    with gzip.GzipFile(fileobj=raw, mode="rb") as file:
        yield file
