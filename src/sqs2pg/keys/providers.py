"""Providers: the name of a provider -> its keyring, after the self-test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqs2pg.errors import KeyFault, SettingsError, nearest
from sqs2pg.keys import provider_development, provider_environment, provider_file
from sqs2pg.keys.derive import Secret
from sqs2pg.keys.keyring import VERSION_MAX, Keyring
from sqs2pg.keys.provider_development import refuse_development_key
from sqs2pg.keys.self_test import self_test

PROVIDERS = ("file", "environment", "aws-kms", "secrets-manager", "development")
DEFAULT_FILE = Path("sqs2pg.keys")


def load_keyring(
    provider: str,
    *,
    file: Path | None,
    environ: Mapping[str, str],
    secret: str = "",
    folder: Path = provider_development.FOLDER,
    endpoints: Sequence[str] | None = None,
    allow_development: bool = False,
) -> Keyring:
    """Return the keyring of a provider, one of PROVIDERS.

    `file` is for `file` and `aws-kms`, `environ` for `environment`, `secret` for
    `secrets-manager`, `folder` for `development`. If `endpoints` are given, a development key is
    refused unless all of them are loopback. The file's own mark counts, so a development file given
    as `file` is refused too.

    Raises SettingsError for an unknown provider and for one without its file; KeyFault for anything
    wrong with the keys, and `self_test` for a broken library.
    """
    self_test()
    if provider == "file":
        if file is None:
            raise SettingsError(
                "keys.provider is file, but keys.file is not set",
                code="key_file_not_set",
                hint="set keys.file or SQS2PG_KEYS__FILE; `sqs2pg keys init` makes one",
            )
        keyring = provider_file.load(file)
    elif provider == "environment":
        keyring = provider_environment.load(environ)
    elif provider == "aws-kms":
        from sqs2pg.keys import provider_kms

        keyring = provider_kms.load(file or DEFAULT_FILE)
    elif provider == "secrets-manager":
        from sqs2pg.keys import provider_secrets

        keyring = provider_secrets.load(secret)
    elif provider == "development":
        if endpoints is not None:  # before one is made
            refuse_development_key(endpoints, allow_development)
        keyring = provider_development.load_or_create(folder)
    else:
        raise _unknown(provider)
    if keyring.development and endpoints is not None:
        refuse_development_key(endpoints, allow_development)
    return keyring


def create_keyring(provider: str, *, file: Path, kms_key: str = "", secret: str = "") -> Keyring:
    """Make version 1 of both roots in a provider that stores them; return the keyring.

    Raises SettingsError for a provider that stores none, or that does not know where; KeyFault if
    there are keys already.
    """
    self_test()
    if provider == "file":
        return provider_file.create(file)
    if provider == "aws-kms":
        from sqs2pg.keys import provider_kms

        return provider_kms.create(file, kms_key)
    if provider == "secrets-manager":
        from sqs2pg.keys import provider_secrets

        return provider_secrets.create(secret)
    raise _stores_none(provider)


def add_root(
    provider: str, series: str, version: int, *, file: Path, kms_key: str = "", secret: str = ""
) -> Secret:
    """Add a new root of a series to a provider that stores them; return it.

    Raises KeyFault `key_version` for a version that no keyring takes, before anything is written;
    SettingsError for a provider that stores none; and what the provider raises.
    """
    if not 1 <= version <= VERSION_MAX:
        raise KeyFault(
            f"a {series} root cannot have version {version}: versions go to {VERSION_MAX:,}",
            code="key_version",
            hint="`sqs2pg keys list` shows the versions on record; if nobody of yours has made the "
            "highest one, delete its row of sqs2pg.key",
        )
    if provider in ("file", "development"):
        return provider_file.add(file, series, version)
    if provider == "aws-kms":
        from sqs2pg.keys import provider_kms

        return provider_kms.add(file, kms_key, series, version)
    if provider == "secrets-manager":
        from sqs2pg.keys import provider_secrets

        return provider_secrets.add(secret, series, version)
    raise _stores_none(provider)


def _stores_none(provider: str) -> SettingsError:
    if provider not in PROVIDERS:
        return _unknown(provider)
    return SettingsError(
        f"provider {provider} cannot store new keys",
        code="provider_keeps_none",
        hint="for the environment: set SQS2PG_KEYS__PSEUDONYM_ROOT_V2 (SQS2PG_KEYS__VAULT_ROOT_V2, "
        "…) in every process to base64 of 32 random bytes, then rotate",
    )


def _unknown(provider: str) -> SettingsError:
    near = nearest(provider, PROVIDERS)
    return SettingsError(
        "keys.provider names no known provider",
        code="unknown_provider",
        hint=f"did you mean {near}?" if near else f"available: {', '.join(PROVIDERS)}",
    )
