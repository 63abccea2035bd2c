from __future__ import annotations

import base64
import hashlib
import traceback

import pytest

from sqs2pg.errors import KeyFault
from sqs2pg.keys import provider_environment

PSEUDONYM, VAULT = "SQS2PG_KEYS__PSEUDONYM_ROOT", "SQS2PG_KEYS__VAULT_ROOT"


def text(number: int) -> str:
    return base64.b64encode(hashlib.sha256(b"root %d" % number).digest()).decode()


def test_a_variable_without_a_suffix_is_version_1() -> None:
    ring = provider_environment.load(
        {
            PSEUDONYM: text(1),
            f"{PSEUDONYM}_V2": text(2),
            f"{PSEUDONYM}_V11": text(3),
            VAULT: text(4),
            "PATH": "/bin",
        }
    )
    assert ring.versions("pseudonym") == (1, 2, 11)
    assert ring.versions("vault") == (1,)
    assert ring.root("pseudonym", 2) == hashlib.sha256(b"root 2").digest()
    assert ring.provider == "environment"
    assert not ring.development


def test_the_vault_may_be_left_out_or_empty() -> None:
    for environ in ({PSEUDONYM: text(1)}, {PSEUDONYM: text(1), VAULT: " "}):
        assert provider_environment.load(environ).versions("vault") == ()


FAULTS = [
    ("key_missing", {}),
    ("key_missing", {PSEUDONYM: ""}),
    ("key_missing", {VAULT: text(1)}),
    ("key_missing", {f"{PSEUDONYM}_V0": text(1)}),
    ("key_twice", {PSEUDONYM: text(1), f"{PSEUDONYM}_V1": text(2)}),
    ("key_encoding", {PSEUDONYM: "correct horse battery staple!"}),
    ("key_short", {PSEUDONYM: text(1)[:24]}),
    ("key_short", {PSEUDONYM: hashlib.sha256(b"hex instead").hexdigest()}),
    ("key_weak", {PSEUDONYM: base64.b64encode(bytes(32)).decode()}),
    ("keys_equal", {PSEUDONYM: text(1), VAULT: text(1)}),
]


@pytest.mark.parametrize(("code", "environ"), FAULTS)
def test_bad_variables_are_refused_without_quoting_them(code: str, environ: dict[str, str]) -> None:
    with pytest.raises(KeyFault) as caught:
        provider_environment.load(environ)
    assert caught.value.code == code
    assert caught.value.hint
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert not [value for value in environ.values() if value and value in shown]
