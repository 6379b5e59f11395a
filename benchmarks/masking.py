"""How much of what is personal or secret the masker finds, and what it finds that is neither.

    python -m benchmarks.masking ../shared/data

Recall and precision of each type with a definite form on the labelled synthetic texts (`pii_presidio_synth`), where an
entity counts as found when all of it is masked under its type; then texts of reviews and questions in which something
is found, one in how many, with what it was: there, most are real telephone numbers and URLs; and the time of a text.
"""

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from pyarrow import parquet

from service.masking import Entity, Masker

_SAME = {"DOMAIN_NAME": {"URL"}, "PHONE_NUMBER": {"PHONE_NUMBER", "CN_MOBILE", "CN_LANDLINE"}}
_FORMS = (
    "CREDIT_CARD", "DOMAIN_NAME", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "PHONE_NUMBER", "US_DRIVER_LICENSE",
    "US_SSN",
)  # fmt: skip


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(data: Path) -> None:
    """Measures on the data sets below DATA."""
    masker = Masker()
    rows = parquet.read_table(data / "pii_presidio_synth" / "test.parquet").to_pylist()
    known: Counter[str] = Counter()
    found: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for row in rows:
        entities = masker.find(row["text"])
        spans = [span for span in json.loads(row["spans"]) if span["type"] in _FORMS]
        known.update(span["type"] for span in spans)
        found.update(span["type"] for span in spans if any(_is(entity, span) for entity in entities))
        false.update(entity.type for entity in entities if not any(_is(entity, span, False) for span in spans))
    click.echo(f"{len(rows)} synthetic texts\n\n| type | there | found |\n| --- | ---: | ---: |")
    for kind in _FORMS:
        click.echo(f"| {kind} | {known[kind]} | {found[kind]} |")
    right, wrong = found.total(), false.total()
    click.echo(f"\nrecall {right / known.total():.3f}, precision {right / (right + wrong):.3f}; false: {dict(false)}\n")
    click.echo("| texts of | texts | with something | of what types | us a text, median |")
    click.echo("| --- | ---: | ---: | --- | ---: |")
    for folder in sorted(data.iterdir()):
        if folder.name != "pii_presidio_synth" and folder.is_dir():
            _look(folder, masker)


def _is(entity: Entity, span: dict[str, object], whole: bool = True) -> bool:
    """Whether it is that one, all of it, or else in part."""
    kind, start, end = str(span["type"]), int(str(span["start"])), int(str(span["end"]))
    if entity.type not in _SAME.get(kind, {kind}):
        return False
    if whole:
        return entity.start <= start + 1 and entity.end >= end - 1  # a parenthesis, a slash
    return entity.start < end and start < entity.end


def _texts(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.parquet")):
        yield from parquet.read_table(path, columns=["text"]).column("text").to_pylist()[:10_000]


def _look(folder: Path, masker: Masker) -> None:
    kinds: Counter[str] = Counter()
    times = []
    hits = 0
    for text in _texts(folder):
        start = time.perf_counter()
        entities = masker.find(text)
        times.append(time.perf_counter() - start)
        hits += bool(entities)
        kinds.update(entity.type for entity in entities)
    if times:
        named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        click.echo(f"| {folder.name} | {len(times)} | {hits} | {named} | {statistics.median(times) * 1e6:.0f} |")


if __name__ == "__main__":
    main()
