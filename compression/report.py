"""What a manifest says, for people: the report, the model card, and the table that the command line prints."""

from importlib import resources
from typing import Any

from rich.console import Console
from rich.table import Table

from compression.bundle import Difference, Manifest, Significance

Row = tuple[str, str, str]


def comparison(manifest: Manifest) -> list[Row]:
    """Parent against bundle, row by row: what, parent, bundle."""
    figures = manifest.figures
    return [
        ("size, MB", f"{figures.parent.size_mb:.1f}", f"{figures.bundle.size_mb:.1f}"),
        ("accuracy, %", _percent(figures.parent.accuracy), _percent(figures.bundle.accuracy)),
        ("macro-F1, %", _percent(figures.parent.macro_f1), _percent(figures.bundle.macro_f1)),
        *_significance_rows(figures.significance),
        ("agreement with parent, %", "", f"{100 * figures.agreement:.1f}"),
        ("largest difference of a logit", "", f"{figures.max_logit_difference:.2f}"),
        ("largest change of a score by a batch", "", f"{figures.batch_deviation:.1e}"),
        *(
            (
                f"speed, {latency.batch} x {latency.tokens} tokens",
                "1",
                f"{latency.ratio:.1f} x ({latency.ratio_low:.1f} to {latency.ratio_high:.1f})",
            )
            for latency in figures.latency
        ),
    ]


def print_comparison(name: str, manifest: Manifest) -> None:
    """Prints the comparison as a table on standard output."""
    data = manifest.data
    table = Table(
        title=f"{name} on {data.test_texts} texts, {data.labelled_test_texts} with labels", title_justify="left"
    )
    table.add_column("")
    table.add_column("parent", justify="right")
    table.add_column("bundle", justify="right")
    for row in comparison(manifest):
        table.add_row(*row)
    Console().print(table)


def report_html(manifest: Manifest) -> str:
    """A page that needs no other file and no network."""
    return _render("report.html", manifest, title=manifest.parent.name)


def model_card(manifest: Manifest, name: str) -> str:
    """README.md of a bundle."""
    return _render("card.md", manifest, title=name)


def _render(template: str, manifest: Manifest, **values: Any) -> str:
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (resources.files("compression") / "templates" / name).read_text("utf-8")
        ),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    recipe = yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True)
    return environment.get_template(template).render(
        manifest=manifest, rows=comparison(manifest), recipe=recipe, **values
    )


def _significance_rows(significance: Significance | None) -> list[Row]:
    if significance is None:
        return []
    return [
        ("accuracy, difference in points", "", _points(significance.accuracy)),
        ("macro-F1, difference in points", "", _points(significance.macro_f1)),
        ("McNemar's p", "", f"{significance.mcnemar_p:.2g}"),
    ]


def _points(difference: Difference) -> str:
    """With its 95 % interval."""
    value, low, high = (f"{100 * number:+.1f}" for number in (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})"


def _percent(fraction: float | None) -> str:
    return "no labels" if fraction is None else f"{100 * fraction:.1f}"
