"""Key derivation and sealing match the frozen vectors, and the vectors match independent code."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from sqs2pg.keys import derive
from sqs2pg.keys.aead import SealingKey, associated, encrypt, open_sealed
from sqs2pg.keys.hmac_state import hmac_states

VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name: str, part: str = "vectors") -> list[dict[str, Any]]:
    return json.loads((VECTORS / name).read_text())[part]


def rfc5869(root: bytes, info: bytes, length: int, salt: bytes = b"") -> bytes:
    """HKDF written from the RFC, with nothing but HMAC."""
    extracted = hmac.digest(salt or bytes(32), root, "sha256")
    output, block = b"", b""
    while len(output) < length:
        block = hmac.digest(extracted, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:length]


HKDF = vectors("hkdf_sha256.json")
HMAC = vectors("hmac_sha256.json")
DERIVATION = vectors("derivation.json")
XAES = vectors("seal.json", "xaes")
SEALED = vectors("seal.json", "sealed")


@pytest.mark.parametrize("vector", HKDF, ids=lambda v: v["name"])
def test_hkdf_gives_the_answers_of_rfc_5869(vector: dict[str, Any]) -> None:
    ikm, info, salt = (bytes.fromhex(vector[part]) for part in ("ikm", "info", "salt"))
    answer = bytes.fromhex(vector["okm"])
    assert derive.hkdf_sha256(ikm, info, vector["length"], salt) == answer
    assert rfc5869(ikm, info, vector["length"], salt) == answer


@pytest.mark.parametrize("vector", HMAC, ids=lambda v: v["name"])
def test_hmac_states_give_the_answers_of_rfc_4231(vector: dict[str, Any]) -> None:
    inner, outer = hmac_states(bytes.fromhex(vector["key"]))
    inner.update(bytes.fromhex(vector["data"]))
    outer.update(inner.digest())
    assert outer.hexdigest() == vector["mac"]


def derived(vector: dict[str, Any]) -> bytes | str:
    root = bytes.fromhex(vector["root"])
    match vector["purpose"]:
        case "pseudonym":
            return derive.pseudonym_key(root, vector["domain"])
        case "quarantine":
            return derive.quarantine_key(root)
        case "fingerprint":
            return derive.fingerprint(root, vector["series"])
        case "encrypt" | "encrypt_deterministic" | "fpe_ff1" as operator:
            return derive.operator_key(root, operator, vector["domain"], len(vector["key"]) // 2)
    raise AssertionError


@pytest.mark.parametrize("vector", DERIVATION, ids=lambda v: v["purpose"])
def test_derived_keys_are_the_frozen_ones(vector: dict[str, Any]) -> None:
    got = derived(vector)
    assert (got if isinstance(got, str) else got.hex()) == vector["key"]


@pytest.mark.parametrize("vector", DERIVATION, ids=lambda v: v["purpose"])
def test_an_independent_hkdf_derives_the_frozen_keys(vector: dict[str, Any]) -> None:
    root, info, key = (bytes.fromhex(vector[part]) for part in ("root", "info", "key"))
    assert rfc5869(root, info, len(key)) == key


@pytest.mark.system
@pytest.mark.parametrize("vector", DERIVATION, ids=lambda v: v["purpose"])
def test_openssl_derives_the_frozen_keys(vector: dict[str, Any]) -> None:
    options = [f"hexkey:{vector['root']}", f"hexinfo:{vector['info']}", "digest:SHA256"]
    command = ["openssl", "kdf", "-keylen", str(len(vector["key"]) // 2), "-binary"]
    command += [word for option in options for word in ("-kdfopt", option)]
    assert subprocess.check_output([*command, "HKDF"]).hex() == vector["key"]


@pytest.mark.system
@pytest.mark.parametrize("vector", HMAC, ids=lambda v: v["name"])
def test_openssl_agrees_on_hmac(vector: dict[str, Any]) -> None:
    key = f"hexkey:{vector['key']}"
    command = ["openssl", "dgst", "-sha256", "-binary", "-mac", "hmac", "-macopt", key]
    answer = subprocess.check_output(command, input=bytes.fromhex(vector["data"]))
    assert answer.hex() == vector["mac"]


def xaes_by_cmac(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """XAES-256-GCM from the specification's own terms: two CMACs, then GCM."""
    value_key = b""
    for counter in (1, 2):
        mac = CMAC(AES(key))
        mac.update(bytes([0, counter]) + b"X\0" + nonce[:12])
        value_key += mac.finalize()
    return AESGCM(value_key).encrypt(nonce[12:], plaintext, aad)


@pytest.mark.parametrize("vector", XAES, ids=["short", "msb"])
def test_sealing_is_xaes_256_gcm(vector: dict[str, Any]) -> None:
    inputs = [bytes.fromhex(vector[part]) for part in ("key", "nonce", "plaintext", "aad")]
    assert encrypt(*inputs).hex() == vector["ciphertext"]
    assert xaes_by_cmac(*inputs).hex() == vector["ciphertext"]


@pytest.mark.parametrize("vector", SEALED, ids=["empty", "body", "emoji"])
def test_the_frozen_sealed_bodies_open(vector: dict[str, Any]) -> None:
    key, sealed, plaintext = (bytes.fromhex(vector[p]) for p in ("key", "sealed", "plaintext"))
    fields = [bytes.fromhex(field) for field in vector["fields"]]
    assert open_sealed(key, sealed, fields) == plaintext
    bound = b"\x01" + b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    assert xaes_by_cmac(key, sealed[1:25], plaintext, bound) == sealed[25:]
    assert (
        open_sealed(key, SealingKey(key).seal(plaintext, associated(fields)), fields) == plaintext
    )


def test_the_roots_of_the_vectors_are_public() -> None:
    """They are hashes of a sentence, so that nobody takes them for anyone's keys."""
    made = {hashlib.sha256(b"sqs2pg test vector root %d" % n).hexdigest() for n in (1, 2)}
    assert {vector["root"] for vector in DERIVATION} == made
