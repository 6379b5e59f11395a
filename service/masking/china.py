"""Chinese numbers: resident identity card, unified social credit code, telephones, passports, licence plates."""

import re

from stdnum.cn import ric, uscc
from stdnum.exceptions import ValidationError

from service.masking.recogniser import Recogniser, compact

_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领"
_CREDIT_CODE = "[0-9A-HJ-NPQRTUWXY]"
_BEGIN, _END = r"(?<![0-9A-Za-z.])", r"(?![0-9A-Za-z])"


def _is_resident(value: str) -> bool:
    """By date and check digit. Not by county, as `ric.is_valid` has it: that may be younger than who was born there."""
    number = compact(value)
    try:
        ric.get_birth_date(number)
    except ValidationError:
        return False
    return bool(ric.calc_check_digit(number) == number[-1])


def _is_organisation(value: str) -> bool:
    return bool(uscc.is_valid(compact(value)))


def _has_digit(value: str) -> bool:
    return any(map(str.isdigit, value))


RECOGNISERS = [
    Recogniser(
        "CN_RESIDENT_ID",
        re.compile(_BEGIN + r"[1-9][0-9]{5}[ -]?[12][0-9]{3}[ -]?[01][0-9][0-3][0-9][ -]?[0-9]{3}[0-9Xx]" + _END),
        1.0,
        _is_resident,
        digits=17,
    ),
    Recogniser(
        "CN_SOCIAL_CREDIT_CODE",
        re.compile(_BEGIN + rf"{_CREDIT_CODE}{{2}}[0-9]{{6}}{_CREDIT_CODE}{{10}}" + _END),
        1.0,
        _is_organisation,
        digits=8,
    ),
    Recogniser(
        "CN_MOBILE",
        re.compile(r"(?<![0-9A-Za-z.+])(?:(?:\+|00)?86[ -]?)?1[3-9][0-9](?:[ -]?[0-9]{4}){2}" + _END),
        0.95,
        digits=11,
    ),
    Recogniser(
        "CN_LANDLINE",
        re.compile(
            _BEGIN + r"\(?0(?:10|2[0-9]|[3-9][0-9]{2})\)?[ -]?[2-9][0-9]{2,3}[ -]?[0-9]{4}(?:[ -][0-9]{1,5})?" + _END
        ),
        0.9,
        digits=10,
    ),
    Recogniser(
        "CN_PASSPORT",
        re.compile(_BEGIN + r"(?:[EeGgPpSsDd][A-Za-z]?[0-9]{7,8}|[HhMm][0-9]{8,10})" + _END),
        0.8,
        before=re.compile(r"护照|通行证|passport", re.IGNORECASE),
        digits=7,
    ),
    Recogniser(
        "CN_LICENSE_PLATE",
        re.compile(rf"[{_PROVINCES}][A-HJ-NP-Z][ ·•-]?[A-HJ-NP-Z0-9]{{4,5}}[A-HJ-NP-Z0-9挂学警港澳]" + _END),
        0.9,
        _has_digit,
        digits=1,
    ),
]
