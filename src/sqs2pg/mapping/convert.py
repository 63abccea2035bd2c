"""Convert: one cleartext value of a field -> the text of its column, by the field's type.

A converter takes the value's text as received and returns the text that PostgreSQL reads, before
COPY's escapes. It raises PermanentFault with a code and never quotes the value. No I/O here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from datetime import date as Date  # noqa: N812 - `date` is a converter here
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mapping.moments import rfc3339, timestamp_text
from sqs2pg.mask.canonical import ip as canonical_ip

Converter = Callable[[str], str]

MAJOR_MAX = 2_146
"""Largest major number: 2146.999.999 is the last version below PostgreSQL's 2**31 - 1."""
PART_MAX = 999

_VERSION = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?\Z")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})\Z")
# RFC 3339, section 5.6: date-time; "T" and "Z" may be lower case, a space may stand for "T".
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?P<fraction>\.[0-9]+)?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>[0-9]{2}):(?P<minutes>[0-9]{2}))\Z"
)
_WHOLE = re.compile(r"-?[0-9]+\Z")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_DIGITS_MAX = 40
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_BITS = re.compile(r"[0-9]{1,3}\Z")
_JSON_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
# PostgreSQL documentation, chapter 8.1: the limits of `numeric`.
NUMERIC_WHOLE_MAX = 131_072
NUMERIC_FRACTION_MAX = 16_383
_NUMBER_CHARACTERS_MAX = 200_000


def version(value: str) -> str:
    """Return a dotted version as an integer that keeps the order of versions.

    One to three dotted decimal numbers; major * 1,000,000 + minor * 1,000 + patch, missing
    parts 0. Raises PermanentFault `bad_version` for another form, `version_range` for a part
    over 999 or a major over 2,146.
    """
    major, minor, patch = _version_parts(value)
    if minor > PART_MAX or patch > PART_MAX:
        raise PermanentFault("version_range", stage=Stage.MASK)
    return str(major * 1_000_000 + minor * 1_000 + patch)


def major(value: str) -> str:
    """Return the major number of a dotted version; the other parts may be of any size.

    Raises PermanentFault `bad_version` as `version` does, `version_range` for a major over 2,146.
    """
    return str(_version_parts(value)[0])


def _version_parts(value: str) -> tuple[int, int, int]:
    match = _VERSION.match(value)
    if not match:
        raise PermanentFault("bad_version", stage=Stage.MASK)
    # Nine digits are over every limit already; int() refuses more than 4,300.
    number, minor, patch = (int((part or "").lstrip("0")[:9] or 0) for part in match.groups())
    if number > MAJOR_MAX:
        raise PermanentFault("version_range", stage=Stage.MASK)
    return number, minor, patch


def date(value: str) -> str:
    """Return the UTC date, YYYY-MM-DD, of an ISO date or an RFC 3339 timestamp.

    Raises PermanentFault `bad_date` for anything else. That includes a timestamp without an offset:
    its day in UTC is unknown.
    """
    try:
        if day := full_date(value):
            return day.isoformat()
        if match := _TIMESTAMP.match(value):
            return _utc_date(match)
    except (ValueError, OverflowError):
        pass  # no such day, or a conversion to before year 1 or after 9999
    raise PermanentFault("bad_date", stage=Stage.MASK)


def full_date(value: str) -> Date | None:
    """Return the day of an ISO date, YYYY-MM-DD; None of any other text."""
    match = _DATE.match(value)
    try:
        return Date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:  # no such day
        return None


def _utc_date(match: re.Match[str]) -> str:
    moment = _utc_second(match)
    return (moment - timedelta(seconds=1) if match[6] == "60" else moment).date().isoformat()


def _utc_second(match: re.Match[str]) -> datetime:
    """Return the second in UTC; a leap second is the first one of the next minute."""
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    if leap := second == 60:
        second = 59
    offset = timedelta(0)
    if match["sign"]:
        hours, minutes = int(match["hours"]), int(match["minutes"])
        if hours > 23 or minutes > 59:
            raise ValueError
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if match["sign"] == "-" else 1)
    local = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
    utc = local.astimezone(UTC)
    if not leap:
        return utc
    if (utc.hour, utc.minute) != (23, 59):  # RFC 3339, appendix D: leap seconds only there
        raise ValueError
    return utc + timedelta(seconds=1)


def text(value: str) -> str:
    """Return the value itself."""
    return value


