"""Convert: versions, dates and text, with tables of accepted and refused values."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import date as day
from datetime import timedelta

import pytest

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mapping.convert import (
    MAJOR_MAX,
    PART_MAX,
    bigint,
    date,
    integer,
    major,
    text,
    version,
)
from sqs2pg.mapping.field_types import FIELD_TYPES

INT4_MAX = 2**31 - 1


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("2.3.0", 2_003_000),
        ("2", 2_000_000),
        ("2.3", 2_003_000),
        ("0", 0),
        ("0.0", 0),
        ("0.0.0", 0),
        ("0.0.1", 1),
        ("0.4.6", 4_006),
        ("10.0.1", 10_000_001),
        ("1.999.999", 1_999_999),
        ("0.999.999", 999_999),
        ("2146", 2_146_000_000),
        ("2146.999.999", 2_146_999_999),
        ("02.03.00", 2_003_000),
        ("0002146.0999.00999", 2_146_999_999),
        ("0" * 5_000 + "2.3", 2_003_000),
    ],
)
def test_a_version_is_an_integer(value: str, number: int) -> None:
    assert version(value) == str(number)
    assert number <= INT4_MAX


@pytest.mark.parametrize(
    "value",
    [
        "2147",
        "2147.0.0",
        "2.1000",
        "2.3.1000",
        "0.0.1000",
        "9" * 18,
        "9" * 5_000,
        "1." + "9" * 5_000,
        "1.2.1" + "0" * 18,
        "2147483648",
    ],
)
def test_a_part_or_major_over_its_limit_is_out_of_range(value: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        version(value)
    assert (caught.value.code, caught.value.stage) == ("version_range", Stage.MASK)


BAD_VERSIONS = [
    *("", " ", ".", "..", "2.", ".2", "2..3", "2.3.", "2.3.0.", "2.3.0.1", "1.2.3.4.5"),
    *(
        "-1",
        "+1",
        "2.-3",
        "2.+3",
        "- 1",
        " 2.3",
        "2.3 ",
        "2. 3",
        "2.3\n",
        "\n2.3",
        "2.3\r",
        "2.3\x00",
    ),
    *(
        "v2.3",
        "2.3b",
        "2.3-rc1",
        "2.3.x",
        "latest",
        "2,3",
        "2_000",
        "1e3",
        "0x10",
        "NaN",
        "Infinity",
    ),
    *(
        "\u0662.\u0663",
        "\uff12.\uff13",
        "\u00b2",
        "2\u200b.3",
        "2\u00a0.3",
        "\u216b",
        "\u4e00",
        "\U0001d7da.\U0001d7db",
        "1.2.\uff13",
    ),
    *("\ufeff2.3", "2/3", "2:3", "2\u30023", "\ud800", "\U0001f4a5"),
]


@pytest.mark.parametrize("value", BAD_VERSIONS)
def test_text_of_any_other_form_is_refused_as_a_version(value: str) -> None:
    for convert in (version, major):
        with pytest.raises(PermanentFault) as caught:
            convert(value)
        assert (caught.value.code, caught.value.stage) == ("bad_version", Stage.MASK)


def test_the_order_of_versions_is_kept() -> None:
    limits = (0, 1, 2, 9, 10, 99, 100, PART_MAX - 1, PART_MAX)
    parts = itertools.product((0, 1, 9, 10, 100, MAJOR_MAX - 1, MAJOR_MAX), limits, limits)
    numbers = [int(version(f"{a}.{b}.{c}")) for a, b, c in parts]  # product comes in order
    assert numbers == sorted(set(numbers))


def test_missing_parts_are_zero() -> None:
    assert version("7") == version("7.0") == version("7.0.0")
    assert version("7.5") == version("7.5.0")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("2.3.0", "2"),
        ("2", "2"),
        ("0.9", "0"),
        ("2146.1", "2146"),
        ("007.1", "7"),
        ("120.0.6099", "120"),  # a browser's version: the use of this encoding
    ],
)
def test_major_is_the_first_number(value: str, number: str) -> None:
    assert major(value) == number


@pytest.mark.parametrize("value", ["2147", "99999999999999999999.1"])
def test_a_major_over_its_limit_is_out_of_range(value: str) -> None:
    with pytest.raises(PermanentFault, match="version_range"):
        major(value)


@pytest.mark.parametrize(
    ("value", "utc_day"),
    [
        ("2024-02-29", "2024-02-29"),
        ("2000-02-29", "2000-02-29"),
        ("0001-01-01", "0001-01-01"),
        ("9999-12-31", "9999-12-31"),
        ("2023-05-06T07:08:09Z", "2023-05-06"),
        ("2023-05-06t07:08:09z", "2023-05-06"),
        ("2023-05-06 07:08:09Z", "2023-05-06"),
        ("2023-05-06T00:00:00Z", "2023-05-06"),
        ("2023-05-06T23:59:59.999999999999Z", "2023-05-06"),
        ("2023-05-06T07:08:09.1+00:00", "2023-05-06"),
        ("2023-05-06T07:08:09-00:00", "2023-05-06"),
        # Over midnight, both ways, over month and year too.
        ("2023-05-06T23:30:00-01:00", "2023-05-07"),
        ("2023-05-06T22:59:59-01:00", "2023-05-06"),
        ("2023-05-06T23:00:00-01:00", "2023-05-07"),
        ("2023-05-06T00:30:00+01:00", "2023-05-05"),
        ("2023-05-06T00:59:59+01:00", "2023-05-05"),
        ("2023-05-06T01:00:00+01:00", "2023-05-06"),
        ("2023-05-06T05:29:59+05:30", "2023-05-05"),
        ("2023-05-06T05:30:00+05:30", "2023-05-06"),
        ("2024-03-01T00:00:00+14:00", "2024-02-29"),
        ("2023-03-01T00:00:00+14:00", "2023-02-28"),
        ("2023-12-31T23:59:59-00:01", "2024-01-01"),
        ("2024-01-01T00:00:00+00:01", "2023-12-31"),
        ("2023-05-06T00:00:00+23:59", "2023-05-05"),
        ("2023-05-06T23:59:59-23:59", "2023-05-07"),
        ("0001-01-01T00:00:00Z", "0001-01-01"),
        ("9999-12-31T23:59:59Z", "9999-12-31"),
        ("9999-12-31T23:59:59+01:00", "9999-12-31"),
        # Leap seconds: 23:59:60 in UTC, whatever the local time is.
        ("2016-12-31T23:59:60Z", "2016-12-31"),
        ("2016-12-31T23:59:60.5Z", "2016-12-31"),
        ("2017-01-01T00:59:60+01:00", "2016-12-31"),
        ("2016-12-31T15:59:60-08:00", "2016-12-31"),
        ("1990-12-31T15:59:60-08:00", "1990-12-31"),
    ],
)
def test_a_date_is_the_utc_day(value: str, utc_day: str) -> None:
    assert date(value) == utc_day


BAD_DATES = [
    *("", " ", "today", "now", "infinity", "epoch", "yesterday", "1683356400", "1683356400000"),
    # No such day or time.
    *("2023-02-29", "2100-02-29", "2023-02-30", "2023-04-31", "2023-13-01", "2023-00-10"),
    *("2023-01-00", "2023-01-32", "0000-01-01", "0000-12-31T23:59:59-01:00"),
    *("2023-05-06T24:00:00Z", "2023-05-06T25:00:00Z", "2023-05-06T23:60:00Z"),
    *("2023-05-06T23:59:61Z", "2023-05-06T12:30:60Z", "2016-12-31T22:59:60Z"),
    *("2016-12-31T23:59:60+01:00", "2016-12-31T23:58:60Z"),
    # The day in UTC is before year 1 or after 9999.
    *("0001-01-01T00:00:00+00:01", "0001-01-01T00:30:00+01:00", "9999-12-31T23:59:59-00:01"),
    *("9999-12-31T23:30:00-01:00", "10000-01-01", "-0001-01-01", "+2023-05-06"),
    # No offset, or an impossible one.
    *("2023-05-06T07:08:09", "2023-05-06 07:08:09", "2023-05-06T07:08:09.5"),
    *("2023-05-06T07:08:09+0100", "2023-05-06T07:08:09+01", "2023-05-06T07:08:09+1:00"),
    *("2023-05-06T07:08:09+24:00", "2023-05-06T07:08:09-24:00", "2023-05-06T07:08:09+01:60"),
    *("2023-05-06T07:08:09+01:00:00", "2023-05-06T07:08:09 UTC", "2023-05-06T07:08:09UTC"),
    *("2023-05-06T07:08:09Z+01:00", "2023-05-06T07:08:09\u221201:00", "2023-05-06Z"),
    # Other forms of ISO 8601, and forms of no standard.
    *("2023-W18-6", "2023W186", "2023-126", "2023126", "20230506", "20230506T070809Z", "2023-05"),
    *("2023", "2023-5-6", "23-05-06", "2023/05/06", "06.05.2023", "05/06/2023", "May 6, 2023"),
    *("2023-05-06T07:08Z", "2023-05-06T07Z", "2023-05-06T070809Z", "2023-05-06T7:08:09Z"),
    *("2023-05-06T07:08:09.Z", "2023-05-06T07:08:09,5Z", "2023-05-06T07:08:09. 5Z"),
    *("2023-05-06T", "2023-05-06TZ", "2023-05-06  07:08:09Z", "2023-05-06\t07:08:09Z"),
    *("2023-05-06_07:08:09Z", "2023-05-0607:08:09Z", "2023-05-06T07:08:09Z/P1D"),
    # Characters around it.
    *(" 2023-05-06", "2023-05-06 ", "2023-05-06\n", "\n2023-05-06", "2023-05-06\x00"),
    *("2023-05-06T07:08:09Z ", "2023-05-06T07:08:09Z\n", "\ufeff2023-05-06", "'2023-05-06'"),
    # Digits and hyphens that are not ASCII.
    *(
        "\u0662\u0660\u0662\u0663-\u0660\u0665-\u0660\u0666",
        "\uff12\uff10\uff12\uff13-\uff10\uff15-\uff10\uff16",
        "2023\u201005\u201006",
        "2023-05-06T\u0660\u0667:08:09Z",
        "\ud800",
    ),
]


@pytest.mark.parametrize("value", BAD_DATES)
def test_any_other_value_is_refused_as_a_date(value: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        date(value)
    assert (caught.value.code, caught.value.stage) == ("bad_date", Stage.MASK)


def test_every_day_of_four_years_is_taken_as_it_is() -> None:
    first = day(1999, 1, 1)
    days = [(first + timedelta(days=n)).isoformat() for n in range(1_461)]
    assert [date(value) for value in days] == days


@pytest.mark.parametrize(("convert", "bound"), [(integer, 2**31), (bigint, 2**63)])
def test_whole_numbers_are_bounded_as_their_columns_are(
    convert: Callable[[str], str], bound: int
) -> None:
    assert convert(str(bound - 1)) == str(bound - 1)
    assert convert(str(-bound)) == str(-bound)
    for number in (bound, -bound - 1):
        for spelling in (str(number), f"{number}.0", f"{number}e0"):
            with pytest.raises(PermanentFault, match="out_of_range"):
                convert(spelling)


@pytest.mark.parametrize("value", ["", " x ", "\x00", "\ud800", "\\N", "a\tb"])
def test_text_is_itself(value: str) -> None:
    assert text(value) is value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", "hunter2"),
        ("version", "1.99999"),
        ("version", "9" * 5_000),
        ("major", "hunter2"),
        ("date", "hunter2"),
        ("date", "9999-12-31T23:59:59-01:00"),
    ],
)
def test_a_fault_holds_nothing_of_the_value(name: str, value: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        FIELD_TYPES[name].convert(value)
    fault: BaseException | None = caught.value
    while fault is not None:
        assert value not in f"{fault!r} {fault} {fault.args} {vars(fault)}"
        fault = fault.__context__


@pytest.mark.parametrize("slashes", range(1, 7))
def test_jsonb_takes_no_nul_and_takes_a_backslash_before_u0000(slashes: int) -> None:
    value = '["a' + "\\" * slashes + 'u0000"]'
    if slashes % 2:  # the last one begins \u0000
        with pytest.raises(PermanentFault, match="nul_character"):
            FIELD_TYPES["jsonb"].convert(value)
    else:
        assert FIELD_TYPES["jsonb"].convert(value) == value
