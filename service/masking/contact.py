"""Where somebody is reached: e-mail, telephone, addresses on the network."""

import ipaddress
import re

from service.masking.recogniser import Recogniser, compact

_HOST = r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"
_AROUND = r"\s<>\"'，。；！？、】」》"  # no part of a URL, though Chinese is
_DATE = re.compile(r"(?:[0-9]{4}[ .-][0-9]{1,2}[ .-][0-9]{1,2}|[0-9]{1,2}[ .-][0-9]{1,2}[ .-](?:[0-9]{4}|[0-9]{2}))")
_SPAN = re.compile(
    r"(?:19|20)[0-9]{2} ?- ?(?:19|20)[0-9]{2}|[0-2]?[0-9]\.[0-9]{2} ?- ?[0-2]?[0-9]\.[0-9]{2}"
)  # years, hours
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:[ .][0-9]{3})+")
_PHONE = re.compile(
    r"phone|\b(?:tel|call|cell|mobile|fax|reach|text|number|dial|contact|desk|office)\b"
    r"|电话|手机|联系|热线|号码|座机|拨打|致电",
    re.IGNORECASE,
)
_KIND = (
    r"(?=[ ,-]{0,2}(?:office|fax|mobile|desk|home|work|cell|phone|tel)\b)"  # may stand behind, as in an address book
)
_EXTENSION = r"(?: ?(?:x|ext\.?) ?[0-9]{1,6})?"
# A group behind the first one. Something stands before it, for if a run of digits could be divided anywhere, all its
# divisions would be tried: years, of a hundred digits.
_FURTHER = r"(?:(?:[ ./-]{1,2}\(?|\()[0-9]{1,12}+(?:\)[0-9]{1,12}+)?\)?)"
_BEGIN = r"(?<![0-9A-Za-z@:+-])(?<![0-9][.,/])(?<![0-9]{2} )"
_END = r"(?![0-9A-Za-z/@:%]|[.,-][0-9])"
# Groups of digits with something between them: parentheses suffice.
_GROUPS = r"(?:\([0-9]{2,5}\)[ .-]?|[0-9]{2,5}[ .-])(?:\(?[0-9]{2,5}\)?[ .-]){0,5}[0-9]{2,8}" + _EXTENSION


def _is_ip(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return address.version == 4 or any(map(str.isdigit, value))  # a::b is C++


def _length(value: str) -> int:
    """Digits, without an extension's."""
    return len(compact(re.split("[xe]", value)[0]))


def _is_international(value: str) -> bool:
    return 8 <= _length(value.removeprefix("00")) <= 15


def _is_number(value: str) -> bool:
    other = _DATE.fullmatch(value) or _SPAN.fullmatch(value)
    return other is None and 7 <= _length(value) <= 12


def _is_national(value: str) -> bool:
    """Whether it looks like a telephone number where nothing says so: no amount, span of years, or two numbers."""
    groups = re.split(r"[^0-9]+", value.strip("()"))
    alone = _THOUSANDS.fullmatch(value) or (len(groups) == 2 and not value.startswith(("0", "(")))
    return _is_number(value) and not alone


RECOGNISERS = [
    Recogniser(
        "EMAIL_ADDRESS",
        re.compile(rf"(?<![A-Za-z0-9._%+'-])[A-Za-z0-9](?:[A-Za-z0-9._%+'-]{{0,63}})@{_HOST}(?![A-Za-z0-9])"),
        0.95,
        needs="@",
    ),
    Recogniser(
        "URL",
        re.compile(rf"(?<![A-Za-z0-9])(?:https?|ftp)://[^{_AROUND}]{{1,2048}}[^{_AROUND}.,;:!?)\]]/?"),
        0.9,
        needs="://",
    ),
    Recogniser(
        "IP_ADDRESS",
        re.compile(r"(?<![0-9A-Za-z.:])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z:]|\.[0-9])"),
        0.9,
        _is_ip,
        digits=4,
    ),
    Recogniser(
        "IP_ADDRESS",
        re.compile(r"(?<![0-9A-Za-z.:])[0-9A-Fa-f:]{2,39}(?::[0-9.]{7,15})?(?![0-9A-Za-z:])"),
        0.9,
        _is_ip,
        needs=":",
    ),
    Recogniser(
        "PHONE_NUMBER",
        re.compile(
            r"(?<![0-9A-Za-z+])(?:\+|00)[1-9][0-9]{0,14}+" + _FURTHER + r"{0,7}" + _EXTENSION + r"(?![0-9A-Za-z])"
        ),
        0.9,
        _is_international,
        digits=7,
    ),
    Recogniser("PHONE_NUMBER", re.compile(_BEGIN + _GROUPS + _END), 0.7, _is_national, digits=7),
    Recogniser("PHONE_NUMBER", re.compile(_BEGIN + _GROUPS + _END), 0.75, _is_number, before=_PHONE, digits=7),
    Recogniser("PHONE_NUMBER", re.compile(_BEGIN + _GROUPS + _KIND, re.IGNORECASE), 0.75, _is_number, digits=7),
    Recogniser("PHONE_NUMBER", re.compile(_BEGIN + r"[2-9][0-9]{2}[2-9][0-9]{6}" + _EXTENSION + _END), 0.6, digits=7),
    Recogniser("PHONE_NUMBER", re.compile(_BEGIN + r"[0-9]{7,12}" + _END), 0.6, before=_PHONE, digits=7),
    Recogniser("PHONE_NUMBER", re.compile(_BEGIN + r"[0-9]{7,12}" + _KIND, re.IGNORECASE), 0.6, digits=7),
]
