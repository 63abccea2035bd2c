"""The run folder: one private folder per run, and the user that owns the database in it.

    <base>/sqs2pg-local-XXXXXXXX/   ours, locked for as long as we or a server of ours lives
      postgres/                     the database user's, 0700: password file, then data
      postgresql/                   a readable copy of the binaries, only where one is needed
      postgres.log, sqs.log         0600
    <base>/sqs2pg-local-XXXXXXXX.*.log   0600, only where a server did not start: its log, kept

The folder is removed when the run ends. If the run is killed, the lock ends with its last process,
and the next start removes every unlocked folder of the same user.

PostgreSQL refuses to run as root. As root we give it to an unprivileged user that exists, because
initdb looks its own name up.

Must never do: remove a folder whose lock is held, or one of another user; change the permissions
of anything it did not make.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqs2pg.errors import SettingsError

PREFIX = "sqs2pg-local-"
_PREFERRED = ("nobody", "daemon")
_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a name that nobody can foresee
_NOEXEC: int = getattr(os, "ST_NOEXEC", 0)  # not on macOS
_SHARED = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108


@dataclass(frozen=True)
class Account:
    """A user that is not root, and its primary group."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class RunFolder:
    """The folder of this run.

    `account` is the user that PostgreSQL runs as, None for our own. `lock` is the open folder,
    whose lock says that the run is alive; servers inherit it.
    """

    path: Path
    account: Account | None
    lock: int

    def make_private(self, name: str) -> Path:
        """Make a folder inside, 0700, owned by the account."""
        path = self.path / name
        path.mkdir(mode=0o700)
        self.give(path)
        return path

    def give(self, path: Path) -> None:
        """Make the account the owner of one file or folder."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)


@contextlib.contextmanager
def new_run_folder(base: Path | None = None) -> Iterator[RunFolder]:
    """Make the folder of this run, after removing those of killed runs; remove it at the end.

    It is made in `base`, by default the temp folder (TMPDIR), or, where the account cannot get
    there, in /tmp or /var/tmp.

    Raises:
        SettingsError: no user to drop root to, or no folder that it can reach.
    """
    account = _unprivileged_account() if os.geteuid() == 0 else None
    first = (base or Path(tempfile.gettempdir())).resolve()
    chosen = reachable_base((first, *_SHARED), account)
    for place in {chosen, Path(tempfile.gettempdir()), _MEMORY}:
        remove_leftovers(place)
    path, lock = _claim(chosen)
    try:
        if account is not None:
            path.chmod(0o711)  # the account passes through; it may neither list nor write
        yield RunFolder(path, account, lock)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def memory_folder(need_bytes: int) -> Path | None:
    """Return a base in memory with room for `need_bytes`, or None where there is none.

    A new database is 300 files: 15 ms in memory, and up to half a second on a disk. For tests and
    small data; more data fails as on a full disk. Only half of the free memory is counted on. A
    folder that forbids programs is not used, because a copy of PostgreSQL may have to run in it.
    """
    try:
        room = os.statvfs(_MEMORY)
        pages_free = os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError):
        return None
    memory_free = pages_free * os.sysconf("SC_PAGE_SIZE")
    if room.f_bavail * room.f_frsize < need_bytes or memory_free < 2 * need_bytes:
        return None
    fit = os.access(_MEMORY, os.W_OK | os.X_OK) and not room.f_flag & _NOEXEC
    return _MEMORY if fit else None


def remove_leftovers(base: Path) -> None:
    """Remove the run folders in `base` that are ours and that no living process locks."""
    for path in base.glob(f"{PREFIX}*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # a log that was kept, another user's folder, or just removed
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # a living run holds the lock
            continue
        finally:
            os.close(lock)


def readable(path: Path, account: Account) -> bool:
    """Whether the permission bits let `account` pass every parent of `path` and read it.

    A folder must be passable, too. Access lists are not read; they are assumed to grant nothing.
    """
    path = path.resolve()
    if not all(_grants(parent, account, stat.S_IXOTH) for parent in path.parents):
        return False
    return _grants(path, account, stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0))


def _grants(path: Path, account: Account, wanted: int) -> bool:
    """Whether the class of bits that applies to `account` has all of `wanted`."""
    try:
        status = path.stat()
    except OSError:
        return False
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return (status.st_mode >> shift) & wanted == wanted


def _unprivileged_account() -> Account:
    """Return an existing user that we may give files to."""
    entries = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    entries.sort(key=lambda entry: (entry.pw_name not in _PREFERRED, -entry.pw_uid))
    with tempfile.NamedTemporaryFile(prefix="sqs2pg-owner-") as probe:
        for entry in entries:
            # In a user namespace some ids do not exist; chown shows it.
            with contextlib.suppress(OSError):
                os.chown(probe.name, entry.pw_uid, entry.pw_gid)
                return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise SettingsError(
        "PostgreSQL does not run as root, and there is no other user to run it as",
        code="local_user",
        hint="run as an ordinary user",
    )


def reachable_base(bases: tuple[Path, ...], account: Account | None) -> Path:
    """Return the first base that the account can pass, if possible one that allows programs."""
    if account is None:
        return bases[0]
    passable = [
        base
        for base in bases
        if all(_grants(folder, account, stat.S_IXOTH) for folder in (base, *base.parents))
    ]
    if passable:
        return min(passable, key=lambda base: os.statvfs(base).f_flag & _NOEXEC)
    raise SettingsError(
        f"no temp folder that the user {account.name} can reach",
        code="local_folder",
        hint="set TMPDIR to a folder whose parents are open to all, or run as an ordinary user",
    )


def _claim(base: Path) -> tuple[Path, int]:
    """Make and lock a new folder.

    Between making and locking, another start may take it for a leftover and remove it; then the
    folder at the path is not the one that was locked, and a new one is made.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return path, lock
            os.close(lock)
