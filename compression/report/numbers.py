"""What is said of a model that gives a number, in place of accuracy, labels and calibration."""

from compression.bundle import Deviation, Figures, NumberDifferences, NumberFigures
from compression.report.words import measured, number, percent, plain, ranged

Line = tuple[str, str, str]  # what, parent, bundle

_NAMES = {
    "spearman": "Spearman (95 %)",
    "pearson": "Pearson (95 %)",
    "mae": "mean absolute error (95 %)",
    "rmse": "root mean sq. error (95 %)",
}


def cost(figures: Figures, labelled: int, texts: int) -> str:
    """What became of the numbers, in one clause."""
    parent, bundle, differences = figures.parent.number, figures.bundle.number, figures.differences
    if parent is None or bundle is None or differences is None:
        assert figures.deviation is not None  # a number has it
        agreed = ranged(*map(percent, (figures.agreement, figures.agreement_low, figures.agreement_high)))
        return f"a number within {number(figures.deviation.tolerance)} of the parent's on {agreed} % of {texts} texts"
    change = measured(differences.mae, sign=True)
    return (
        f"Spearman's correlation with the labels {plain(parent.spearman)} to {plain(bundle.spearman)}, mean absolute "
        f"error {plain(parent.mae)} to {plain(bundle.mae)} on {labelled} texts, difference (95 %) {change}"
    )


def lines(figures: Figures) -> list[Line]:
    """Parent against bundle."""
    return [
        *_figures(figures.parent.number, figures.bundle.number),
        *_differences(figures.differences),
        *_deviation(figures.deviation),
    ]


def conclusion(differences: NumberDifferences) -> str:
    """Whether the texts tell the two apart."""
    low, high = differences.mae.low, differences.mae.high
    if low <= 0 <= high:
        return "The interval of the mean absolute error's difference holds 0: these texts do not tell the two apart."
    which = (
        "above 0: the bundle's numbers are further from" if low > 0 else "below 0: the bundle's numbers are nearer to"
    )
    return f"The interval of the mean absolute error's difference lies {which} the labels."


def _figures(parent: NumberFigures | None, bundle: NumberFigures | None) -> list[Line]:
    if parent is None or bundle is None:
        return [(what, "no labels", "no labels") for what in _NAMES.values()]
    return [(what, measured(getattr(parent, name)), measured(getattr(bundle, name))) for name, what in _NAMES.items()]


def _differences(differences: NumberDifferences | None) -> list[Line]:
    if differences is None:
        return []
    return [
        (what.replace(" (95 %)", ", difference (95 %)"), "", measured(getattr(differences, name), sign=True))
        for name, what in _NAMES.items()
    ]


def _deviation(deviation: Deviation | None) -> list[Line]:
    if deviation is None:
        return []
    correlation = "undefined" if deviation.spearman is None else f"{deviation.spearman:.4f}"
    return [
        ("Spearman with the parent", "", correlation),
        ("mean difference from parent", "", number(deviation.mean)),
        ("largest difference from parent", "", number(deviation.largest)),
    ]
