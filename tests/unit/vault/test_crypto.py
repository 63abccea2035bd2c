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
from sqs2pg.keys.aead import SealingKey
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
def kek() -> SealingKey:
    keyring = Keyring({1: hashlib.sha256(b"another").digest()}, {1: ROOT})
    return crypto.key_encryption_key(keyring, "vault", 1)


@pytest.mark.parametrize("known", VECTORS["references"], ids=lambda known: known["name"])
def test_subject_references_equal_the_frozen_ones(known: dict[str, str]) -> None:
    key = bytes.fromhex(VECTORS["reference_key"])
    assert crypto.subject_references(key)(known["name"]) == known["reference"]
    canonical = unicodedata.normalize("NFC", known["name"]).encode()
    assert hmac.digest(key, canonical, "sha256")[:16].hex() == known["reference"]


def test_wrapped_keys_equal_the_frozen_ones(kek: SealingKey) -> None:
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
    key = SealingKey(DATA_KEY)
    assert crypto.open_value(key, bytes.fromhex(sealed), field, token, SUBJECT) == value
    aad = p("sqs2pg/1/value") + p(field) + p(token) + p(REFERENCE)
    assert opened(DATA_KEY, sealed, aad).decode() == value
    for elsewhere in (("x", token, SUBJECT), (field, "y", SUBJECT), (field, token, "0" * 32)):
        with pytest.raises(Sqs2pgError):
            crypto.open_value(key, bytes.fromhex(sealed), *elsewhere)


def test_equal_values_are_sealed_unequally() -> None:
    key = SealingKey(DATA_KEY)
    sealed = {crypto.seal_value(key, "v", "f", "t", SUBJECT) for _ in range(100)}
    assert len(sealed) == 100
    assert {crypto.open_value(key, one, "f", "t", SUBJECT) for one in sealed} == {"v"}


def test_rewrapping_keeps_the_key(kek: SealingKey) -> None:
    new = SealingKey(hashlib.sha256(b"new").digest())
    wrapped = bytes.fromhex(VECTORS["wrapped_data_key"])
    again = crypto.rewrap_data_key(kek, new, wrapped, SUBJECT, GENERATION)
    key = crypto.unwrap_data_key(new, again, SUBJECT, GENERATION)
    value = VECTORS["values"][0]
    sealed = bytes.fromhex(value["sealed"])
    assert crypto.open_value(key, sealed, value["field"], value["token"], SUBJECT)
