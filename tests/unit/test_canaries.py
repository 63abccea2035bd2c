"""The search for canaries finds them in every form, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.canaries import Canary, find, text_canary

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda raw: raw,
    "in capitals": lambda raw: raw.upper(),
    "hex": lambda raw: raw.hex().encode(),
    "bytea": lambda raw: b"\\x" + raw.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "sha256": lambda raw: hashlib.sha256(raw).hexdigest().encode(),
    "md5": lambda raw: hashlib.md5(raw).hexdigest().encode(),
    "json": lambda raw: json.dumps(raw.decode()).encode(),
    "percent": lambda raw: quote(raw).encode(),
    "utf-16": lambda raw: raw.decode().encode("utf-16"),
    "reversed": lambda raw: raw[::-1],
    "escapes": lambda raw: "".join(f"\\u{c:04x}" for c in raw).encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", ["203.113.77.41", "canary0a1b2c3d4e5f60", 'a"b\\c é/+?'])
def test_a_canary_is_found_in_every_encoding(form: str, value: str) -> None:
    canary = Canary(value, "ip")
    if form in ("in capitals", "escapes") and not value.isascii():
        return
    assert find([canary], b"before " + FORMS[form](value.encode()) + b" after")


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_base64_of_a_longer_text_is_found(before: int, after: int) -> None:
    canary = text_canary("ip")
    longer = b"{" * before + canary.value.encode() + b"}" * after
    for coded in (base64.b64encode(longer), base64.urlsafe_b64encode(longer)):
        assert find([canary], coded)


def test_no_canary_is_found_where_there_is_none() -> None:
    canaries = [text_canary("a"), text_canary("b")]
    assert find(canaries, canaries[0].value[:-1] + " " + canaries[1].value[1:]) == []
    assert find(canaries, b"") == []


def test_a_finding_names_the_place_but_not_the_value() -> None:
    canary = text_canary("device_id of a written message")
    [found] = find([canary], f"x{canary.value}x")
    assert found == "device_id of a written message as raw"
    assert canary.value not in repr(canary)
