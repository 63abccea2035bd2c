"""The commands of README and quickstart, as an ordinary user types them: on a terminal, in a pipe.

The user has Debian's Python, a clean environment made as the README says, and 80 columns. As root
it is `nobody`, as an ordinary user we are it. pip gets the packages from its registry. Make the
transcript again with `make test-system TEST_ARGS='-s tests/system/test_readme.py'`.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT, copy_checkout
from tests.shell import Shell
from tests.terminal import on_terminal
from tests.waiting import wait_until

pytestmark = pytest.mark.system

README = (ROOT / "README.md").read_text()
QUICKSTART = (ROOT / "docs/quickstart.md").read_text()
DEBIAN = "/usr/local/bin:/usr/bin:/bin"
INSTALL_S_MAX = 600


@dataclass
class User:
    """Who types the commands, in a home with a copy of the checkout."""

    home: Path
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.home / "sqs2pg"

    def environment(self) -> dict[str, str]:
        """Nothing of ours but how pip and git reach their servers."""
        ways = ("PIP_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY", "http", "no_proxy")
        kept = {name: value for name, value in os.environ.items() if name.startswith(ways)}
        return kept | {"HOME": str(self.home), "PATH": DEBIAN, "LANG": "C.UTF-8"}

    def types(
        self, line: str, *, folder: Path, before: Sequence[str] = (), terminal: bool, **more: str
    ) -> str:
        """Run one line of bash, which must succeed; return what it shows."""
        activate = self.checkout / ".venv/bin/activate"
        installed = [f". {activate}"] if activate.exists() else []
        command = ["bash", "-c", "\n".join(["set -e", *installed, *before, line])]
        environment = self.environment() | more
        if terminal:
            where = {"cwd": folder, **self.identity}
            code, shown = on_terminal(command, environment=environment, **where)
        else:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=INSTALL_S_MAX,
                check=False,
                **self.identity,
            )
            code, shown = done.returncode, done.stdout
        print(f"$ {line}\n{shown}", end="")
        assert code == 0, f"{line}: exit {code}\n{shown}"
        assert "Traceback" not in shown
        return shown


def steps(page: str, heading: str) -> list[str]:
    """The commands of the first console block below a heading, without their comments."""
    below = page.partition(f"{heading}\n")[2]
    [block, *_] = re.findall(r"^```console.*?\n(.*?)^```", below, re.MULTILINE | re.DOTALL)
    typed = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for line in typed]


def table_row(first_cell: str) -> list[str]:
    """The commands in the right-hand cell of the README's table of four steps."""
    [cell] = re.findall(rf"^\| {re.escape(first_cell)} \| (.*) \|$", README, re.MULTILINE)
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """A user who has cloned the repository and installed it as the README says."""
    home = Path(tempfile.mkdtemp(prefix="test-readme-"))
    made = User(home)
    copy_checkout(made.checkout)
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        made.identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        for path in (home, *home.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    environment, package = table_row("`pip install -r requirements.txt`")
    made.types(f"{environment} && {package}", folder=made.checkout, terminal=False)
    yield made
    shutil.rmtree(home)


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def terminal(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def folder(user: User) -> Path:
    """A folder of the user's own to work in."""
    made = Path(tempfile.mkdtemp(dir=user.home))
    if user.identity:
        os.chown(made, user.identity["user"], user.identity["group"])
    return made


@pytest.fixture
def leading(make_shell: Callable[[str], Shell], postgres15: str) -> dict[str, str]:
    """Variables that lead to a queue and to a PostgreSQL 15 of the test's."""
    variables = make_shell(postgres15).environment
    names = ("AWS_", "DATABASE_URL", "SQS2PG_SOURCE__QUEUE")
    return {name: value for name, value in variables.items() if name.startswith(names)}


def type_all(
    user: User, lines: Sequence[str], folder: Path, terminal: bool, **more: str
) -> dict[str, str]:
    """Type lines one after the other; exports hold for those that follow."""
    exports: list[str] = []
    shown = {}
    for line in lines:
        if line.startswith("export "):
            # The servers are the test's own.
            if not line.startswith(("export DATABASE_URL", "export AWS_REGION")):
                exports.append(line)
            continue
        shown[line] = user.types(line, folder=folder, before=exports, terminal=terminal, **more)
    return shown


def test_with_your_own_queue_and_database(
    user: User, folder: Path, terminal: bool, leading: dict[str, str]
) -> None:
    lines = steps(README, "With your own queue and database:")
    assert "sqs2pg run" in lines
    # The comment beside it says how it ends.
    lines = ["sqs2pg run --drain" if line == "sqs2pg run" else line for line in lines]
    lines.insert(lines.index("sqs2pg run --drain"), "sqs2pg send --count 100")
    shown = type_all(user, lines, folder, terminal, **leading)
    assert "0 failed" in shown["sqs2pg check"]
    assert "received 100: written 98" in shown["sqs2pg run --drain"]
    assert "the books balance" in shown["sqs2pg verify"]


def test_the_quickstart_against_servers_that_stay(
    user: User, folder: Path, terminal: bool, leading: dict[str, str]
) -> None:
    lines = steps(QUICKSTART, "## Against servers that stay")
    lines += steps(QUICKSTART, "## What was quarantined")
    exports = [line for line in lines if line.startswith("export ")]
    shown = type_all(user, lines, folder, terminal, **leading)
    assert "the books balance" in shown["sqs2pg verify"]
    listed = shown["sqs2pg quarantine list"]
    assert re.search(r"^ +2  in all$", listed, re.MULTILINE), listed
    if terminal:
        assert max(map(len, listed.splitlines())) <= 80
    more = ["sqs2pg", "sqs2pg --version", "sqs2pg --help", "sqs2pg config show"]
    type_all(user, [*exports, *more], folder, terminal, **leading)


@contextmanager
def running(user: User, line: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a shell of its own, with its log in `log`; killed at the end if it runs."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f". {user.checkout}/.venv/bin/activate && exec {line}"],
            cwd=folder,
            env=user.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            **user.identity,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(60)


def test_on_embedded_servers_from_two_shells(user: User, folder: Path, terminal: bool) -> None:
    first, second = table_row("run the script")
    assert (first, second.partition(" && ")[0]) == (
        "sqs2pg run --local",
        "source .sqs2pg/local.env",
    )
    with running(user, first, folder) as process:
        wait_until((folder / ".sqs2pg/local.env").exists, during=process)
        shown = user.types(second, folder=folder, terminal=terminal)
        assert "sent 1,000 messages" in shown
        source = second.partition(" && ")[0]

        def written() -> bool:
            books = user.types(f"{source} && sqs2pg verify", folder=folder, terminal=terminal)
            assert "the books balance" in books
            return "written 980 " in books

        wait_until(written, during=process)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    said = (folder / "log").read_text()
    assert code == 0, said
    assert "Traceback" not in said


def test_the_demo_of_an_installed_package(user: User, folder: Path, terminal: bool) -> None:
    shown = user.types("sqs2pg demo --messages 50", folder=folder, terminal=terminal)
    assert "sent 50 = written 49 + quarantined 1: yes" in shown
    if not terminal:
        assert shown.count('"event"') < 5, "the story, and no log of it"
