"""Key files: read one safely, make a new one, and add to one, without ever leaving half a file.

A JSON object with a format's name and, per series, the roots by version: in cleartext
(`provider_file`) or wrapped by KMS (`provider_kms`).

Promises: it reads the very file whose permissions it checked (it checks the open file, so a swap
between check and read changes nothing). A new file is complete or absent, and never replaces
another. After an addition there is the old file or the new one, which a reader accepts: it is read
back first. Two processes add one after the other, each to what the other has left. No failure
leaves a file behind. Faults name the file and the entry, never its content.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqs2pg.errors import KeyFault
from sqs2pg.keys.keyring import SERIES

SIZE_MAX_BYTES = 256 * 1024
"""Far above thousands of versions; a key file this large is some other file."""

LOCK_WAIT_S = 30.0
"""How long an addition waits for those of other processes; one takes milliseconds."""

_VERSION = re.compile(r"[1-9][0-9]{0,3}\Z")


def read(path: Path, file_format: str, *, private: bool = True) -> dict[str, Any]:
    """Return a key file's content: the format's name, `development`, and texts by series, version.

    A `private` file must be a regular one, owned by this user or root, without any permission for
    group and others. A symbolic link to one is accepted: Kubernetes mounts secrets so. Raises
    KeyFault: `key_missing`, `key_file_permissions`, `key_file_unreadable`, `key_file_format`.
    """
    content = _parse(path, _read_checked(path, private=private), file_format)
    for series in SERIES:
        content[series] = _entries(path, series, content.get(series, {}))
    return content


def write_new(path: Path, content: Mapping[str, Any]) -> None:
    """Make a key file, mode 0600. The bytes are on disk when it returns.

    Raises KeyFault `key_file_exists` if there is one already, and `key_file_unwritable`.
    """
    with _explained(path, "key_file_unwritable", "cannot be made"):
        new = _write_beside(path, content)
        try:
            _link(new, path)
        finally:
            new.unlink()
        _sync_folder(path)


def add(
    path: Path,
    file_format: str,
    series: str,
    version: int,
    text: str,
    *,
    private: bool = True,
    read_back: Callable[[Path], object] | None = None,
) -> None:
    """Add one root to a key file; the old file stays until the new one is complete on disk.

    `read_back` reads the new file as a start would, before it replaces the old one; without it
    `read` does. Owner and mode stay. Raises what `read` and `read_back` raise, KeyFault `key_twice`
    if the version is there already, and `key_file_unwritable`.
    """
    target = path.resolve()  # a symbolic link stays one
    with _locked(target):
        content = _parse(target, _read_checked(target, private=private), file_format)
        _enter(path, content, series, version, text)
        _replace(target, content, read_back or (lambda new: read(new, file_format)))


def _enter(path: Path, content: dict[str, Any], series: str, version: int, text: str) -> None:
    for name in SERIES:
        _entries(path, name, content.get(name, {}))
    entries = content.setdefault(series, {})
    if str(version) in entries:
        raise KeyFault(
            f"{path} has a {series} root of version {version} already",
            code="key_twice",
            hint="`sqs2pg keys list` shows which versions there are",
        )
    entries[str(version)] = text


def _replace(target: Path, content: dict[str, Any], read_back: Callable[[Path], object]) -> None:
    with _explained(target, "key_file_unwritable", "cannot be written"):
        status = target.stat()
        new = _write_beside(target, content)
        try:
            read_back(new)
            os.chown(new, status.st_uid, status.st_gid)
            new.chmod(stat.S_IMODE(status.st_mode))
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        _sync_folder(target)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep out every other process that adds to the file.

    The lock (flock) is on the file itself and leaves nothing behind. A file that was replaced while
    we waited is another one: its lock keeps out nobody, so we lock again.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        with _opened(target) as number:
            while not _try_lock(target, number):
                if time.monotonic() > deadline:
                    raise KeyFault(
                        f"another process has been changing key file {target} for "
                        f"{LOCK_WAIT_S:.0f} s",
                        code="key_file_unwritable",
                        hint="end that process (`fuser` names it), then run the same command again",
                    )
                time.sleep(0.01)
            with _explained(target, "key_file_unwritable", "cannot be written"):
                same = os.path.samestat(os.fstat(number), target.stat())
            if same:
                yield
                return


def _try_lock(target: Path, number: int) -> bool:
    with _explained(target, "key_file_unwritable", "cannot be locked"):
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def well_formed(content: Any, file_format: str) -> bool:
    """Whether parsed JSON is a key file's content of this format."""
    return (
        isinstance(content, dict)
        and content.get("format") == file_format
        and content.keys() <= {"format", "development", *SERIES}
        and all(
            isinstance(content.get(series, {}), dict)
            and all(
                _VERSION.match(version) and isinstance(text, str)
                for version, text in content.get(series, {}).items()
            )
            for series in SERIES
        )
    )


def _read_checked(path: Path, *, private: bool) -> bytes:
    with _opened(path) as number, _explained(path, "key_file_unreadable", "cannot be read"):
        _check_permissions(path, os.fstat(number), private=private)
        with os.fdopen(number, "rb", closefd=False) as stream:
            return stream.read(SIZE_MAX_BYTES + 1)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
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
        yield number
    finally:
        os.close(number)


def _check_permissions(path: Path, status: os.stat_result, *, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise bad_format(path, "it is not a regular file")
    if not private:
        return
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


def _parse(path: Path, data: bytes, file_format: str) -> dict[str, Any]:
    if len(data) > SIZE_MAX_BYTES:
        raise bad_format(path, f"it is larger than {SIZE_MAX_BYTES:,} bytes")
    content: Any = None
    # Raised below, not here: JSONDecodeError has the whole document, keys included.
    with suppress(ValueError, RecursionError):
        content = json.loads(data, object_pairs_hook=_without_repeats)
    if not isinstance(content, dict):
        raise bad_format(path, "it is not a JSON object, or gives one name twice")
    if content.get("format") != file_format:
        raise bad_format(path, f'its "format" is not "{file_format}"')
    if not content.keys() <= {"format", "development", *SERIES}:
        raise bad_format(path, "it has an unknown entry")
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError
    return content


def _entries(path: Path, series: str, entries: Any) -> dict[int, str]:
    if not isinstance(entries, dict):
        raise bad_format(path, f"{series} is not an object of versions")
    for version, text in entries.items():
        if not _VERSION.match(version) or not isinstance(text, str):
            raise bad_format(path, f'{series} has an entry that is not "version": "base64"')
    return {int(version): text for version, text in entries.items()}


def bad_format(path: Path, why: str) -> KeyFault:
    """Return the fault of a file that is not a key file."""
    return KeyFault(
        f"{path} is not a key file: {why}",
        code="key_file_format",
        hint="`sqs2pg keys init` makes one; docs/reference/masking.md shows the format",
    )


def _write_beside(path: Path, content: Mapping[str, Any]) -> Path:
    """Write the content to a new file in the same folder, on disk; return its path.

    A disk that is full leaves no part of it.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write((json.dumps(content, indent=2) + "\n").encode())
            stream.flush()
            os.fsync(number)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return new


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(new: Path, path: Path) -> None:
    """Link the new file into place: unlike a rename, a link never replaces."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise exists_already(path) from None


def exists_already(path: Path) -> KeyFault:
    """Return the fault of making a key file where there is one."""
    return KeyFault(
        f"{path} exists already and is left as it is",
        code="key_file_exists",
        hint="tokens of lost keys cannot be made again: move the file away yourself, or give "
        "another path with --file",
    )


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
