"""File provider: roots from a JSON file that only its owner can read.

    {"format": "sqs2pg-keys/1",
     "pseudonym": {"1": "<base64 of 32 bytes>"},
     "vault": {"1": "<base64 of 32 bytes>"}}

`vault` may be left out; `"development": true` marks keys made for a developer's machine; any
other name is refused, and so is one given twice. Versions are decimal, 1 to 9999.

Promises: what is read is the file whose permissions were checked (checked on the open file, so a
swap between check and read changes nothing); a file made is whole or not there, and never
replaces another. Faults name the file and the entry, never its content.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqs2pg.errors import KeyFault
from sqs2pg.keys.derive import ROOT_BYTES, Secret
from sqs2pg.keys.keyring import SERIES, Keyring, root_from_base64

FORMAT = "sqs2pg-keys/1"
SIZE_MAX_BYTES = 256 * 1024
"""Far above thousands of versions; a key file this large is some other file."""

_VERSION = re.compile(r"[1-9][0-9]{0,3}\Z")


def load(path: Path) -> Keyring:
    """Return the keyring of a key file.

    The file must be a regular one (a symbolic link to one will do: Kubernetes mounts secrets so),
    owned by this user or root, without any permission for group and others. Raises KeyFault:
    `key_missing`, `key_file_permissions`, `key_file_unreadable`, `key_file_format`,
    `key_encoding`, and what `Keyring` raises.
    """
    content = _parse(path, _read_checked(path))
    roots = {series: _roots(path, series, content.get(series, {})) for series in SERIES}
    development = content.get("development", False)
    if not isinstance(development, bool):
        raise _bad_format(path, "development is not true or false")
    return Keyring(
        roots["pseudonym"],
        roots["vault"],
        provider="development" if development else "file",
        development=development,
    )


def create(path: Path, *, development: bool = False) -> Keyring:
    """Make a key file with version 1 of both series, random, mode 0600; return its keyring.

    The bytes are on disk when it returns. Raises KeyFault `key_file_exists` rather than replace
    anything, and `key_file_unwritable`.
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
        content[series] = {"1": base64.b64encode(root).decode()}
    _write_new(path, (json.dumps(content, indent=2) + "\n").encode())
    return keyring


def _read_checked(path: Path) -> bytes:
    with _explained(path, "key_file_unreadable", "cannot be read"):
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise KeyFault(
                f"key file {path} does not exist",
                code="key_missing",
                hint=f"make it with `sqs2pg keys init --file {path}`, or set SQS2PG_KEYS__FILE",
            ) from None
        try:
            _check_permissions(path, os.fstat(number))
            with os.fdopen(number, "rb", closefd=False) as stream:
                return stream.read(SIZE_MAX_BYTES + 1)
        finally:
            os.close(number)


def _check_permissions(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _bad_format(path, "it is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyFault(
            f"key file {path} belongs to another user",
            code="key_file_permissions",
            hint=f"chown it to the user that runs sqs2pg, then chmod 600 {path}",
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFault(
            f"key file {path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})",
            code="key_file_permissions",
            hint=f"chmod 600 {path}",
        )


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    if len(data) > SIZE_MAX_BYTES:
        raise _bad_format(path, f"it is larger than {SIZE_MAX_BYTES:,} bytes")
    content: Any = None
    # Raised below, outside: JSONDecodeError carries the whole document, keys and all.
    with suppress(ValueError, RecursionError):
        content = json.loads(data, object_pairs_hook=_without_repeats)
    if not isinstance(content, dict):
        raise _bad_format(path, "it is not a JSON object, or gives one name twice")
    if content.get("format") != FORMAT:
        raise _bad_format(path, f'its "format" is not "{FORMAT}"')
    if not content.keys() <= {"format", "development", *SERIES}:
        raise _bad_format(path, "it has an entry that is none of the known ones")
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError
    return content


def _roots(path: Path, series: str, entries: Any) -> dict[int, Secret]:
    if not isinstance(entries, dict):
        raise _bad_format(path, f"{series} is not an object of versions")
    roots = {}
    for version, text in entries.items():
        if not _VERSION.match(version) or not isinstance(text, str):
            raise _bad_format(path, f'{series} has an entry that is not "version": "base64"')
        roots[int(version)] = root_from_base64(text, f"{series} version {version} in {path}")
    return roots


def _bad_format(path: Path, why: str) -> KeyFault:
    return KeyFault(
        f"{path} is not a key file: {why}",
        code="key_file_format",
        hint="`sqs2pg keys init` makes one; docs/reference/masking.md shows the format",
    )


def _write_new(path: Path, data: bytes) -> None:
    """Write beside the path, then link into place: link, unlike rename, never replaces."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    with _explained(path, "key_file_unwritable", "cannot be made"):
        number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(number, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(number)
            _link(new, path)
        finally:
            new.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _link(new: Path, path: Path) -> None:
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise KeyFault(
            f"{path} exists already and is left as it is",
            code="key_file_exists",
            hint="tokens made with lost keys cannot be made again: move it away yourself, or "
            "give another path with --file",
        ) from None


@contextmanager
def _explained(path: Path, code: str, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeyFault(
            f"key file {path} {what}: {error.strerror}",
            code=code,
            hint="check the path, its folder and their permissions",
        ) from None
