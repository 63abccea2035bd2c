from __future__ import annotations

import base64
import dataclasses
import hashlib
import traceback
from collections.abc import Mapping
from typing import Any

import pytest

from sqs2pg.errors import KeyFault
from sqs2pg.keys import derive
from sqs2pg.keys.keyring import Keyring, root_from_base64


def root(number: int) -> bytes:
    return hashlib.sha256(b"root %d" % number).digest()


def test_the_highest_version_is_active_until_told_otherwise() -> None:
    ring = Keyring({1: root(1), 3: root(3), 2: root(2)}, {7: root(7)})
    assert (ring.active("pseudonym"), ring.active("vault")) == (3, 7)
    assert ring.versions("pseudonym") == (1, 2, 3)
    older = ring.with_active("pseudonym", 1)
    assert (older.active("pseudonym"), older.active("vault")) == (1, 7)
    assert older.root("pseudonym", 3) == root(3)
    assert ring.active("pseudonym") == 3
    assert older.with_active("vault", 7).active("pseudonym") == 1


def test_with_active_keeps_the_provider_and_the_development_mark() -> None:
    ring = Keyring({1: root(1)}, provider="file", development=True).with_active("pseudonym", 1)
    assert (ring.provider, ring.development) == ("file", True)


FAULTS: list[tuple[str, Mapping[int, bytes], Mapping[int, bytes]]] = [
    ("key_missing", {}, {}),
    ("key_missing", {}, {1: root(1)}),
    ("key_short", {1: root(1)[:31]}, {}),
    ("key_short", {1: b""}, {}),
    ("key_short", {1: root(1) + b"\0"}, {}),
    ("key_short", {1: root(1)}, {1: root(2)[:16]}),
    ("keys_equal", {1: root(1), 2: root(1)}, {}),
    ("keys_equal", {1: root(1)}, {1: root(1)}),
    ("keys_equal", {1: root(1)}, {1: root(2), 2: root(2)}),
    ("key_weak", {1: bytes(32)}, {}),
    ("key_weak", {1: b"\xff" * 32}, {}),
    ("key_weak", {1: root(1)}, {1: b"password" * 4}),
    ("key_version", {0: root(1)}, {}),
    ("key_version", {-1: root(1)}, {}),
    ("key_version", {10_000: root(1)}, {}),
    ("key_version", {1: root(1)}, {10_000: root(2)}),
]


@pytest.mark.parametrize(("code", "pseudonym", "vault"), FAULTS)
def test_bad_roots_are_refused(
    code: str, pseudonym: Mapping[int, bytes], vault: Mapping[int, bytes]
) -> None:
    with pytest.raises(KeyFault) as caught:
        Keyring(pseudonym, vault)
    assert caught.value.code == code
    assert caught.value.hint
    assert caught.value.exit_code == 2
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (*pseudonym.values(), *vault.values()):
        assert_absent(secret, shown)


def assert_absent(secret: bytes, shown: str) -> None:
    if secret:
        assert secret.hex() not in shown
        assert base64.b64encode(secret).decode() not in shown
        assert repr(secret) not in shown


def test_a_fault_names_the_absent_version() -> None:
    ring = Keyring({1: root(1)})
    for attempt in (
        lambda: ring.with_active("pseudonym", 2),
        lambda: ring.root("vault", 1),
        lambda: ring.active("vault"),
        lambda: ring.quarantine_key_of("vault:1"),
    ):
        with pytest.raises(KeyFault) as caught:
            attempt()
        assert caught.value.code == "key_missing"


def test_neither_repr_nor_its_parts_show_a_key() -> None:
    ring = Keyring({1: root(1), 2: root(2)}, {1: root(3)}, provider="file")
    assert repr(ring) == "Keyring(file: pseudonym v1 v2*, vault v1*)"
    parts: list[Any] = [ring, vars(ring), ring.quarantine_key(), ring.root("pseudonym", 1)]
    for part in parts:
        for number in (1, 2, 3):
            assert_absent(root(number), repr(part))


def test_a_keyring_does_not_change() -> None:
    given = {1: root(1)}
    ring = Keyring(given)
    given[2] = root(2)
    assert ring.versions("pseudonym") == (1,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ring.provider = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        ring.pseudonym[2] = root(2)  # type: ignore[index]


def test_fingerprints_are_by_version_and_empty_without_roots() -> None:
    ring = Keyring({1: root(1), 2: root(2)})
    assert ring.fingerprints("vault") == {}
    assert ring.fingerprints("pseudonym") == {
        1: derive.fingerprint(root(1), "pseudonym"),
        2: derive.fingerprint(root(2), "pseudonym"),
    }


def test_quarantine_is_under_the_active_vault_root() -> None:
    ring = Keyring({1: root(1)}, {1: root(2), 2: root(3)})
    assert ring.quarantine_key() == ("vault:2", derive.quarantine_key(root(3)))
    assert ring.quarantine_key_of("vault:1") == derive.quarantine_key(root(2))


def test_quarantine_without_a_vault_is_under_the_pseudonym_root() -> None:
    ring = Keyring({1: root(1), 2: root(2)}).with_active("pseudonym", 1)
    label, key = ring.quarantine_key()
    assert (label, key) == ("pseudonym:1", derive.quarantine_key(root(1)))
    later = Keyring({1: root(1), 2: root(2)}, {1: root(3)})
    assert later.quarantine_key_of(label) == key


@pytest.mark.parametrize(
    "label", ["", "vault", "vault:", "vault:x", "other:1", "vault:-1", "v:1:1"]
)
def test_a_label_of_another_form_is_refused(label: str) -> None:
    with pytest.raises(KeyFault) as caught:
        Keyring({1: root(1)}, {1: root(2)}).quarantine_key_of(label)
    assert caught.value.code == "key_missing"


TRICKY = bytes.fromhex("fbefbe" * 10 + "ffff")  # + and / in base64, - and _ in the other alphabet


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(TRICKY).decode(),
        base64.urlsafe_b64encode(TRICKY).decode(),
        base64.b64encode(TRICKY).decode().rstrip("="),
        f"  {base64.b64encode(TRICKY).decode()}\n",
    ],
)
def test_base64_is_read_in_either_alphabet(text: str) -> None:
    assert root_from_base64(text, "X") == TRICKY


@pytest.mark.parametrize("text", ["a", "not base64!", "ab cd", "é" * 8, "\ud800", "A=A="])
def test_what_is_not_base64_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(KeyFault) as caught:
        root_from_base64(text, "SQS2PG_KEYS__VAULT_ROOT")
    assert caught.value.code == "key_encoding"
    assert caught.value.what == "SQS2PG_KEYS__VAULT_ROOT is not base64"
    assert caught.value.__context__ is None
