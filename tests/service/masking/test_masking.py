"""What is found in a text and what is not, and what takes its place. All values are made up."""

import random
import signal
from collections.abc import Callable
from typing import get_args

import pytest
from stdnum.cn import ric, uscc

from service.api.schemas import EntityType
from service.masking import TYPES, Masker, Mode

FOUND = [
    ("write to ann.lee+x@mail.example.com.", "EMAIL_ADDRESS", "ann.lee+x@mail.example.com"),
    ("我的邮箱是ann@example.com，谢谢", "EMAIL_ADDRESS", "ann@example.com"),
    ("邮箱ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "EMAIL_ADDRESS", "ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ"),
    ("pay with 4111 1111 1111 1111 today", "CREDIT_CARD", "4111 1111 1111 1111"),
    ("4111-1111-1111-1111 2024", "CREDIT_CARD", "4111-1111-1111-1111"),
    ("12 4111 1111 1111 1111", "CREDIT_CARD", "4111 1111 1111 1111"),
    ("卡号４１１１１１１１１１１１１１１１吗", "CREDIT_CARD", "４１１１１１１１１１１１１１１１"),
    ("to GB82 WEST 1234 5698 7654 32 please", "IBAN_CODE", "GB82 WEST 1234 5698 7654 32"),
    ("gb82west12345698765432", "IBAN_CODE", "gb82west12345698765432"),
    ("from 192.168.0.17, twice", "IP_ADDRESS", "192.168.0.17"),
    ("from 2001:db8::8a2e:370:7334", "IP_ADDRESS", "2001:db8::8a2e:370:7334"),
    ("see https://example.com/a?b=c, then", "URL", "https://example.com/a?b=c"),
    ("请看http://example.com/a。好的", "URL", "http://example.com/a"),
    ("postgresql://ann:s3cret@db.example.com/bank", "CREDENTIALS", "postgresql://ann:s3cret@db.example.com/bank"),
    ("Server=db;Password=s3cret!;", "CREDENTIALS", "s3cret!"),
    ("密码：abc12345，谢谢", "CREDENTIALS", "abc12345"),
    ("my SSN is 514-69-0360", "US_SSN", "514-69-0360"),
    ("social security number 514690360", "US_SSN", "514690360"),
    ("passport number C01234567", "US_PASSPORT", "C01234567"),
    ("driver's license F162-8235-4011", "US_DRIVER_LICENSE", "F162-8235-4011"),
    ("call +44 20 7946 0958 now", "PHONE_NUMBER", "+44 20 7946 0958"),
    ("call (212) 555-0147 now", "PHONE_NUMBER", "(212) 555-0147"),
    ("212-555-0147 ext. 12", "PHONE_NUMBER", "212-555-0147 ext. 12"),
    ("Mobile: 723 813 266", "PHONE_NUMBER", "723 813 266"),
    ("723 813 266 office", "PHONE_NUMBER", "723 813 266"),
    ("手机13800138000，收到", "CN_MOBILE", "13800138000"),
    ("+86 138 0013 8000", "CN_MOBILE", "+86 138 0013 8000"),
    ("１３８-００１３-８０００", "CN_MOBILE", "１３８-００１３-８０００"),
    ("总机010-88210766", "CN_LANDLINE", "010-88210766"),
    ("身份证11010119900307109X号", "CN_RESIDENT_ID", None),
    ("护照E12345678", "CN_PASSPORT", "E12345678"),
    ("车牌京A12345在楼下", "CN_LICENSE_PLATE", "京A12345"),
    ("粤B·D12345", "CN_LICENSE_PLATE", "粤B·D12345"),
    ("代码91110000600037341L", "CN_SOCIAL_CREDIT_CODE", "91110000600037341L"),
    ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl", "JWT", None),
    ("AKIAIOSFODNN7EXAMPLE is mine", "API_KEY", "AKIAIOSFODNN7EXAMPLE"),
    ("Authorization: Bearer abcdefghijklmnop1234", "CREDENTIALS", "abcdefghijklmnop1234"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n", "PRIVATE_KEY", None),
]
NOT_FOUND = [
    "4111 1111 1111 1112 is no card",
    "it took 12345678901234567890 steps",
    "version 1.2.3.4.5 and 999.1.1.1",
    "from 1999-2008, on 2008-12-01, at 07.00-08.00",
    "26 885 540 shares, or 1.000.000",
    "GB82 WEST 1234 5698 7654 33",
    "order 174208675, room 402, 1,234,567.89",
    "110101199003071234 has a wrong checksum",
    "我住402房间，2008年12月1日，人均150元",
    "ratio 16:9 at 10:30:15, a::b",
    "he@home, a@b, 50% @ 3",
    "bundles/mine:latest; std::vector",
    "",
]


def resident_id() -> str:
    body = "11010119900307109"
    return f"{body}{ric.calc_check_digit(f'{body}0')}"


@pytest.mark.parametrize(("text", "kind", "value"), FOUND)
def test_it_is_found_and_masked(text: str, kind: str, value: str | None) -> None:
    text = text.replace("11010119900307109X", resident_id())
    masked = Masker().mask(text)
    (entity,) = masked.entities
    assert entity.type == kind
    found = text[entity.start : entity.end]
    assert value is None or found == value
    assert found not in masked.text
    assert masked.text == text.replace(found, f"<{kind}>")


@pytest.mark.parametrize("text", NOT_FOUND)
def test_nothing_is_found(text: str) -> None:
    masked = Masker().mask(text)
    assert (masked.text, masked.entities) == (text, ())


def test_of_two_that_overlap_the_surer_stays() -> None:
    (entity,) = Masker().find("https://ann:s3cret@example.com/4111111111111111")
    assert (entity.type, entity.start) == ("CREDENTIALS", 0)


def test_several_in_one_text_keep_their_places() -> None:
    text = "ann@example.com, +44 20 7946 0958; 4111111111111111"
    masked = Masker().mask(text)
    assert masked.text == "<EMAIL_ADDRESS>, <PHONE_NUMBER>; <CREDIT_CARD>"
    assert [text[one.start : one.end] for one in masked.entities] == text.replace(";", ",").split(", ")


def test_modes() -> None:
    text = "card 4111 1111 1111 1111, pin"
    assert Masker(Mode.LAST_FOUR).mask(text).text == "card **** **** **** 1111, pin"
    assert Masker(Mode.LAST_FOUR).mask("京A12345").text == "*******"  # four would be most of it
    assert Masker(Mode.DROP).mask(text).text == "card , pin"
    one, other = (Masker(Mode.PSEUDONYM, key=key) for key in (b"k" * 32, b"l" * 32))
    assert one.mask(text).text == one.mask("card 4111111111111111, pin").text != other.mask(text).text
    assert one.mask(text).text != one.mask("card 5500005555555559, pin").text
    with pytest.raises(ValueError, match="key"):
        Masker(Mode.PSEUDONYM)


def test_only_what_is_asked_for() -> None:
    text = "ann@example.com 4111111111111111"
    assert Masker(types=["CREDIT_CARD"]).mask(text).text == "ann@example.com <CREDIT_CARD>"


def test_made_up_numbers_in_running_chinese_are_all_found() -> None:
    choose = random.Random(0)

    def digits(count: int) -> str:
        return "".join(choose.choices("0123456789", k=count))

    def resident() -> str:
        place, year, day = choose.choice(["110101", "310104", "440305"]), choose.randint(1950, 2005), "0715"
        body = f"{place}{year}{day}{digits(3)}"
        return f"{body}{ric.calc_check_digit(f'{body}0')}"

    def credit_code() -> str:
        body = f"91{choose.choice(['110000', '310115'])}{digits(8)}X"
        return f"{body}{uscc.calc_check_digit(body)}"

    made: dict[str, Callable[[], str]] = {
        "CN_RESIDENT_ID": resident,
        "CN_SOCIAL_CREDIT_CODE": credit_code,
        "CN_MOBILE": lambda: f"1{choose.choice('3456789')}{digits(9)}",
        "CN_LANDLINE": lambda: f"0{choose.choice(['10', '21', '755', '571'])}-{choose.choice('2345678')}{digits(7)}",
        "CN_LICENSE_PLATE": lambda: f"{choose.choice('京沪粤浙')}{choose.choice('ABCD')}{digits(5)}",
        "EMAIL_ADDRESS": lambda: f"u{digits(5)}@example.com",
    }
    carriers = ["我的号码是{}，请尽快处理", "{}查一下这个，谢谢", "已经登记了{}但是没人联系我"]
    masker = Masker()
    for kind, make in made.items():
        missed = []
        for _ in range(100):
            value = make()
            text = choose.choice(carriers).format(value)
            if [(one.type, text[one.start : one.end]) for one in masker.find(text)] != [(kind, value)]:
                missed.append(text)
        assert not missed


def test_every_type_has_a_case() -> None:
    assert {kind for _, kind, _ in FOUND} == set(TYPES) == set(get_args(EntityType))


@pytest.mark.parametrize(
    "text",
    [
        *(f"+{digit * 80}{end}" for digit in "18" for end in ("a", "")),
        "+1 (" + "5" * 200 + ")",
        "+1" + " (22) 333" * 40 + "a",
        "+1" + "(1)1" * 60 + "a",
        "001" + "2./" * 100 + "x",
        *(f"GB82{letter * 60}" for letter in "A1"),
        "DE44 " + "AB1 " * 30 + "é",
        "4" + " 1" * 60 + "a",
        "(02) " * 40 + "5a",
        "a" * 64 + "@" + "b.c-" * 100 + "@",
        "Bearer " + "a=" * 200,
        "password: " + "-" * 300,
        "-----BEGIN " * 50,
        "1.2.3." * 80 + "x",
        "f:" * 100 + "g",
    ],
)
def test_no_text_has_the_recognisers_try_for_ever(text: str) -> None:
    """They would hold up everybody: a regular expression keeps the interpreter. Milliseconds each, or years."""
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(20)
    try:
        Masker().find(text * 20)
        Masker().find(f"{text} " * 20)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _give_up(*_: object) -> None:
    pytest.fail("it was tried for 20 seconds")


@pytest.mark.parametrize(
    "number",
    [
        "+442079460958", "+44 20 7946 0958", "+44 (0)20 7946 0958", "+1(555)123-4567", "+1 (555) 123-4567",
        "+1-555-123-4567", "+49/30/901820", "0044 20 7946 0958", "+86 138 0013 8000", "+1.555.123.4567 x12",
        "+33 1 23 45 67 89", "+44(20)79460958",
    ],
)  # fmt: skip
def test_international_numbers_however_they_are_divided(number: str) -> None:
    text = f"Call {number} before 5, or 2nd floor."
    (entity,) = Masker(types=["PHONE_NUMBER"]).find(text)
    assert text[entity.start : entity.end] == number
