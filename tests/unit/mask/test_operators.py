from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask import keep, pseudonymize, redact, sha256
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.registry import OPERATORS, compile_operator

RING = Keyring({v: hashlib.sha256(b"root %d" % v).digest() for v in (1, 2, 9_999)})
MASKING = sorted(set(OPERATORS) - {"keep"})
TOKEN = re.compile(r"v[1-9][0-9]{0,3}_[0-9a-f]{32}")


def operator(name: str, *, kind: str = "text", domain: str = "d", version: int = 1) -> Operator:
    ring = RING.with_active("pseudonym", version)
    return compile_operator(name, kind=kind, domain=domain, keyring=ring)


OF_KIND = {
    "ip": "::ffff:1.2.3.4",
    "email": "Ann.Smith+news@Example.COM",
    "phone": "+1 (555) 010-4567",
    "uuid": "424CDD21-063A-43A7-B91B-7CA1A833AFAE",
    "text": "593-47-5928",
}
EDGES = [
    "",
    " ",
    "  a ",
    "Cafe\u0301",
    "Caf\xe9",
    "😀",
    "0",
    "007",
    "NULL",
    "\t\n\\N\0",
    "x" * 2**20,
]


@pytest.mark.parametrize("value", EDGES, ids=lambda v: ascii(v)[:20])
@pytest.mark.parametrize("name", sorted(set(MASKING) - {"truncate_ip", "fpe_ff1", "nullify"}))
def test_a_mask_is_not_its_value(name: str, value: str) -> None:
    masked = operator(name)(value)
    assert masked is not None
    assert len(masked) <= 64 or name.startswith("encrypt")
    if len(value) > 1:
        assert value not in masked
    if name != "partial":
        assert masked.isascii()


@pytest.mark.parametrize("value", EDGES, ids=lambda v: ascii(v)[:20])
def test_every_text_has_a_token_of_one_length(value: str) -> None:
    for version in (1, 9_999):
        masked = operator("pseudonymize", version=version)(value)
        assert masked
        assert TOKEN.fullmatch(masked)
        assert masked.startswith(f"v{version}_")


def test_spaces_case_and_zeros_make_different_values() -> None:
    mask = operator("pseudonymize").mask
    values = ["", " ", "a", " a", "a ", "A", "0", "00", "\0", "\0\0"]
    assert len({mask(value) for value in values}) == len(values)


def test_domains_kinds_and_roots_make_unrelated_tokens() -> None:
    tokens = {
        operator("pseudonymize", domain=domain, kind=kind, version=version)("10.0.0.1")
        for domain in ("ip", "client_ip")
        for kind in ("ip", "text")
        for version in (1, 2)
    }
    assert len({str(token)[3:] for token in tokens}) == 8


def test_another_root_makes_another_token() -> None:
    other = Keyring({1: hashlib.sha256(b"other").digest()})
    mine = operator("pseudonymize")("a")
    assert compile_operator("pseudonymize", kind="text", domain="d", keyring=other)("a") != mine


NOT_OF_KIND = {
    "ip": ["", "a", "1.2.3.04", "fe80::1%eth0", "\ud800", "1.2.3.4 "],
    "email": ["", "a", "@", "a@", "@b", "a b@c", "a@b c", "a@b\n", "\ud800@b", "a" * 65 + "@b"],
    "phone": ["", "+", "a", "12a", "1" * 16, "\u0661", "++1", "1\n", "\ud800", "😀"],
    "uuid": ["", "a", "424cdd21", "{424cdd21063a43a7b91b7ca1a833afae", "\ud800" * 32, "g" * 32],
}


@pytest.mark.parametrize("kind", NOT_OF_KIND)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_value_that_is_not_of_its_kind_is_refused_by_every_operator(name: str, kind: str) -> None:
    if kind not in OPERATORS[name].properties.kinds:
        return
    for value in NOT_OF_KIND[kind]:
        with pytest.raises(PermanentFault) as caught:
            operator(name, kind=kind)(value)
        assert caught.value.code in {f"bad_{kind}", "bad_unicode"}
        assert caught.value.__context__ is None
        assert caught.value.args == (caught.value.code,)
    operator(name, kind=kind)(OF_KIND[kind])


def test_sha256_is_of_the_bytes_as_they_came() -> None:
    for value in ("", "Cafe\u0301", "199.172.111.135"):
        assert operator("sha256")(value) == hashlib.sha256(value.encode()).hexdigest()
    mask = operator("sha256", kind="ip").mask
    assert mask("::ffff:1.2.3.4") == hashlib.sha256(b"::ffff:1.2.3.4").hexdigest()


def test_keep_keeps_and_redact_forgets() -> None:
    assert operator("keep")("Cafe\u0301") == "Cafe\u0301"
    assert {operator("redact")(value) for value in EDGES} == {"[redacted]"}


def test_operators_declare_what_they_are() -> None:
    declared = {name: operator(name, kind="ip").properties for name in OPERATORS}
    assert [name for name in OPERATORS if declared[name].reversible] == ["keep", "sha256"]
    assert [name for name in OPERATORS if declared[name].joinable] == [
        "encrypt_deterministic",
        "fpe_ff1",
        "keep",
        "pseudonymize",
        "sha256",
    ]
    assert [name for name in OPERATORS if declared[name].format_preserving] == [
        "fpe_ff1",
        "keep",
        "truncate_ip",
    ]
    assert [name for name in OPERATORS if not declared[name].deterministic] == ["encrypt"]
    assert [name for name in OPERATORS if declared[name].recoverable] == [
        "encrypt",
        "encrypt_deterministic",
        "fpe_ff1",
    ]
    assert declared == {name: known.properties for name, known in OPERATORS.items()}
    assert declared["keep"] is keep.PROPERTIES
    assert declared["sha256"] is sha256.PROPERTIES
    assert declared["redact"] is redact.PROPERTIES
    assert declared["pseudonymize"] is pseudonymize.PROPERTIES


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_frozen_and_tells_only_its_name(name: str) -> None:
    compiled = operator(name, kind="ip", domain="secret-domain")
    with pytest.raises(dataclasses.FrozenInstanceError):
        compiled.name = "keep"  # type: ignore[misc]
    assert repr(compiled).startswith(f"Operator(name='{name}', properties=")
    assert "mask=" not in repr(compiled)


@pytest.mark.parametrize(
    "name", [name for name in MASKING if OPERATORS[name].properties.deterministic]
)
def test_an_operator_declared_deterministic_gives_equal_results(name: str) -> None:
    for kind, value in OF_KIND.items():
        if kind in OPERATORS[name].properties.kinds and (name, kind) != ("truncate_ip", "text"):
            assert operator(name, kind=kind)(value) == operator(name, kind=kind)(value)


@pytest.mark.parametrize("name", ["pseudonymize", "encrypt_deterministic", "fpe_ff1"])
def test_one_operator_serves_several_threads(name: str) -> None:
    """What it keeps between calls (HMAC states, ciphers) is shared and must only be copied."""
    mask = operator(name).mask
    values = [str(number) for number in range(100_000, 102_000)]
    alone = [mask(value) for value in values]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = [pool.submit(lambda: [mask(value) for value in values]) for _ in range(4)]
            assert all(future.result() == alone for future in together)
    finally:
        sys.setswitchinterval(interval)
