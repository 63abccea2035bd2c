"""Secrets Manager provider: the roots in one secret, as the JSON of a key file.

The secret's text is that of `provider_file` (`{"format": "sqs2pg-keys/1", …}`). Reading it needs
`secretsmanager:GetSecretValue`, making it `CreateSecret`, rotating `PutSecretValue`. Everybody who
may read the secret gets the roots in cleartext: KMS is the better choice.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from typing import Any

from sqs2pg.errors import KeyFault, SettingsError
from sqs2pg.keys import key_file
from sqs2pg.keys.derive import ROOT_BYTES, Secret
from sqs2pg.keys.keyring import SERIES, Keyring, root_from_base64, root_to_base64
from sqs2pg.keys.provider_file import FORMAT
from sqs2pg.keys.provider_kms import aws_client, call

NAME = "secrets-manager"


def load(secret: str, client: Any = None) -> Keyring:
    """Return the keyring of a secret (name or ARN).

    Raises SettingsError `secret_not_set`; KeyFault `secretsmanager_refused`,
    `secretsmanager_away`, `key_file_format`, and what `Keyring` raises.
    """
    content = _read(client or aws_client("secretsmanager"), _name(secret))
    roots = {
        series: {
            int(version): root_from_base64(text, f"{series} version {version} in the secret")
            for version, text in content.get(series, {}).items()
        }
        for series in SERIES
    }
    return Keyring(roots["pseudonym"], roots["vault"], provider=NAME)


def create(secret: str, client: Any = None) -> Keyring:
    """Make a secret with version 1 of both series; never replace an existing one."""
    roots = {series: secrets.token_bytes(ROOT_BYTES) for series in SERIES}
    keyring = Keyring({1: roots["pseudonym"]}, {1: roots["vault"]}, provider=NAME)
    content = {"format": FORMAT, **{s: {"1": root_to_base64(root)} for s, root in roots.items()}}
    manager = client or aws_client("secretsmanager")
    call(
        "secretsmanager",
        "CreateSecret",
        lambda: manager.create_secret(
            Name=_name(secret),
            Description="Root keys of sqs2pg: without them no token can be made again",
            SecretString=json.dumps(content),
        ),
    )
    return keyring


def add(secret: str, series: str, version: int, client: Any = None) -> Secret:
    """Add a new root to the secret; return it."""
    manager = client or aws_client("secretsmanager")
    content = _read(manager, _name(secret))
    root = Secret(secrets.token_bytes(ROOT_BYTES))
    content.setdefault(series, {})[str(version)] = root_to_base64(root)
    call(
        "secretsmanager",
        "PutSecretValue",
        lambda: manager.put_secret_value(SecretId=secret, SecretString=json.dumps(content)),
    )
    return root


def _name(secret: str) -> str:
    if not secret:
        raise SettingsError(
            "keys.provider is secrets-manager, but keys.secret is not set",
            code="secret_not_set",
            hint="set keys.secret to the secret's name or ARN",
        )
    return secret


def _read(manager: Any, secret: str) -> dict[str, Any]:
    answer = call(
        "secretsmanager", "GetSecretValue", lambda: manager.get_secret_value(SecretId=secret)
    )
    content: Any = None
    with suppress(ValueError, RecursionError, TypeError):  # their text would quote the secret
        content = json.loads(answer["SecretString"])
    if not key_file.well_formed(content, FORMAT):
        raise KeyFault(
            "the secret is not the JSON of a key file",
            code="key_file_format",
            hint="`sqs2pg keys init` makes one; docs/reference/masking.md shows the format",
        )
    return dict(content)
