from __future__ import annotations

import hashlib

import pytest

from sqs2pg.errors import KeyFault, SettingsError, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.policy import DOMAIN_BYTES_MAX, OPERATORS, compile_operator

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
        ("", "known: keep, pseudonymize, redact, sha256"),
        ("rot13", "known: keep, pseudonymize, redact, sha256"),
    ],
)
def test_an_unknown_operator_names_the_nearest(name: str, hint: str) -> None:
    fault = refused(name)
    assert (fault.code, fault.hint, fault.exit_code) == ("unknown_operator", hint, 2)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_unknown_kind_is_refused_whatever_the_operator(name: str) -> None:
    fault = refused(name, kind="IP")
    assert (fault.code, fault.hint) == ("unknown_kind", "known: ip, text")


@pytest.mark.parametrize("domain", ["", "x" * (DOMAIN_BYTES_MAX + 1), "ü" * 128, "a\nb", "\ud800"])
def test_a_bad_domain_is_refused(domain: str) -> None:
    assert refused("pseudonymize", domain=domain).code == "bad_domain"


@pytest.mark.parametrize("domain", ["x", "x" * DOMAIN_BYTES_MAX, "a/b c", "設備"])
def test_a_printable_domain_will_do(domain: str) -> None:
    assert compile_operator("pseudonymize", kind="text", domain=domain, keyring=RING)("a")


def test_pseudonymize_never_goes_without_a_key() -> None:
    with pytest.raises(KeyFault) as caught:
        compile_operator("pseudonymize", kind="ip", domain="ip", keyring=None)
    assert caught.value.code == "key_missing"


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"pseudonymize"}))
def test_operators_without_a_key_want_none(name: str) -> None:
    assert compile_operator(name, kind="text", domain="", keyring=None)("a")
