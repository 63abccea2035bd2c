"""The vault's cryptography: frozen answers, by our functions and from the specification."""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from sqs2pg.errors import Sqs2pgError
from sqs2pg.keys.aead import WRAPS_PER_KEY, PersonKey, WrappingKey
from sqs2pg.keys.keyring import Keyring
from sqs2pg.vault import crypto

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "vault.json").read_text(encoding="utf-8")
)
ROOT = bytes.fromhex(VECTORS["vault_root"])
SUBJECT, GENERATION = VECTORS["subject"], VECTORS["generation"]
DATA_KEY = bytes.fromhex(VECTORS["data_key"])


def p(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(4, "big") + data


def opened(key: bytes, sealed: str, aad: bytes) -> bytes:
    """Open by docs/reference/vault.md, with another implementation of the key derivation."""
    data = bytes.fromhex(sealed)
    if data[0] == 2:
        return AESGCM(key).decrypt(data[1:13], data[13:], b"\x02" + aad)
    nonce = data[1:25]
    derivation = KBKDFCMAC(
        algorithm=AES256,
        mode=Mode.CounterMode,
        length=32,
        rlen=2,
        llen=None,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=b"X\x00" + nonce[:12],
    )
    return AESGCM(derivation.derive(key)).decrypt(nonce[12:], data[25:], b"\x01" + aad)


KEK = HKDF(SHA256(), 32, None, b"sqs2pg/1/key-encryption").derive(ROOT)
REFERENCE = bytes.fromhex(SUBJECT)


@pytest.fixture
def kek() -> WrappingKey:
    keyring = Keyring({1: hashlib.sha256(b"another").digest()}, {1: ROOT})
    return crypto.key_encryption_key(keyring, "vault", 1)


@pytest.mark.parametrize("known", VECTORS["references"], ids=lambda known: known["name"])
def test_subject_references_equal_the_frozen_ones(known: dict[str, str]) -> None:
    key = bytes.fromhex(VECTORS["reference_key"])
    assert crypto.subject_references(key)(known["name"]) == known["reference"]
    canonical = unicodedata.normalize("NFC", known["name"]).encode()
    assert hmac.digest(key, canonical, "sha256")[:16].hex() == known["reference"]


def test_wrapped_keys_equal_the_frozen_ones(kek: WrappingKey) -> None:
    wrapped = VECTORS["wrapped_reference_key"]
    key = crypto.unwrap_reference_key(kek, bytes.fromhex(wrapped))
    assert key.hex() == VECTORS["reference_key"]
    assert opened(KEK, wrapped, p("sqs2pg/1/reference-key")) == key
    wrapped = VECTORS["wrapped_data_key"]
    aad = p("sqs2pg/1/data-key") + p(REFERENCE) + p(str(GENERATION))
    assert opened(KEK, wrapped, aad) == DATA_KEY
    data_key = crypto.unwrap_data_key(kek, bytes.fromhex(wrapped), SUBJECT, GENERATION)
    name = crypto.open_subject(data_key, bytes.fromhex(VECTORS["sealed_subject"]), SUBJECT)
    assert name == VECTORS["references"][0]["name"]
    with pytest.raises(Sqs2pgError):
        crypto.unwrap_data_key(kek, bytes.fromhex(wrapped), SUBJECT, GENERATION + 1)


@pytest.mark.parametrize("known", VECTORS["values"], ids=lambda known: known["value"])
def test_sealed_values_open_and_are_bound_to_their_place(known: dict[str, Any]) -> None:
    field, token, value, sealed = (known[x] for x in ("field", "token", "value", "sealed"))
    key = PersonKey(DATA_KEY)
    assert crypto.open_value(key, bytes.fromhex(sealed), field, token, SUBJECT) == value
    aad = p("sqs2pg/1/value") + p(field) + p(token) + p(REFERENCE)
    assert opened(DATA_KEY, sealed, aad).decode() == value
    for elsewhere in (("x", token, SUBJECT), (field, "y", SUBJECT), (field, token, "0" * 32)):
        with pytest.raises(Sqs2pgError):
            crypto.open_value(key, bytes.fromhex(sealed), *elsewhere)


def test_equal_values_are_sealed_unequally() -> None:
    key = PersonKey(DATA_KEY)
    sealed = {crypto.seal_value(key, "v", "f", "t", SUBJECT) for _ in range(100)}
    assert len({one[1:13] for one in sealed}) == 100  # nonces
    assert {crypto.open_value(key, one, "f", "t", SUBJECT) for one in sealed} == {"v"}


def test_rewrapping_keeps_the_key(kek: WrappingKey) -> None:
    new = WrappingKey(hashlib.sha256(b"new").digest())
    wrapped = bytes.fromhex(VECTORS["wrapped_data_key"])
    again = crypto.rewrap_data_key(kek, new, wrapped, SUBJECT, GENERATION)
    key = crypto.unwrap_data_key(new, again, SUBJECT, GENERATION)
    value = VECTORS["values"][0]
    sealed = bytes.fromhex(value["sealed"])
    assert crypto.open_value(key, sealed, value["field"], value["token"], SUBJECT)


def test_wrapped_keys_repeat_no_nonce_and_change_their_derived_key() -> None:
    key, aad = WrappingKey(DATA_KEY), p("aad")
    wrapped = [key.seal(DATA_KEY, aad) for _ in range(WRAPS_PER_KEY + 1)]
    assert len({one[1:25] for one in wrapped}) == len(wrapped)
    firsts = [one[1:13] for one in wrapped]
    assert (len(set(firsts)), firsts.count(firsts[0])) == (2, WRAPS_PER_KEY)
    other = WrappingKey(DATA_KEY)
    assert {other.open(one, aad) for one in (wrapped[0], wrapped[1], wrapped[-1])} == {DATA_KEY}
    assert other.seal(DATA_KEY, aad)[1:13] not in firsts  # each process has its own
    assert opened(DATA_KEY, wrapped[1].hex(), aad) == DATA_KEY


def test_a_cipher_that_is_kept_opens_nothing_that_was_changed() -> None:
    key, aad = WrappingKey(DATA_KEY), p("aad")
    wrapped = key.seal(DATA_KEY, aad)
    for place in (0, 1, 13, 25, len(wrapped) - 1):
        changed = bytearray(wrapped)
        changed[place] ^= 1
        with pytest.raises(Sqs2pgError):
            key.open(bytes(changed), aad)
    assert key.open(wrapped, aad) == DATA_KEY


@pytest.mark.parametrize("length", [0, 1, 13, 28])
def test_what_is_too_short_for_a_value_does_not_open(length: int) -> None:
    key = PersonKey(DATA_KEY)
    sealed = key.seal(b"", p("aad"))
    assert (len(sealed), key.open(sealed, p("aad"))) == (29, b"")
    with pytest.raises(Sqs2pgError, match="does not open"):
        key.open(sealed[:length], p("aad"))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_value_of_another_format_says_so(number: int) -> None:
    sealed = bytes([number]) + PersonKey(DATA_KEY).seal(b"", p("aad"))[1:]
    with pytest.raises(Sqs2pgError) as caught:
        PersonKey(DATA_KEY).open(sealed, p("aad"))
    assert caught.value.code == "sealed_body_format"
