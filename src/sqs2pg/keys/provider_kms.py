"""KMS provider: an AWS KMS key wraps each root, and a file has the wrapped roots.

    {"format": "sqs2pg-keys-kms/1",
     "pseudonym": {"1": "<base64 of KMS's CiphertextBlob>"},
     "vault": {"1": "…"}}

`GenerateDataKey` makes a root and its wrapped form in one call; `Decrypt` unwraps it at each start.
Both have the encryption context `application = sqs2pg, series, version`. So a wrapped root opens
only as the series and version that it was made for, and CloudTrail shows which one was used. The
file is useless without `kms:Decrypt`, so it may lie beside the settings and on every host.

Faults name the call and AWS's error code, never its text.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

from sqs2pg.errors import KeyFault, SettingsError
from sqs2pg.keys import key_file
from sqs2pg.keys.derive import ROOT_BYTES, Secret
from sqs2pg.keys.keyring import SERIES, Keyring

FORMAT = "sqs2pg-keys-kms/1"
NAME = "aws-kms"


def load(path: Path, client: Any = None) -> Keyring:
    """Return the keyring of a file of wrapped roots, each unwrapped by KMS.

    Raises KeyFault: `key_missing`, `key_file_unreadable`, `key_file_format`, `kms_refused`,
    `kms_away`, and what `Keyring` raises.
    """
    wrapped = key_file.read(path, FORMAT, private=False)
    kms = client or _client()
    roots = {
        series: {
            version: _unwrap(kms, _blob(path, text), series, version)
            for version, text in wrapped[series].items()
        }
        for series in SERIES
    }
    return Keyring(roots["pseudonym"], roots["vault"], provider=NAME)


def create(path: Path, kms_key: str, client: Any = None) -> Keyring:
    """Make both roots with a KMS key (id, ARN or alias), and the file of the wrapped roots.

    Raises SettingsError `kms_key_not_set`; KeyFault `key_file_exists` before it calls KMS.
    """
    if path.exists():
        raise key_file.exists_already(path)
    kms = client or _client()
    roots, wrapped = {}, {}
    for series in SERIES:
        root, text = _generate(kms, kms_key, series, 1)
        roots[series], wrapped[series] = {1: root}, {"1": text}
    keyring = Keyring(roots["pseudonym"], roots["vault"], provider=NAME)
    key_file.write_new(path, {"format": FORMAT, **wrapped})
    return keyring


def add(path: Path, kms_key: str, series: str, version: int, client: Any = None) -> Secret:
    """Add a new root to the file; return it once it is on disk."""
    root, text = _generate(client or _client(), kms_key, series, version)
    key_file.add(path, FORMAT, series, version, text, private=False)
    return root


def _client() -> Any:
    return aws_client("kms")


def aws_client(service: str) -> Any:
    """Return botocore's client of a service, set up by the AWS environment. Raises KeyFault."""
    # botocore itself reads only AWS_DEFAULT_REGION and the profile.
    region = os.environ.get("AWS_REGION") or None
    try:
        return botocore.session.get_session().create_client(service, region_name=region)
    except BotoCoreError as error:
        raise _away(service, "the client", type(error).__name__) from None


def _generate(kms: Any, kms_key: str, series: str, version: int) -> tuple[Secret, str]:
    if not kms_key:
        raise SettingsError(
            "keys.provider is aws-kms, but keys.kms_key is not set",
            code="kms_key_not_set",
            hint="set keys.kms_key to the key's id, ARN or alias/NAME",
        )
    answer = call(
        "kms",
        "GenerateDataKey",
        lambda: kms.generate_data_key(
            KeyId=kms_key, NumberOfBytes=ROOT_BYTES, EncryptionContext=_context(series, version)
        ),
    )
    return Secret(answer["Plaintext"]), base64.b64encode(answer["CiphertextBlob"]).decode()


def _unwrap(kms: Any, blob: bytes, series: str, version: int) -> Secret:
    answer = call(
        "kms",
        "Decrypt",
        lambda: kms.decrypt(CiphertextBlob=blob, EncryptionContext=_context(series, version)),
    )
    return Secret(answer["Plaintext"])


def _context(series: str, version: int) -> dict[str, str]:
    return {"application": "sqs2pg", "series": series, "version": str(version)}


def _blob(path: Path, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise key_file.bad_format(path, "a wrapped root is not base64")


def call(service: str, operation: str, ask: Any) -> Mapping[str, Any]:
    """Return AWS's answer. Raises KeyFault `SERVICE_refused` or `SERVICE_away`."""
    code = ""
    try:
        answer: Mapping[str, Any] = ask()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))[:60]
    except BotoCoreError as error:
        raise _away(service, operation, type(error).__name__) from None
    else:
        return answer
    raise refused(service, operation, code)


def refused(service: str, operation: str, code: str) -> KeyFault:
    """Return the fault of a call that AWS refused."""
    return KeyFault(
        f"AWS refused {operation} of {service} ({code})",
        code=f"{service}_refused",
        hint="check the name of the key or secret, the region, and that the role may call it",
    )


def _away(service: str, operation: str, kind: str) -> KeyFault:
    return KeyFault(
        f"{operation} of {service} could not be called ({kind})",
        code=f"{service}_away",
        hint="check AWS_REGION, the credentials, the network and AWS_ENDPOINT_URL",
    )
