"""Masks against the frozen vectors, and the vectors against an implementation of others' parts."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.policy import OPERATORS, compile_operator

VECTORS = Path(__file__).parents[2] / "vectors"
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "masking.md"


def read(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / name).read_text())


def name(vector: dict[str, Any]) -> str:
    return f"{vector['kind']}-{ascii(vector['value'])[:24]}"


PSEUDONYM = read("pseudonym.json")
ROOTS = {int(version): bytes.fromhex(root) for version, root in PSEUDONYM["roots"].items()}
RING = Keyring(ROOTS)
CANONICAL_VECTORS = read("canonical.json")["vectors"]
OPERATOR_VECTORS = read("operators.json")["vectors"]


def assert_fault(vector: dict[str, Any], caught: pytest.ExceptionInfo[PermanentFault]) -> None:
    fault = caught.value
    assert (fault.code, fault.stage, fault.detail) == (vector["fault"], Stage.MASK, "")
    assert fault.__context__ is None
    assert fault.__cause__ is None
    assert fault.args == (vector["fault"],)


@pytest.mark.parametrize("vector", CANONICAL_VECTORS, ids=name)
def test_canonical_forms_are_the_frozen_ones(vector: dict[str, Any]) -> None:
    form = CANONICAL[vector["kind"]]
    if "fault" in vector:
        with pytest.raises(PermanentFault) as caught:
            form(vector["value"])
        assert_fault(vector, caught)
    else:
        assert form(vector["value"]).hex() == vector["canonical"]


@pytest.mark.parametrize("vector", [v for v in CANONICAL_VECTORS if "canonical" in v], ids=name)
def test_another_implementation_gives_the_frozen_forms(vector: dict[str, Any]) -> None:
    assert canonical(vector["kind"], vector["value"]).hex() == vector["canonical"]


def canonical(kind: str, value: str) -> bytes:
    if kind == "text":
        return unicodedata.normalize("NFC", value).encode()
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
        "pseudonymize", kind=vector["kind"], domain=vector["domain"], keyring=ring
    )
    assert operator(vector["value"]) == vector["token"]
    assert operator.mask(vector["value"]) == vector["token"]
    data = canonical(vector["kind"], vector["value"])
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


def test_every_operator_has_vectors() -> None:
    assert {vector["operator"] for vector in OPERATOR_VECTORS} == set(OPERATORS)


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
