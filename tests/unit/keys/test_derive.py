from __future__ import annotations

import hashlib

import pytest

from sqs2pg.keys import derive
from sqs2pg.keys.derive import Secret

ROOT = hashlib.sha256(b"a root").digest()


@pytest.mark.parametrize("shown", [repr, str, "{}".format, lambda s: f"{s!r}", lambda s: f"{[s]}"])
def test_a_secret_never_shows_itself(shown: object) -> None:
    assert callable(shown)
    assert shown(Secret(ROOT)) in ("Secret(…)", "[Secret(…)]")


def test_a_secret_equals_its_bytes() -> None:
    assert Secret(ROOT) == ROOT
    assert hash(Secret(ROOT)) == hash(ROOT)


def test_every_purpose_has_its_own_key() -> None:
    keys = [
        derive.pseudonym_key(ROOT, "ip"),
        derive.pseudonym_key(ROOT, "device_id"),
        derive.pseudonym_key(ROOT, "quarantine"),
        derive.quarantine_key(ROOT),
        derive.hkdf_sha256(ROOT, b""),
        ROOT,
    ]
    assert len(set(keys)) == len(keys)
    assert all(isinstance(key, Secret) for key in keys[:-1])


def test_a_fingerprint_tells_series_apart_and_is_short() -> None:
    pseudonym, vault = derive.fingerprint(ROOT, "pseudonym"), derive.fingerprint(ROOT, "vault")
    assert pseudonym != vault
    assert len(pseudonym) == len(vault) == 16
    assert bytes.fromhex(pseudonym) not in ROOT


def test_a_domain_is_the_same_in_either_unicode_form() -> None:
    assert derive.pseudonym_key(ROOT, "Z\xfcrich") == derive.pseudonym_key(ROOT, "Zu\u0308rich")
