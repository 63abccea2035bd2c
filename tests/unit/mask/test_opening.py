"""Opening reversible masks: which key opens which value, and what is refused."""

from __future__ import annotations

import hashlib

import pytest

from sqs2pg.errors import KeyFault, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.opening import open_fpe_ff1, open_mask
from sqs2pg.mask.registry import compile_operator
from sqs2pg.mask.token import BLOCK_BYTES, format_token, pad, parse_token, unpad

RING = Keyring({v: hashlib.sha256(b"root %d" % v).digest() for v in (1, 2, 9_999)})
VALUES = ["", " ", "007", "Caf\xe9", "😀", "\0", "\x80", "a\x80", "x" * 31, "x" * 32, "é" * 5_000]
ENCRYPTING = ("encrypt", "encrypt_deterministic")


def masked(
    name: str, value: str, *, kind: str = "text", domain: str = "d", version: int = 1
) -> str:
    ring = RING.with_active("pseudonym", version)
    mask = compile_operator(name, kind=kind, domain=domain, keyring=ring)(value)
    assert mask is not None
    return mask


def refused(token: str, *, domain: str = "d", ring: Keyring = RING) -> str:
    with pytest.raises(Sqs2pgError) as caught:
        open_mask(token, kind="text", domain=domain, keyring=ring)
    assert caught.value.__context__ is None
    assert len(token) < 3 or token not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("value", VALUES, ids=lambda v: ascii(v)[:20])
@pytest.mark.parametrize("name", ENCRYPTING)
def test_what_was_masked_opens(name: str, value: str) -> None:
    for version in (1, 9_999):
        token = masked(name, value, version=version)
        assert open_mask(token, kind="text", domain="d", keyring=RING) == value


def test_a_value_opens_as_received_or_canonical() -> None:
    for name, opened in (("encrypt", "::FFFF:1.2.3.4"), ("encrypt_deterministic", "1.2.3.4")):
        token = masked(name, "::FFFF:1.2.3.4", kind="ip")
        assert open_mask(token, kind="ip", domain="d", keyring=RING) == opened


def test_equal_values_are_encrypted_apart_unless_asked_for() -> None:
    assert len({masked("encrypt", "a") for _ in range(100)}) == 100
    assert len({masked("encrypt_deterministic", "a") for _ in range(100)}) == 1
    composed, decomposed = "Caf\xe9", "Cafe\u0301"
    assert masked("encrypt_deterministic", composed) == masked("encrypt_deterministic", decomposed)


@pytest.mark.parametrize("name", ENCRYPTING)
def test_short_values_look_alike(name: str) -> None:
    assert len({len(masked(name, "x" * length)) for length in range(BLOCK_BYTES)}) == 1
    assert len(masked(name, "x" * BLOCK_BYTES)) > len(masked(name, ""))


@pytest.mark.parametrize("name", ENCRYPTING)
def test_a_token_opens_only_where_it_belongs(name: str) -> None:
    token = masked(name, "a")
    other = Keyring({1: hashlib.sha256(b"other").digest()})
    assert refused(token, domain="e") == "mask_damaged"
    assert refused(token, ring=other) == "mask_damaged"
    assert refused(f"{token[0]}2{token[2:]}") == "mask_damaged"
    for place in (3, 20, len(token) - 2):
        flipped = "A" if token[place] != "A" else "B"
        assert refused(token[:place] + flipped + token[place + 1 :]) == "mask_damaged"
    swapped = {"e": "d", "d": "e"}[token[0]] + token[1:]
    assert refused(swapped) in {"mask_damaged", "sealed_body_format"}
    assert refused(token[:40]) in {"mask_damaged", "not_a_mask"}


@pytest.mark.parametrize(
    "token",
    ["", "a", "e1_", "e0_AAAA", "e01_AAAA", "e10000_AAAA", "E1_AAAA", "e1_A", "e1_AAA=", "e1_AB",
     "e1_AA\n", "e1_😀", "v1_00112233445566778899aabbccddeeff", "x1_AAAA", "[redacted]"],
)  # fmt: skip
def test_text_that_is_no_token_is_refused(token: str) -> None:
    assert refused(token) == "not_a_mask"


def test_a_version_that_is_not_held_is_reported() -> None:
    with pytest.raises(KeyFault) as caught:
        open_mask(
            masked("encrypt", "a").replace("e1_", "e3_"), kind="text", domain="d", keyring=RING
        )
    assert caught.value.code == "key_missing"


@pytest.mark.parametrize("value", ["593-47-5928", "ab-CD-9999", "x" * 500, "0000000"])
def test_a_format_preserving_mask_opens_with_its_version(value: str) -> None:
    mask = masked("fpe_ff1", value, version=2)
    assert open_fpe_ff1(mask, kind="text", domain="d", keyring=RING, version=2) == value
    assert open_fpe_ff1(mask, kind="text", domain="d", keyring=RING, version=1) != value
    with pytest.raises(Sqs2pgError) as caught:
        open_fpe_ff1("not a mask!", kind="text", domain="d", keyring=RING, version=2)
    assert caught.value.code == "mask_damaged"


@pytest.mark.parametrize("length", [0, 1, 30, 31, 32, 33, 1_000])
def test_padding_comes_off_again(length: int) -> None:
    for value in (b"x" * length, b"\0" * length, b"\x80" * length):
        assert len(pad(value)) % BLOCK_BYTES == 0
        assert 1 <= len(pad(value)) - length <= BLOCK_BYTES
        assert unpad(pad(value)) == value


@pytest.mark.parametrize("padded", [b"", b"\0" * 32, b"x" * 32, b"x" * 30 + b"\x80x"])
def test_a_value_without_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(Sqs2pgError) as caught:
        unpad(padded)
    assert caught.value.code == "mask_damaged"


def test_a_token_names_its_parts() -> None:
    assert format_token("e", 12, b"\xff\xfe\xfd") == "e12___79"
    assert parse_token("e12___79") == ("e", 12, b"\xff\xfe\xfd")
