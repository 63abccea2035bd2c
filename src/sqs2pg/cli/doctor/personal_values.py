"""Values that look personal: what a text or number shows by itself, whatever its name.

It returns categories, never a value. Numbers of cards and accounts must pass their check digits
(ISO/IEC 7812-1 annex B, ISO 13616-1); the rest goes by form. In doubt a value counts as personal:
people judge the proposal, and an address that is kept by mistake is worse than a text that is
masked by mistake.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from sqs2pg.cli.doctor.personal_names import Category

TEXT_MAX = 20_000
"""Characters of a value that are looked at."""

_EMAIL = re.compile(r"[^\s@<>\"',;:()\[\]]+@[\w-]+(?:\.[\w-]+)+")
_IPV4 = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)"
)
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_MAC = re.compile(
    r"(?<![\w:-])(?:[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}"
    r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![\w:-])"
)
_CARD = re.compile(
    r"(?<![\w.-])[2-6]\d{3}(?:([ -]?)\d{4}\1\d{4}\1\d{1,7}|[ -]?\d{6}[ -]?\d{5})(?![\w-])"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?"
    r"(?![A-Za-z0-9])"
)
_NATIONAL = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+\d[\d ()./-]{6,20}\d"  # international, ITU-T E.164
    r"|00[1-9][\d ()./-]{6,18}\d"
    r"|\(\d{2,5}\)[ .-]?\d{2,5}(?:[ .-]?\d{2,6}){1,3}"  # an area code in brackets
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"
    r"|0\d{1,4}[ ./-]\d{2,8}(?:[ ./-]?\d{2,6}){0,3}"
    r"|0[1-9]\d{8,9}"
    r")(?![\w-])"
)
_SHORT_PHONE = re.compile(r"(?<![\w.+-])\d{3}[.-]\d{4}(?![\w.-])")
_CALLED = re.compile(r"(?i)\b(?:phone|tel|call|mobile|cell|fax|reach|text|ring|dial)\b")
# Not the days and times in a text, which look like the groups of a number.
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?: ?[+-]\d\d:?\d\d)?"
    r"|(?<![\d./-])\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d\d)(?![\d./-])"
)
_SECRET = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"  # a JSON Web Token, RFC 7519
    r"|\b(?:Bearer|Basic|Digest) +[\w.~+/=-]{8,}"
    r"|\b(?:sk|pk|rk)_(?:live|test)_\w{8,}|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@]+@"  # user and password in a URL
    r"|(?i:\b(?:password|passwd|pwd|secret|api_?key|access_?token|token|sessionid|session_id|sid"
    r"|jsessionid|phpsessid|csrftoken|auth)\s*[=:]\s*[^\s&;,]{4,})"
    r"|\A[\w.-]+=[^;=\s]+(?:; ?[\w.-]+(?:=[^;]*)?){1,}\Z"  # a Cookie header, RFC 6265
)
_USER_AGENT = re.compile(
    r"\A(?:Mozilla|Opera|Dalvik|okhttp|curl|python-requests|PostmanRuntime|Java|Go-http-client|"
    r"axios|Wget|CFNetwork|Apache-HttpClient)/[\d.]+"
    r"|\A[\w.-]+/\d[\w.]* \([^)]*\)|(?:AppleWebKit|Gecko|Chrome|Safari|Darwin)/[\d.]+"
)
_LOCATION = re.compile(
    r"\A[(\[]?\s*-?\d{1,2}\.\d{3,}\s*[,; ]\s*-?\d{1,3}\.\d{3,}\s*[)\]]?\Z"
    r"|\A[(\[]?\s*-?\d{1,2}\.\d+\s*[,;]\s*-?\d{1,3}\.\d+\s*[)\]]?\Z"  # a town is enough
    r"|\Ageo:-?\d|\A(?:SRID=\d+;)?POINT ?\(|\d{1,3}°\s?\d"
)
# Length of an IBAN by its country: SWIFT, IBAN registry.
_IBAN_CHARACTERS = {
    country: characters
    for characters, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
        32: "LC",
    }.items()
    for country in countries.split()
}


def categories(value: str) -> set[Category]:
    """Return what a text shows by itself, also somewhere inside it."""
    text = value[:TEXT_MAX]
    return set(_found(text)) if any(c.isdigit() or c in "@=:/{" for c in text) else set()


def is_alone(value: str) -> bool:
    """Whether a text is one address, of mail or IP, with nothing beside it."""
    return bool(_EMAIL.fullmatch(value)) or _is_ip(value)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _found(text: str) -> Iterator[Category]:
    if "@" in text and _EMAIL.search(text):
        yield "email"
    if _SECRET.search(text):
        yield "secret"
    if _IPV4.search(text) or (text.count(":") > 1 and any(map(_is_ipv6, _IPV6.finditer(text)))):
        yield "ip"
    if _MAC.search(text):
        yield "mac"
    if _USER_AGENT.search(text):
        yield "user_agent"
    if _LOCATION.search(text):
        yield "location"
    if any(is_card(match[0]) for match in _CARD.finditer(text)):
        yield "account"
    if any(is_iban(match[0]) for match in _IBAN.finditer(text)):
        yield "account"
    if _NATIONAL.search(text):
        yield "national_id"
    if _has_phone(_MOMENT.sub(" ", text)):
        yield "phone"


def _has_phone(text: str) -> bool:
    if any(8 <= sum(map(str.isdigit, match[0])) <= 15 for match in _PHONE.finditer(text)):
        return True
    return bool(_SHORT_PHONE.search(text) and _CALLED.search(text))


def _is_ipv6(match: re.Match[str]) -> bool:
    try:
        ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    # "::" and "::1" are no person's, and "a::b" is rather code.
    return len(match[0]) > 3 and any(map(str.isdigit, match[0]))


def is_card(text: str) -> bool:
    """Whether digits, in groups or not, are the number of a payment card: ISO/IEC 7812-1."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2 or not 2 <= digits[0] <= 6:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text is an account number by ISO 13616-1: country, length and check digits."""
    plain = text.replace(" ", "").upper()
    if _IBAN_CHARACTERS.get(plain[:2]) != len(plain):
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1
