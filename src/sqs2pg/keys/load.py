"""Load: the name of a provider -> a keyring, after the self-test."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqs2pg.errors import SettingsError
from sqs2pg.keys import development, provider_environment, provider_file
from sqs2pg.keys.development import refuse_development_key
from sqs2pg.keys.keyring import Keyring
from sqs2pg.keys.self_test import self_test

PROVIDERS = ("file", "environment", "development")
PLANNED = ("aws-kms", "secrets-manager")


def load_keyring(
    provider: str,
    *,
    file: Path | None,
    environ: Mapping[str, str],
    folder: Path = development.FOLDER,
    endpoints: Sequence[str] | None = None,
    allow_development: bool = False,
) -> Keyring:
    """Return the keyring of a provider: `file`, `environment` or `development`.

    `file` is for `file`, `environ` for `environment`, `folder` for `development`. Where
    `endpoints` are given, a development key is refused unless all of them are loopback; the key
    file's own mark counts, so a development file given as `file` is refused too.

    Raises SettingsError for a provider unknown or without its file, KeyFault for anything wrong
    with the keys (`self_test` with the libraries).
    """
    self_test()
    if provider == "file":
        if file is None:
            raise SettingsError(
                "keys.provider is file, but no key file is given",
                code="key_file_not_set",
                hint="set keys.file or SQS2PG_KEYS__FILE; `sqs2pg keys init` makes one",
            )
        keyring = provider_file.load(file)
    elif provider == "environment":
        keyring = provider_environment.load(environ)
    elif provider == "development":
        if endpoints is not None:  # before one is made
            refuse_development_key(endpoints, allow_development)
        keyring = development.load_or_create(folder)
    else:
        raise _unknown(provider)
    if keyring.development and endpoints is not None:
        refuse_development_key(endpoints, allow_development)
    return keyring


def _unknown(provider: str) -> SettingsError:
    if provider in PLANNED:
        return SettingsError(
            f"key provider {provider} is not available in this version",
            code="unknown_provider",
            hint=f"available: {', '.join(PROVIDERS)}",
        )
    near = difflib.get_close_matches(provider, PROVIDERS, n=1)
    return SettingsError(
        "keys.provider names no known provider",
        code="unknown_provider",
        hint=f"did you mean {near[0]}?" if near else f"available: {', '.join(PROVIDERS)}",
    )
