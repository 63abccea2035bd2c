"""Secrets Manager provider: the roots in one secret, as the JSON of a key file.

The secret's text is that of `provider_file` (`{"format": "sqs2pg-keys/1", …}`). Reading it needs
`secretsmanager:GetSecretValue`, making it `CreateSecret`, rotating `PutSecretValue` and
`UpdateSecretVersionStage`. Everybody who may read the secret gets the roots in cleartext: KMS is
the better choice.
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
    content, _ = _read(client or aws_client("secretsmanager"), _name(secret))
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
    """Add a new root to the secret; return it.

    Of two processes that add at once one is refused, because each replaces only what it has read:
    the new content becomes a version of the secret with a label of its own, and AWSCURRENT moves to
    it only from the version that was read (AWS, UpdateSecretVersionStage).

    Raises KeyFault `key_twice` if the version is there already, `key_store_changed` for the process
    that is refused, and what `load` raises.
    """
    manager = client or aws_client("secretsmanager")
    content, read_version = _read(manager, _name(secret))
    entries = content.setdefault(series, {})
    if str(version) in entries:
        raise KeyFault(
            f"the secret has a {series} root of version {version} already",
            code="key_twice",
            hint="`sqs2pg keys list` shows which versions there are",
        )
    root = Secret(secrets.token_bytes(ROOT_BYTES))
    entries[str(version)] = root_to_base64(root)
    label = f"sqs2pg-{secrets.token_hex(8)}"
    made = call(
        "secretsmanager",
        "PutSecretValue",
        lambda: manager.put_secret_value(
            SecretId=secret, SecretString=json.dumps(content), VersionStages=[label]
        ),
    )
    try:
        _move(manager, secret, "AWSCURRENT", read_version, made["VersionId"])
    except KeyFault as fault:
        if fault.code != "secretsmanager_refused" or _read(manager, secret)[1] == read_version:
            raise
        raise KeyFault(
            "another process has changed the secret meanwhile; no root was added",
            code="key_store_changed",
            hint="run the same command again",
        ) from None
    finally:
        with suppress(KeyFault):  # AWS removes a version without a label
            _move(manager, secret, label, made["VersionId"], None)
    return root


def _move(manager: Any, secret: str, label: str, source: str, to: str | None) -> None:
    """Move a label of the secret's versions, or take it away; refused if `source` lacks it."""
    target = {"MoveToVersionId": to} if to else {}
    call(
        "secretsmanager",
        "UpdateSecretVersionStage",
        lambda: manager.update_secret_version_stage(
            SecretId=secret, VersionStage=label, RemoveFromVersionId=source, **target
        ),
    )


def _name(secret: str) -> str:
    if not secret:
        raise SettingsError(
            "keys.provider is secrets-manager, but keys.secret is not set",
            code="secret_not_set",
            hint="set keys.secret to the secret's name or ARN",
        )
    return secret


def _read(manager: Any, secret: str) -> tuple[dict[str, Any], str]:
    """Return the content, and which version of the secret it is."""
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
    return dict(content), str(answer["VersionId"])
