"""Properties of the tokens of over a million generated values, in batches of about a second each.

The values are drawn anew each time from a seed that a failure names.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Callable
from socket import AF_INET, AF_INET6, inet_ntop

import pytest

from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.opening import open_mask
from sqs2pg.mask.registry import compile_operator
from tests.hypothesis_profiles import scaled

COUNT = scaled(20_000, 260_000)
"""Of each kind; in the long profile, four kinds make over a million."""
RING = Keyring({v: hashlib.sha256(b"million %d" % v).digest() for v in (1, 2)})
TOKEN = re.compile(r"v1_[0-9a-f]{32}")
SEED = int.from_bytes(os.urandom(4), "big")

Draw = Callable[[random.Random], tuple[str, str]]
"""A value and another spelling of the same."""


def an_address(drawn: random.Random) -> tuple[str, str]:
    if drawn.random() < 0.5:
        packed = drawn.randbytes(4)
        mapped = f"::FFFF:{packed[:2].hex()}:{packed[2:].hex()}"
        return inet_ntop(AF_INET, packed), mapped
    packed = b"\x20\x01" + drawn.randbytes(14)
    digits = packed.hex().upper()
    return inet_ntop(AF_INET6, packed), ":".join(digits[i : i + 4] for i in range(0, 32, 4))


def a_text(drawn: random.Random) -> tuple[str, str]:
    stem = f"{drawn.getrandbits(drawn.randint(40, 400)):x}"
    return f"{stem}é", f"{stem}e\u0301"


def an_email(drawn: random.Random) -> tuple[str, str]:
    value = f"{drawn.getrandbits(60):x}.{drawn.randint(0, 99)}@Example.com"
    return value.lower(), value.upper()


def a_uuid(drawn: random.Random) -> tuple[str, str]:
    digits = f"{drawn.getrandbits(128):032x}"
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts), digits.upper()


KINDS: dict[str, Draw] = {"ip": an_address, "text": a_text, "email": an_email, "uuid": a_uuid}


def masks(kind: str, version: int = 1) -> Callable[[str], str | None]:
    ring = RING.with_active("pseudonym", version)
    return compile_operator("pseudonymize", kind=kind, domain="d", keyring=ring).mask


@pytest.mark.parametrize("kind", KINDS)
def test_equal_values_have_equal_tokens_and_unequal_ones_unequal(kind: str) -> None:
    drawn = random.Random(SEED)
    draw = KINDS[kind]
    pairs = dict(draw(drawn) for _ in range(COUNT))  # distinct by their first spelling
    mask = masks(kind)
    tokens = list(map(mask, pairs))
    assert list(map(mask, pairs.values())) == tokens, f"seed {SEED}"
    assert len(set(tokens)) == len(pairs) > 0.99 * COUNT, f"seed {SEED}"
    joined = "".join(map(str, tokens))
    assert len(joined) == 35 * len(tokens), "the same length for every value"
    assert TOKEN.sub("", joined) == ""


def test_a_token_tells_nothing_of_how_its_value_begins() -> None:
    """Values that share all but their last digits have tokens spread evenly over all digits.

    Chi-squared of each hex digit's place, 15 degrees of freedom: over 60 has a chance of 2e-7.
    """
    mask = masks("text")
    tokens = [str(mask(f"593-47-{number:06}")) for number in range(100_000)]
    for place in range(3, 35):
        counts = [0] * 16
        for token in tokens:
            counts[int(token[place], 16)] += 1
        expected = len(tokens) / 16
        assert sum((count - expected) ** 2 / expected for count in counts) < 60, place


def test_a_token_tells_nothing_of_how_long_its_value_is() -> None:
    mask = masks("text")
    lengths = [len(str(mask("x" * length))) for length in range(0, 20_000, 7)]
    assert set(lengths) == {35}


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_keeps_old_tokens_resolvable(kind: str) -> None:
    """With both roots held, a value's token of either version is made again; versions differ."""
    drawn = random.Random(SEED)
    values = [KINDS[kind](drawn)[0] for _ in range(20_000)]
    old, new = masks(kind, 1), masks(kind, 2)
    book = {old(value): value for value in values}
    rotated = {new(value): value for value in values}
    assert not book.keys() & rotated.keys()
    again = compile_operator(
        "pseudonymize", kind=kind, domain="d", keyring=RING.with_active("pseudonym", 1)
    ).mask
    assert all(book[again(value)] == value for value in values), f"seed {SEED}"


@pytest.mark.parametrize("name", ["encrypt", "encrypt_deterministic"])
def test_rotation_keeps_encrypted_values_openable(name: str) -> None:
    drawn = random.Random(SEED)
    values = [a_text(drawn)[0] for _ in range(2_000)]
    old = compile_operator(
        name, kind="text", domain="d", keyring=RING.with_active("pseudonym", 1)
    ).mask
    tokens = [str(old(value)) for value in values]
    now = RING.with_active("pseudonym", 2)
    opened = [open_mask(token, kind="text", domain="d", keyring=now) for token in tokens]
    assert opened == values, f"seed {SEED}"
