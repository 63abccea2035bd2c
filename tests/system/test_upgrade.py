"""The release before this one, installed from its tag, and this one on its database.

Before there is a tag, and without a repository, this checkout's own files stand in for the release:
the steps are the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.shell import Shell
from tests.waiting import wait_until

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NEEDED = (
    "pyproject.toml",
    "hatch_build.py",
    "README.md",
    "LICENSE",
    "requirements",
    "native",
    "src",
)
INSTALL_S_MAX = 400
BEFORE, BESIDE = 500, 2_000


def run(*command: str | Path, **options: object) -> str:
    """Run a command to its end and return what it printed; fail with that if it failed."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=INSTALL_S_MAX, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def unpack_release(into: Path) -> None:
    """Put the files of the newest release before this commit into a folder."""
    git = ("git", "-C", ROOT, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^")
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    if tag := done.stdout.strip():
        archive = into.with_suffix(".tar")
        run("git", "-C", ROOT, "archive", "--output", archive, tag)
        run("tar", "-xf", archive, "-C", into)
        return
    for name in NEEDED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "_queue_server")
            shutil.copytree(ROOT / name, into / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, into / name)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the release as a user does; return its interpreter."""
    folder = tmp_path_factory.mktemp("released")
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    unpack_release(source)
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    into = (*pip, "--python", python, "install")
    run(*into, "--require-hashes", "-r", source / "requirements" / "runtime.txt")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "dist", source)
    [wheel] = (folder / "dist").iterdir()
    run(*into, "--no-deps", "--no-index", wheel)
    return python


def settled(database: str) -> int:
    """Return how many messages have an entry in the ledger."""
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT count(*) FROM sqs2pg.delivery").fetchone()
    assert found is not None
    return int(found[0])


def test_old_and_new_processes_write_side_by_side_and_the_books_balance(
    released: Path, make_shell: Callable[[str], Shell], database: str
) -> None:
    new = make_shell(database)
    old = replace(new, python=str(released), forks=None)
    old("migrate")
    old("send", "--count", str(BEFORE), "--seed", "1")
    idle = {"SQS2PG_STATUS__BIND": "127.0.0.1:0"}
    with old.running("run", **idle) as running:
        wait_until(lambda: settled(database) == BEFORE, during=running)
        new("migrate")
        assert new("verify", "--json").last["ok"] is True
        with new.running("run", **idle) as beside:
            new("send", "--count", str(BESIDE), "--seed", "2")
            wait_until(lambda: settled(database) == BEFORE + BESIDE, during=beside)
            for process in (running, beside):
                os.kill(process.pid, signal.SIGTERM)
                output, errors = process.communicate(timeout=60)
                assert process.returncode == 0, output + errors
    report = new("verify", "--json").last
    assert report["ok"] is True
    assert report["written"] + report["quarantined"] == BEFORE + BESIDE
    old("check")


def test_the_release_starts_again_after_the_migration(
    released: Path, make_shell: Callable[[str], Shell], database: str
) -> None:
    """A roll-out that is undone: the old version on the new schema."""
    new = make_shell(database)
    new("migrate")
    old = replace(new, python=str(released), forks=None)
    old("send", "--count", str(BEFORE), "--seed", "3")
    old("run", "--drain")
    assert settled(database) == BEFORE
    assert new("verify", "--json").last["ok"] is True
