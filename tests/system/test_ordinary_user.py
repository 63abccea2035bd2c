"""The main job as an ordinary user, in a home of its own, from a read-only checkout.

As root the commands run as `nobody`. What that user cannot read (an interpreter or a checkout under
a private home) is copied to where it can. As an ordinary user they run as ourselves.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import sqs2pg
from sqs2pg.cli.embedded.run_folder import Account, readable
from tests.system.interpreter import copy_open, copy_python

pytestmark = pytest.mark.system

SOURCE = Path(sqs2pg.__file__).parents[1]
PACKAGES = Path(psycopg.__file__).parents[1]


@pytest.fixture(scope="module")
def account() -> Account | None:
    """Who runs the commands; None for ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


@pytest.fixture(scope="module")
def program(account: Account | None) -> Iterator[tuple[str, dict[str, str]]]:
    """A Python that the account can run, and the variables that lead it to our packages."""
    copies = Path(tempfile.mkdtemp(prefix="test-ordinary-"))
    copies.chmod(0o755)
    source, packages, python = SOURCE, PACKAGES, Path(sys.executable)
    variables: dict[str, str] = {}
    try:
        if account is not None:
            python = python.resolve()
            if not readable(SOURCE / "sqs2pg" / "cli", account):
                source = copies / "source"
                copy_open(SOURCE, source)
            if not readable(PACKAGES / "psycopg", account):
                packages = copies / "packages"
                copy_open(PACKAGES, packages)
            if not readable(python, account):
                python = copy_python(python, copies / "python")
                variables["LD_LIBRARY_PATH"] = str(python.parents[1] / "lib")
            variables["PYTHONPATH"] = f"{source}:{packages}"
        yield str(python), variables
    finally:
        shutil.rmtree(copies)


@pytest.fixture
def home(account: Account | None) -> Iterator[Path]:
    """The user's own private home, with a folder to work in and one for what is temporary."""
    path = Path(tempfile.mkdtemp(prefix="test-home-"))
    for folder in (path, path / "work", path / "tmp"):
        folder.mkdir(exist_ok=True)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def ordinary_shell(
    make_shell: Callable[[str], Any],
    postgres15: str,
    account: Account | None,
    program: tuple[str, dict[str, str]],
    home: Path,
) -> Any:
    """The user's shell, pointed at PostgreSQL 15 and a queue."""
    shell = make_shell(postgres15)
    shell.folder = home / "work"
    shell.python, variables = program
    shell.environment |= variables | {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "SQS2PG_KEYS__FILE": "sqs2pg.keys",
    }
    if account is not None:
        shell.identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return shell


def test_an_ordinary_user_can_run_the_demo(ordinary_shell: Any, home: Path) -> None:
    result = ordinary_shell("demo", "--messages", "300", "--seed", "3", "--json").last
    assert result["sent"] == result["received"] == 300
    assert (result["written"], result["quarantined"]) == (294, 6)
    assert result["duplicate"] == result["released"] == 0
    left = {str(path.relative_to(home)) for path in home.rglob("*")}
    assert left == {"tmp", "work", "work/.sqs2pg", "work/.sqs2pg/dev.keys"}


def test_keys_migrate_send_drain_verify(
    ordinary_shell: Any, home: Path, account: Account | None, postgres15: str
) -> None:
    ordinary_shell("keys", "init")
    made = (home / "work" / "sqs2pg.keys").stat()
    assert made.st_uid == (account.uid if account else os.geteuid()) != 0
    assert stat.S_IMODE(made.st_mode) == 0o600
    ordinary_shell("migrate")
    assert ordinary_shell("send", "--count", "200", "--seed", "4", "--json").last["sent"] == 200
    result = ordinary_shell("run", "--drain", "--workers", "2", "--json").last
    assert (result["written"], result["quarantined"]) == (196, 4)
    assert ordinary_shell("verify", "--json").last["ok"] is True
    with psycopg.connect(postgres15) as connection:
        assert connection.execute("SELECT count(*) FROM user_logins").fetchone() == (196,)
