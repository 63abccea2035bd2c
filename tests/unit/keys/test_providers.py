from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from sqs2pg.errors import KeyFault, SettingsError
from sqs2pg.keys import aead, derive, hmac_state, provider_file
from sqs2pg.keys.providers import load_keyring
from sqs2pg.keys.self_test import self_test

ENVIRON = {"SQS2PG_KEYS__PSEUDONYM_ROOT": base64.b64encode(hashlib.sha256(b"1").digest()).decode()}


def test_each_provider_gives_its_keys(tmp_path: Path) -> None:
    made = provider_file.create(tmp_path / "keys")
    from_file = load_keyring("file", file=tmp_path / "keys", environ=ENVIRON)
    assert from_file.root("vault", 1) == made.root("vault", 1)
    from_environment = load_keyring("environment", file=tmp_path / "keys", environ=ENVIRON)
    assert from_environment.root("pseudonym", 1) == hashlib.sha256(b"1").digest()
    developer = load_keyring("development", file=None, environ={}, folder=tmp_path / "dev")
    assert developer.development


@pytest.mark.parametrize(
    ("provider", "hint"),
    [
        ("aws-kns", "did you mean aws-kms?"),
        ("enviroment", "did you mean environment?"),
        ("", "available: file"),
    ],
)
def test_an_unknown_provider_is_refused(provider: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_keyring(provider, file=None, environ={})
    assert caught.value.code == "unknown_provider"
    assert hint in caught.value.hint


def test_a_file_provider_wants_a_file() -> None:
    with pytest.raises(SettingsError) as caught:
        load_keyring("file", file=None, environ=ENVIRON)
    assert caught.value.code == "key_file_not_set"


def test_a_development_key_is_refused_elsewhere_and_not_even_made(tmp_path: Path) -> None:
    with pytest.raises(KeyFault) as caught:
        load_keyring(
            "development", file=None, environ={}, folder=tmp_path / "d", endpoints=["10.0.0.1"]
        )
    assert caught.value.code == "development_key"
    assert not (tmp_path / "d").exists()
    load_keyring(
        "development",
        file=None,
        environ={},
        folder=tmp_path / "d",
        endpoints=["10.0.0.1"],
        allow_development=True,
    )


def test_a_development_key_given_as_a_file_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "dev.keys"
    provider_file.create(path, development=True)
    load_keyring("file", file=path, environ={}, endpoints=["127.0.0.1", ""])
    with pytest.raises(KeyFault) as caught:
        load_keyring("file", file=path, environ={}, endpoints=["10.0.0.1"])
    assert caught.value.code == "development_key"


def test_the_self_test_passes_here() -> None:
    self_test()


@pytest.mark.parametrize(
    ("module", "function", "broken", "named"),
    [
        (derive, "hkdf_sha256", lambda *_: bytes(42), "HKDF"),
        (hmac_state, "hmac_states", lambda _: (hashlib.sha256(), hashlib.sha256()), "HMAC"),
        (aead, "encrypt", lambda *_: bytes(28), "AES-GCM"),
        (aead, "encrypt", lambda *_: 1 / 0, "AES-GCM"),
    ],
)
def test_no_key_is_loaded_if_a_library_fails_the_self_test(
    monkeypatch: pytest.MonkeyPatch, module: object, function: str, broken: object, named: str
) -> None:
    monkeypatch.setattr(module, function, broken)
    with pytest.raises(KeyFault) as caught:
        load_keyring("environment", file=None, environ=ENVIRON)
    assert caught.value.code == "self_test"
    assert caught.value.what.startswith(named)
