"""Numbers of accounts and documents, by their checksums where they have one."""

import re

from stdnum import iban, luhn

from service.masking.recogniser import Recogniser, compact

# The first digits that card networks use (ISO/IEC 7812): JCB's old ones, and those that begin with 2 to 6.
_NETWORKS = re.compile(r"1800|2131|2[2-7]|3[0-9]|4|5[0-8]|6")
_DOCUMENT = r"(?<![0-9A-Za-z-])(?=[A-Za-z0-9-]{0,17}[0-9])"


def _is_card(value: str) -> bool:
    digits = compact(value)
    return 12 <= len(digits) <= 19 and _NETWORKS.match(digits) is not None and bool(luhn.is_valid(digits))


def _is_iban(value: str) -> bool:
    return bool(iban.is_valid(value, check_country=False))


def _has_digits(value: str) -> bool:
    return sum(map(str.isdigit, value)) >= 5


RECOGNISERS = [
    Recogniser(  # of numbers that are none, a tenth pass its check: an identity card that does is that
        "CREDIT_CARD",
        re.compile(r"(?<![0-9A-Za-z+])[1-6](?:[ -]?[0-9]){11,18}(?![0-9A-Za-z])"),
        0.98,
        _is_card,
        trims=True,
        digits=12,
    ),
    Recogniser(
        "IBAN_CODE",
        re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){3,32}(?![0-9A-Za-z])"),
        1.0,
        _is_iban,
        trims=True,
        digits=8,
    ),
    Recogniser(
        "US_SSN",
        re.compile(
            r"(?<![0-9A-Za-z-])(?!000|666|9)[0-9]{3}([- ])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![0-9A-Za-z]|-[0-9])"
        ),
        0.85,
        digits=9,
    ),
    Recogniser(
        "US_SSN",
        re.compile(r"(?<![0-9A-Za-z-])(?!000|666|9)[0-9]{3}(?!00)[0-9]{2}(?!0000)[0-9]{4}(?![0-9A-Za-z-])"),
        0.8,
        before=re.compile(r"\bssn\b|social security", re.IGNORECASE),
        digits=9,
    ),
    Recogniser(
        "US_PASSPORT",
        re.compile(r"(?<![0-9A-Za-z-])[A-Za-z]?[0-9]{8,9}(?![0-9A-Za-z-])"),
        0.8,
        before=re.compile(r"passport", re.IGNORECASE),
        digits=8,
    ),
    Recogniser(
        "US_DRIVER_LICENSE",
        re.compile(_DOCUMENT + r"[A-Za-z0-9][A-Za-z0-9-]{4,17}(?![0-9A-Za-z-])"),
        0.75,
        _has_digits,
        before=re.compile(r"driv(?:er|ing)'?s?'? licen[cs]e|\bdl\b|licen[cs]e (?:number|no)", re.IGNORECASE),
        digits=5,
    ),
]
