import pytest

from service.http.accept import accepted

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, []),
        ("", []),
        ("text/plain", [("text/plain", None)]),
        ('Text/Plain ; Version="0.0.4"', [("text/plain", "0.0.4")]),
        ("a/b;q=0.1, c/d;version=2;q=0.9, e/f", [("e/f", None), ("c/d", "2"), ("a/b", None)]),
        ("a/b;q=0, c/d;q=x, e/f;q=nan, g/h;q=-1, ;, i/j", [("i/j", None)]),
        (
            PROMETHEUS,
            [
                ("application/openmetrics-text", "1.0.0"), ("application/openmetrics-text", "0.0.1"),
                ("text/plain", "1.0.0"), ("text/plain", "0.0.4"), ("*/*", None),
            ],
        ),
    ],
)  # fmt: skip
def test_what_is_wanted_most_comes_first(header: str | None, expected: list[tuple[str, str | None]]) -> None:
    assert accepted(header) == expected
