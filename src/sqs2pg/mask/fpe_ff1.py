"""Format-preserving encryption: FF1 of NIST SP 800-38G under AES-256, no tweak.

The mask has the form of the value and fits its column: digits stay digits, an address stays an
address. It is a permutation, so masks can be counted and joined, and whoever has the key gets the
value back. The mask shows neither that it is one nor the key's version.

    text    letters and digits are enciphered in place as one numeral string; separators stay
    phone   the canonical digits, radix 10
    ip      the 32 or 128 bits, radix 2: an address of the same family
    uuid    the 128 bits, radix 2

Text is a numeral string over the smallest alphabet that holds it: digits; digits and lower-case
letters; digits and upper-case letters; all of these. If the result would fit a smaller alphabet it
is enciphered again (cycle walking), so value and mask always have the same alphabet.

Needs the extra `fpe`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

from sqs2pg.errors import PermanentFault, SettingsError, Stage
from sqs2pg.keys.derive import operator_key
from sqs2pg.mask.canonical import CANONICAL, PHONE_DIGITS_MAX, shown
from sqs2pg.mask.domain import Roots, active_root
from sqs2pg.mask.operator import Declaration, Operator, Properties

VALUES_MIN = 1_000_000
"""SP 800-38G Revision 1 (second draft), section 5.1: a smaller domain is open to attacks."""

PROPERTIES = Properties(
    deterministic=True,
    reversible=False,
    joinable=True,
    format_preserving=True,
    keyed=True,
    recoverable=True,
    values_min=VALUES_MIN,
    kinds=("ip", "phone", "text", "uuid"),
)

_LOWER = string.digits + string.ascii_lowercase
_UPPER = string.digits + string.ascii_uppercase
_ALPHABETS = (string.digits, _LOWER, _UPPER, string.digits + string.ascii_letters)
_TEXT = re.compile(r"[0-9A-Za-z \-./:()+_#,]+\Z")
_NUMERAL = re.compile(r"[0-9A-Za-z]")
_CHARACTERS_MAX = 4_096
"""FF1's time grows with the square of the length; SP 800-38G allows up to 2**32."""

Cipher = Any  # ffx.FF1, which has no types


def fpe_ff1(key: bytes, kind: str) -> Operator:
    """Return the operator of one domain; `key` is the domain's, 32 bytes.

    Its mask raises PermanentFault `bad_format` for text with other characters than letters,
    digits and separators of ASCII, `too_short` if fewer than a million values have the value's
    form, `too_long`, and what the kind's canonical form raises. Raises SettingsError
    `extra_missing` if the extra is not installed.
    """
    return Operator("fpe_ff1", PROPERTIES, _permutation(key, kind, forward=True))


def decrypt(key: bytes, kind: str, mask: str) -> str:
    """Return the canonical value of a mask. Raises PermanentFault if the text cannot be a mask."""
    return _permutation(key, kind, forward=False)(mask)


def _permutation(key: bytes, kind: str, *, forward: bool) -> Callable[[str], str]:
    if kind in ("ip", "uuid"):
        permute = _direction(_cipher(key, "01"), forward, integers=True)
        canonical = CANONICAL[kind]

        def permute_bits(value: str) -> str:
            data = canonical(value)
            number = permute(int.from_bytes(data, "big"), domain=1 << 8 * len(data))
            return shown(kind, number.to_bytes(len(data), "big"))

        return permute_bits
    permutations = {
        alphabet: _direction(_cipher(key, alphabet), forward, integers=False)
        for alphabet in _ALPHABETS
    }
    if kind == "phone":
        return lambda value: _permute_text(permutations, CANONICAL["phone"](value).decode())
    return lambda value: _permute_text(permutations, value)


def _permute_text(permutations: dict[str, Callable[..., Any]], value: str) -> str:
    if not _TEXT.match(value):
        raise PermanentFault("bad_format", stage=Stage.MASK)
    if len(value) > _CHARACTERS_MAX:
        raise PermanentFault("too_long", stage=Stage.MASK)
    numerals = "".join(_NUMERAL.findall(value))
    alphabet = _alphabet(numerals)
    if len(numerals) < 2 or len(alphabet) ** len(numerals) < VALUES_MIN:
        raise PermanentFault("too_short", stage=Stage.MASK)
    permute = permutations[alphabet]
    permuted = permute(numerals)
    while _alphabet(permuted) != alphabet:
        permuted = permute(permuted)
    each = iter(permuted)
    return _NUMERAL.sub(lambda _: next(each), value)


def _alphabet(numerals: str) -> str:
    if numerals.isdecimal():
        return _ALPHABETS[0]
    if numerals == numerals.lower():
        return _ALPHABETS[1]
    return _ALPHABETS[2] if numerals == numerals.upper() else _ALPHABETS[3]


def _direction(cipher: Cipher, forward: bool, *, integers: bool) -> Callable[..., Any]:
    if integers:
        return cipher.encrypt_int if forward else cipher.decrypt_int  # type: ignore[no-any-return]
    return cipher.encrypt if forward else cipher.decrypt  # type: ignore[no-any-return]


def _cipher(key: bytes, alphabet: str) -> Cipher:
    try:
        from ffx import FF1
    except ImportError:
        raise SettingsError(
            'mask = "fpe_ff1" needs the package libffx, which is not installed',
            code="extra_missing",
            hint="pip install 'sqs2pg[fpe]'",
        ) from None
    return FF1(bytes(key), alphabet=alphabet)


def _compile(kind: str, domain: str, roots: Roots | None) -> Operator:
    _, root = active_root("fpe_ff1", domain, roots)
    return fpe_ff1(operator_key(root, "fpe_ff1", domain), kind)


DECLARATION = Declaration(
    "fpe_ff1",
    PROPERTIES,
    _compile,
    widths={"ip": len(":".join(["ffff"] * 8)), "phone": PHONE_DIGITS_MAX, "uuid": 36},
    column_types={"ip": "inet", "uuid": "uuid"},
)