def timestamptz(value: str) -> str:
    """Return an RFC 3339 timestamp in UTC, to the microsecond that PostgreSQL keeps.

    The offset may lack its colon. Raises PermanentFault `bad_timestamp` for anything else, such as
    one without an offset.
    """
    moment = rfc3339(value, colon=False)
    if moment is None:
        raise PermanentFault("bad_timestamp", stage=Stage.MASK)
    return timestamp_text(moment)


def integer(value: str) -> str:
    """Return a JSON number without a fraction, such as 7, 7.0 or 7e2, as a 32-bit integer.

    Raises PermanentFault `bad_integer` for another number, `out_of_range`.
    """
    return _integer(value, 2**31)


def bigint(value: str) -> str:
    """As `integer`, of 64 bits."""
    return _integer(value, 2**63)


def _integer(value: str, bound: int) -> str:
    if _WHOLE.match(value):
        number = int(value) if len(value) <= _DIGITS_MAX else bound
    else:
        exact = _number(value)
        if exact.adjusted() > _DIGITS_MAX:
            number = bound
        elif exact != exact.to_integral_value():
            raise PermanentFault("bad_integer", stage=Stage.MASK)
        else:
            number = int(exact)
    if not -bound <= number < bound:
        raise PermanentFault("out_of_range", stage=Stage.MASK)
    return str(number)


def numeric(value: str) -> str:
    """Return the number as it is written, for PostgreSQL's `numeric`, which keeps all its digits.

    Raises PermanentFault `bad_number`, or `out_of_range` past PostgreSQL's 131,072 digits before
    the point and 16,383 after it.
    """
    exact = _number(value)
    _, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)
    if exact and (exact.adjusted() >= NUMERIC_WHOLE_MAX or -exponent > NUMERIC_FRACTION_MAX):
        raise PermanentFault("out_of_range", stage=Stage.MASK)
    return value if len(digits) <= NUMERIC_WHOLE_MAX else _out_of_range()


def double(value: str) -> str:
    """Return the nearest 64-bit number, for `double precision`.

    Raises PermanentFault `bad_number`; `out_of_range` where that would be infinite, or 0 for a
    number that is not 0: PostgreSQL refuses both.
    """
    exact = _number(value)
    number = float(exact)
    if math.isinf(number) or (not number and exact):
        return _out_of_range()
    return repr(number)


def _number(value: str) -> Decimal:
    exact = number(value)
    if exact is None:
        raise PermanentFault("bad_number", stage=Stage.MASK)
    return exact


def number(value: str) -> Decimal | None:
    """Return the number that a text is, exactly; None where it is none.

    Raises PermanentFault `out_of_range` past 200,000 digits.
    """
    if len(value) <= _NUMBER_CHARACTERS_MAX and _NUMBER.match(value):
        try:
            exact = Decimal(value)
        except InvalidOperation:  # an exponent of too many digits, even for Decimal
            exact = None
        if exact is not None and abs(exact.adjusted()) <= _NUMBER_CHARACTERS_MAX:
            return exact
        return _out_of_range()
    return None


def _out_of_range() -> NoReturn:
    raise PermanentFault("out_of_range", stage=Stage.MASK)


def boolean(value: str) -> str:
    """Return `true` or `false`. Raises PermanentFault `bad_boolean`."""
    if value in ("true", "false"):
        return value
    raise PermanentFault("bad_boolean", stage=Stage.MASK)


def uuid(value: str) -> str:
    """Return a UUID in the form of RFC 9562, lower case. Raises PermanentFault `bad_uuid`."""
    if _UUID.match(value):
        return value.lower()
    raise PermanentFault("bad_uuid", stage=Stage.MASK)


def inet(value: str) -> str:
    """Return an address, or a network as address/bits, that PostgreSQL's `inet` takes.

    The address is one that `inet_pton` takes. Raises PermanentFault `bad_ip`.
    """
    address, slash, bits = value.partition("/")
    packed = canonical_ip(address)
    widest = 128 if ":" in address else 32
    if not packed or (slash and not (_BITS.match(bits) and int(bits) <= widest)):
        raise PermanentFault("bad_ip", stage=Stage.MASK)
    return value


def jsonb(value: str) -> str:
    """Return the JSON text itself, for PostgreSQL's `jsonb`, which makes it canonical.

    Raises PermanentFault `nul_character`: `jsonb` cannot hold one, although RFC 8259 allows it.
    """
    if _JSON_NUL.search(value):
        raise PermanentFault("nul_character", stage=Stage.MASK)
    return value
