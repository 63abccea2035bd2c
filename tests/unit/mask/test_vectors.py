"""Masks match the frozen vectors, and the vectors match an independent implementation."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import re
import string
import unicodedata
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from ffx import FF1

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.opening import open_fpe_ff1, open_mask
from sqs2pg.mask.registry import OPERATORS, compile_operator
from sqs2pg.settings import Field

VECTORS = Path(__file__).parents[2] / "vectors"
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "masking.md"


def read(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / name).read_text())


def kind_of(vector: dict[str, Any]) -> str:
    """The kind of the mask, of a vector that has `kind` and `otherwise` as a field has them."""
    field = Field(source="a", column="a", kind=vector["kind"], otherwise=vector.get("otherwise"))
    return field.mask_kind


def name(vector: dict[str, Any]) -> str:
    return f"{vector['kind']}-{ascii(vector['value'])[:24]}"


PSEUDONYM = read("pseudonym.json")
ROOTS = {int(version): bytes.fromhex(root) for version, root in PSEUDONYM["roots"].items()}
RING = Keyring(ROOTS)
CANONICAL_VECTORS = read("canonical.json")["vectors"]
ENCRYPTED = read("encrypted.json")
ENCRYPTING = ("encrypt", "encrypt_deterministic")
FPE = read("fpe_ff1.json")
OPERATOR_VECTORS = read("operators.json")["vectors"]


def assert_fault(vector: dict[str, Any], caught: pytest.ExceptionInfo[PermanentFault]) -> None:
    fault = caught.value
    assert (fault.code, fault.stage, fault.detail) == (vector["fault"], Stage.MASK, "")
    assert fault.__context__ is None
    assert fault.__cause__ is None
    assert fault.args == (vector["fault"],)


@pytest.mark.parametrize("vector", CANONICAL_VECTORS, ids=name)
def test_canonical_forms_are_the_frozen_ones(vector: dict[str, Any]) -> None:
    form = CANONICAL[kind_of(vector)]
    if "fault" in vector:
        with pytest.raises(PermanentFault) as caught:
            form(vector["value"])
        assert_fault(vector, caught)
    else:
        assert form(vector["value"]).hex() == vector["canonical"]


@pytest.mark.parametrize("vector", [v for v in CANONICAL_VECTORS if "canonical" in v], ids=name)
def test_an_independent_implementation_gives_the_frozen_forms(vector: dict[str, Any]) -> None:
    assert canonical(kind_of(vector), vector["value"]).hex() == vector["canonical"]


def canonical(kind: str, value: str) -> bytes:
    """The documented canonical forms, computed without the package."""
    match kind:
        case "text":
            return unicodedata.normalize("NFC", value).encode()
        case "email":
            folded = unicodedata.normalize("NFD", value).casefold()
            return unicodedata.normalize("NFC", folded).encode()
        case "phone":
            return "".join(c for c in value if c in "0123456789").encode()
        case "uuid":
            return uuid.UUID(value).bytes
        case "ip_or_text":
            with suppress(ValueError):
                return canonical("ip", value)
            form = unicodedata.normalize("NFC", value).encode()
            return form + b"\xff" if len(form) in (4, 16) else form
    address = ipaddress.ip_address(value)
    return (getattr(address, "ipv4_mapped", None) or address).packed


def token(version: int, domain: str, data: bytes) -> str:
    """The documented derivation, from HMAC alone."""
    extracted = hmac.digest(bytes(32), ROOTS[version], "sha256")
    info = b"sqs2pg/1/pseudonym/" + unicodedata.normalize("NFC", domain).encode()
    key = hmac.digest(extracted, info + b"\x01", "sha256")
    return f"v{version}_" + hmac.digest(key, data, "sha256")[:16].hex()


@pytest.mark.parametrize("vector", PSEUDONYM["vectors"], ids=name)
def test_tokens_are_the_frozen_ones(vector: dict[str, Any]) -> None:
    ring = RING.with_active("pseudonym", vector["version"])
    operator = compile_operator(
        "pseudonymize", kind=kind_of(vector), domain=vector["domain"], keyring=ring
    )
    assert operator(vector["value"]) == vector["token"]
    assert operator.mask(vector["value"]) == vector["token"]
    data = canonical(kind_of(vector), vector["value"])
    assert token(vector["version"], vector["domain"], data) == vector["token"]


@pytest.mark.parametrize("vector", OPERATOR_VECTORS, ids=lambda v: f"{v['operator']}-{name(v)}")
def test_masks_are_the_frozen_ones(vector: dict[str, Any]) -> None:
    operator = compile_operator(vector["operator"], kind=vector["kind"], domain="d", keyring=RING)
    if "fault" in vector:
        with pytest.raises(PermanentFault) as caught:
            operator(vector["value"])
        assert_fault(vector, caught)
    else:
        assert operator(vector["value"]) == vector["mask"]


def test_every_operator_and_kind_has_vectors() -> None:
    keyless = {(v["operator"], v["kind"]) for v in OPERATOR_VECTORS if "mask" in v}
    keyed = {("pseudonymize", v["kind"]) for v in PSEUDONYM["vectors"]}
    keyed |= {(name, v["kind"]) for name in ENCRYPTING for v in ENCRYPTED[name]}
    keyed |= {("fpe_ff1", v["kind"]) for v in FPE["vectors"]}
    declared = {(name, kind) for name in OPERATORS for kind in OPERATORS[name].properties.kinds}
    assert keyless | keyed == declared
    assert {(v["operator"], v["kind"]) for v in OPERATOR_VECTORS if "fault" in v} >= {
        (name, kind) for name, kind in declared if kind != "text"
    }


def derived(version: int, operator: str, domain: str, length: int) -> bytes:
    """HKDF of the version's root, from HMAC alone."""
    extracted = hmac.digest(bytes(32), ROOTS[version], "sha256")
    info = f"sqs2pg/1/{operator}/".encode() + unicodedata.normalize("NFC", domain).encode()
    key, block = b"", b""
    while len(key) < length:
        block = hmac.digest(extracted, block + info + bytes([len(key) // 32 + 1]), "sha256")
        key += block
    return key[:length]


def ciphertext(letter: str, version: int, token: str) -> bytes:
    prefix = f"{letter}{version}_"
    assert token.startswith(prefix)
    text = token.removeprefix(prefix)
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def padded(value: bytes) -> bytes:
    marked = value + b"\x80"
    while len(marked) % 32:
        marked += b"\x00"
    return marked


def cmac(key: bytes, data: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


def doubled(block: bytes) -> bytes:
    number = int.from_bytes(block, "big") << 1
    return ((number ^ 0x87 if number >> 128 else number) & (2**128 - 1)).to_bytes(16, "big")


def xor(one: bytes, two: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, two, strict=True))


def aes_siv(key: bytes, plaintext: bytes, aad: list[bytes]) -> bytes:
    """RFC 5297, sections 2.4 and 2.6, from CMAC and CTR; for plaintexts of 14 bytes or more."""
    half = len(key) // 2
    chain = cmac(key[:half], bytes(16))
    for field in aad:
        chain = xor(doubled(chain), cmac(key[:half], field))
    if len(plaintext) >= 16:
        last = plaintext[:-16] + xor(plaintext[-16:], chain)
    else:
        last = xor(doubled(chain), (plaintext + b"\x80").ljust(16, b"\0"))
    tag = cmac(key[:half], last)
    counter = (int.from_bytes(tag, "big") & ~(1 << 63 | 1 << 31)).to_bytes(16, "big")
    stream = Cipher(AES(key[half:]), modes.CTR(counter)).encryptor()
    return tag + stream.update(plaintext) + stream.finalize()


@pytest.mark.parametrize("vector", read("aes_siv.json")["vectors"], ids=lambda v: v["name"])
def test_aes_siv_gives_the_answers_of_rfc_5297(vector: dict[str, Any]) -> None:
    key, plaintext = bytes.fromhex(vector["key"]), bytes.fromhex(vector["plaintext"])
    aad = [bytes.fromhex(field) for field in vector["aad"]]
    assert AESSIV(key).encrypt(plaintext, aad).hex() == vector["ciphertext"]
    assert aes_siv(key, plaintext, aad).hex() == vector["ciphertext"]


@pytest.mark.parametrize("vector", ENCRYPTED["encrypt_deterministic"], ids=name)
def test_deterministic_tokens_are_the_frozen_ones(vector: dict[str, Any]) -> None:
    ring = RING.with_active("pseudonym", vector["version"])
    kind, domain, token = vector["kind"], vector["domain"], vector["token"]
    operator = compile_operator("encrypt_deterministic", kind=kind, domain=domain, keyring=ring)
    assert operator(vector["value"]) == token
    key = derived(vector["version"], "encrypt_deterministic", domain, 64)
    bound = [b"sqs2pg/1/encrypt_deterministic", domain.encode()]
    data = canonical(kind, vector["value"])
    assert aes_siv(key, padded(data), bound) == ciphertext("d", vector["version"], token)
    opened = open_mask(token, kind=kind, domain=domain, keyring=RING)
    assert canonical(kind, opened) == data


@pytest.mark.parametrize("vector", ENCRYPTED["encrypt"], ids=name)
def test_the_frozen_encrypted_tokens_open(vector: dict[str, Any]) -> None:
    domain, token = vector["domain"], vector["token"]
    opened = open_mask(token, kind=vector["kind"], domain=domain, keyring=RING)
    assert opened == vector["value"]
    key = derived(vector["version"], "encrypt", domain, 32)
    sealed = ciphertext("e", vector["version"], token)
    nonce = sealed[1:25]
    value_key = b"".join(cmac(key, bytes([0, n]) + b"X\0" + nonce[:12]) for n in (1, 2))
    fields = [b"sqs2pg/1/encrypt", domain.encode()]
    aad = b"\x01" + b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    assert sealed[:1] == b"\x01"
    plaintext = AESGCM(value_key).decrypt(nonce[12:], sealed[25:], aad)
    assert plaintext == padded(vector["value"].encode())


def ff1(key: bytes, radix: int, tweak: bytes, numerals: list[int]) -> list[int]:
    """NIST SP 800-38G, algorithm 7, step by step, with exact integers."""

    def number(part: list[int]) -> int:
        total = 0
        for numeral in part:
            total = total * radix + numeral
        return total

    def encipher(block: bytes) -> bytes:
        return Cipher(AES(key), modes.ECB()).encryptor().update(block)

    n = len(numerals)
    u, v = n // 2, n - n // 2
    left, right = numerals[:u], numerals[u:]
    size = ((radix**v - 1).bit_length() + 7) // 8
    d = 4 * -(-size // 4) + 4
    head = bytes([1, 2, 1]) + radix.to_bytes(3, "big") + bytes([10, u % 256])
    head += n.to_bytes(4, "big") + len(tweak).to_bytes(4, "big")
    for i in range(10):
        q = tweak + bytes((-len(tweak) - size - 1) % 16) + bytes([i])
        q += number(right).to_bytes(size, "big")
        block = bytes(16)
        for at in range(0, len(head + q), 16):
            block = encipher(xor(block, (head + q)[at : at + 16]))
        s, j = block, 1
        while len(s) < d:
            s += encipher(xor(block, j.to_bytes(16, "big")))
            j += 1
        m = u if i % 2 == 0 else v
        c = (number(left) + int.from_bytes(s[:d], "big")) % radix**m
        left, right = right, [c // radix**k % radix for k in range(m - 1, -1, -1)]
    return left + right


ALPHABETS = (
    string.digits,
    string.digits + string.ascii_lowercase,
    string.digits + string.ascii_uppercase,
    string.digits + string.ascii_letters,
)


@pytest.mark.parametrize("vector", FPE["nist"], ids=lambda v: v["ciphertext"])
def test_ff1_gives_nist_s_samples(vector: dict[str, Any]) -> None:
    key, tweak = bytes.fromhex(vector["key"]), bytes.fromhex(vector["tweak"])
    digits = ALPHABETS[1]
    cipher = FF1(key, radix=vector["radix"])
    assert cipher.encrypt(vector["plaintext"], tweak=tweak) == vector["ciphertext"]
    assert cipher.decrypt(vector["ciphertext"], tweak=tweak) == vector["plaintext"]
    numerals = [digits.index(c) for c in vector["plaintext"]]
    turned = ff1(key, vector["radix"], tweak, numerals)
    assert "".join(digits[numeral] for numeral in turned) == vector["ciphertext"]


def fpe(version: int, domain: str, kind: str, value: str) -> str:
    """The documented mask, from FF1 alone."""
    key = derived(version, "fpe_ff1", domain, 32)
    if kind in ("ip", "uuid"):
        data = canonical(kind, value)
        bits = [int(bit) for byte in data for bit in f"{byte:08b}"]
        turned = ff1(key, 2, b"", bits)
        number = int("".join(map(str, turned)), 2).to_bytes(len(data), "big")
        return str(uuid.UUID(bytes=number) if kind == "uuid" else ipaddress.ip_address(number))
    if kind == "phone":
        value = canonical(kind, value).decode()
    letters = [c for c in value if c in ALPHABETS[3]]
    alphabet = next(a for a in ALPHABETS if set(letters) <= set(a))
    while True:
        turned = ff1(key, len(alphabet), b"", [alphabet.index(c) for c in letters])
        letters = [alphabet[numeral] for numeral in turned]
        if next(a for a in ALPHABETS if set(letters) <= set(a)) == alphabet:
            break
    each = iter(letters)
    return "".join(next(each) if c in ALPHABETS[3] else c for c in value)


@pytest.mark.parametrize("vector", FPE["vectors"], ids=name)
def test_format_preserving_masks_are_the_frozen_ones(vector: dict[str, Any]) -> None:
    version, domain, kind = vector["version"], vector["domain"], vector["kind"]
    ring = RING.with_active("pseudonym", version)
    operator = compile_operator("fpe_ff1", kind=kind, domain=domain, keyring=ring)
    assert operator(vector["value"]) == vector["mask"]
    assert fpe(version, domain, kind, vector["value"]) == vector["mask"]
    opened = open_fpe_ff1(vector["mask"], kind=kind, domain=domain, keyring=RING, version=version)
    assert canonical(kind, opened) == canonical(kind, vector["value"])


def test_the_reference_shows_the_frozen_answers() -> None:
    text = REFERENCE.read_text()
    assert set(re.findall(r"v1_[0-9a-f]{32}", text)) == {
        vector["token"]
        for vector in PSEUDONYM["vectors"]
        if vector["version"] == 1
        and (vector["domain"], vector["value"])
        in {("ip", "199.172.111.135"), ("device_id", "593-47-5928")}
        and vector["kind"] == {"ip": "ip", "device_id": "text"}[vector["domain"]]
    }
    keys = {vector["key"] for vector in read("derivation.json")["vectors"]}
    assert ROOTS[1].hex() in text
    assert len(keys.intersection(re.findall(r"\b[0-9a-f]{64}\b", text))) == 2
    for path in VECTORS.glob("*.json"):
        assert path.name in text
