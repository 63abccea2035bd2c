"""File provider: roots from a JSON file that only its owner can read.

    {"format": "sqs2pg-keys/1",
     "pseudonym": {"1": "<base64 of 32 bytes>"},
     "vault": {"1": "<base64 of 32 bytes>"}}

`vault` is optional; `"development": true` marks keys made for a developer's machine. Any other name
is refused, and so is one given twice. Versions are decimal, 1 to 9999. `key_file` reads and writes
the file safely.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from sqs2pg.keys import key_file
from sqs2pg.keys.derive import ROOT_BYTES, Secret
from sqs2pg.keys.keyring import SERIES, Keyring, root_from_base64, root_to_base64

FORMAT = "sqs2pg-keys/1"


def load(path: Path) -> Keyring:
    """Return the keyring of a key file.

    Raises what `key_file.read` raises, KeyFault `key_encoding`, and what `Keyring` raises.
    """
    content = key_file.read(path, FORMAT)
    roots = {
        series: {
            version: root_from_base64(text, f"{series} version {version} in {path}")
            for version, text in content[series].items()
        }
        for series in SERIES
    }
    development = content.get("development", False)
    if not isinstance(development, bool):
        raise key_file.bad_format(path, "development is not true or false")
    return Keyring(
        roots["pseudonym"],
        roots["vault"],
        provider="development" if development else "file",
        development=development,
    )


def create(path: Path, *, development: bool = False) -> Keyring:
    """Make a key file with version 1 of both series, random, mode 0600; return its keyring.

    The bytes are on disk when it returns. Raises KeyFault `key_file_exists` if there is a file
    already, and `key_file_unwritable`.
    """
    roots = {series: secrets.token_bytes(ROOT_BYTES) for series in SERIES}
    keyring = Keyring(
        {1: roots["pseudonym"]},
        {1: roots["vault"]},
        provider="development" if development else "file",
        development=development,
    )
    content: dict[str, Any] = {"format": FORMAT}
    if development:
        content["development"] = True
    for series, root in roots.items():
        content[series] = {"1": root_to_base64(root)}
    key_file.write_new(path, content)
    return keyring


def add(path: Path, series: str, version: int) -> Secret:
    """Add a new random root to a key file; return it once it is on disk.

    Raises what `key_file.add` raises.
    """
    root = Secret(secrets.token_bytes(ROOT_BYTES))
    key_file.add(path, FORMAT, series, version, root_to_base64(root), read_back=load)
    return root
