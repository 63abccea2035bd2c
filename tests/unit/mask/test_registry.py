from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys

import pytest

from sqs2pg import mask
from sqs2pg.errors import KeyFault, SettingsError, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.domain import DOMAIN_BYTES_MAX
from sqs2pg.mask.operator import KINDS
from sqs2pg.mask.registry import (
    KEYED,
    OPERATORS,
    compile_operator,
    properties,
)

KNOWN = (
    "known: encrypt, encrypt_deterministic, fpe_ff1, keep, nullify, partial, pseudonymize, "
    "redact, sha256, truncate_ip"
)
RING = Keyring({1: hashlib.sha256(b"root").digest()})


def refused(name: str, kind: str = "text", domain: str = "d") -> Sqs2pgError:
    with pytest.raises(SettingsError) as caught:
        compile_operator(name, kind=kind, domain=domain, keyring=RING)
    return caught.value


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pseudonymise", "did you mean pseudonymize?"),
        ("sha-256", "did you mean sha256?"),
        ("Keep", "did you mean keep?"),
        ("", KNOWN),
        ("rot13", KNOWN),
    ],
)
def test_an_unknown_operator_names_the_nearest(name: str, hint: str) -> None:
    fault = refused(name)
    assert (fault.code, fault.hint, fault.exit_code) == ("unknown_operator", hint, 2)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_unknown_kind_is_refused_whatever_the_operator(name: str) -> None:
    fault = refused(name, kind="IP")
    assert (fault.code, fault.hint) == ("unknown_kind", "known: email, ip, phone, text, uuid")


@pytest.mark.parametrize("name", sorted(KEYED))
@pytest.mark.parametrize("domain", ["", "x" * (DOMAIN_BYTES_MAX + 1), "ü" * 128, "a\nb", "\ud800"])
def test_a_bad_domain_is_refused(domain: str, name: str) -> None:
    assert refused(name, domain=domain).code == "bad_domain"


@pytest.mark.parametrize("name", sorted(KEYED))
@pytest.mark.parametrize("domain", ["x", "x" * DOMAIN_BYTES_MAX, "a/b c", "設備"])
def test_a_printable_domain_will_do(domain: str, name: str) -> None:
    assert compile_operator(name, kind="text", domain=domain, keyring=RING)("123456")


@pytest.mark.parametrize("name", sorted(KEYED))
def test_a_keyed_operator_never_goes_without_a_key(name: str) -> None:
    with pytest.raises(KeyFault) as caught:
        compile_operator(name, kind="ip", domain="ip", keyring=None)
    assert caught.value.code == "key_missing"


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - KEYED))
def test_operators_without_a_key_want_none(name: str) -> None:
    operator = compile_operator(name, kind="ip", domain="", keyring=None)
    assert (operator("1.2.3.4") is None) is (name == "nullify")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_takes_the_kinds_it_declares(name: str, kind: str) -> None:
    if kind in OPERATORS[name].properties.kinds:
        compile_operator(name, kind=kind, domain="d", keyring=RING)
    else:
        fault = refused(name, kind=kind)
        assert fault.code == "operator_kind"
        assert fault.hint == f"it masks kind = {' or '.join(OPERATORS[name].properties.kinds)}"


def test_every_operator_declares_and_none_else() -> None:
    modules = {
        name
        for _, name, _ in pkgutil.iter_modules(mask.__path__)
        if hasattr(importlib.import_module(f"sqs2pg.mask.{name}"), "DECLARATION")
    }
    assert sorted(modules) == list(OPERATORS) == KNOWN.removeprefix("known: ").split(", ")
    assert all(known.name == name for name, known in OPERATORS.items())
    assert properties("sha256").reversible
    with pytest.raises(SettingsError):
        properties("sha512")


def test_fpe_ff1_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ffx", None)
    fault = refused("fpe_ff1")
    assert (fault.code, fault.hint) == ("extra_missing", "pip install 'sqs2pg[fpe]'")
