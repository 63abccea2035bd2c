"""The Dockerfile's own instructions, without an engine: commands, health check and entrypoint.

The build stage's commands run in a clean folder, by the image's user, on the files that COPY names,
which that user can only read. What they made is then run as a container would run it: process 1
of a PID namespace, on a read-only root, without capabilities. Where we are not root, and so can
make neither that user nor a namespace, everything runs as ourselves.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import yaml

import sqs2pg
from sqs2pg.cli.embedded.child_process import reserve_port
from sqs2pg.cli.embedded.run_folder import Account, readable
from sqs2pg.settings import load
from tests.shell import Shell
from tests.system.interpreter import copy_python
from tests.waiting import wait_until

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
BUILD_S_MAX, WAIT_S = 400, 60
SENT = 3_000
# As in a container: a read-only root, PID 1, no capabilities and no way to get one.
CONTAINED = """mount -o remount,ro,bind / && exec setpriv --reuid {user} --regid {group} \
--clear-groups --no-new-privs --bounding-set=-all "$@" """


class Stage(NamedTuple):
    """One stage of the Dockerfile: (instruction, arguments), in order."""

    instructions: list[tuple[str, str]]

    def of(self, name: str) -> list[str]:
        """Return the arguments of every instruction of one kind."""
        return [arguments for word, arguments in self.instructions if word == name]

    @property
    def variables(self) -> dict[str, str]:
        """What ARG and ENV set, each in terms of those before."""
        found: dict[str, str] = {}
        for word, arguments in self.instructions:
            if word in ("ARG", "ENV"):
                for pair in shlex.split(arguments):
                    name, _, value = pair.partition("=")
                    found[name] = re.sub(
                        r"\$\{?(\w+)\}?", lambda m: found.get(m[1], f"${m[1]}"), value
                    )
        return found


class Image(NamedTuple):
    """What the build stage made, below a folder that stands for the image's root."""

    root: Path
    account: Account | None
    """The image's user; None for ourselves."""
    final: Stage
    build_output: str

    @property
    def identity(self) -> dict[str, Any]:
        if self.account is None:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}

    @property
    def environment(self) -> dict[str, str]:
        """The final stage's, its paths below our root."""
        path = self.final.variables["PATH"].replace("$PATH", "/usr/bin:/bin")
        return {**library_path(self.root), **self.final.variables, "PATH": self.placed(path)}

    def placed(self, text: str) -> str:
        """Return a text of the Dockerfile with its paths below our root."""
        return re.sub(r"/(opt|var/lib)/sqs2pg", rf"{self.root}/\1/sqs2pg", text)


def stages() -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", text)
    found = re.findall(r"^([A-Z]+) (.+?)$", joined, flags=re.MULTILINE)
    made: list[Stage] = []
    for word, arguments in found:
        if word == "FROM":
            made.append(Stage([]))
        elif made:
            made[-1].instructions.append((word, arguments))
    return made


def library_path(root: Path) -> dict[str, str]:
    """Where a copied interpreter finds its library; nothing where it was not copied."""
    copied = root / "python"
    return {"LD_LIBRARY_PATH": str(copied / "lib")} if copied.is_dir() else {}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Run the build stage's commands; the image's user owns its folders for that time alone."""
    build, final = stages()
    uid, _, gid = final.of("USER")[0].partition(":")
    account = Account("sqs2pg", int(uid), int(gid)) if os.geteuid() == 0 else None
    root = Path(tempfile.mkdtemp(prefix="test-image-"))
    root.chmod(0o755)
    python = Path(sys.executable).resolve()
    if account is not None and not readable(python, account):
        python = copy_python(python, root / "python")
    stage = root / "stage"  # the base image's Python, with its pip
    subprocess.run([python, "-m", "venv", stage], check=True, env=os.environ | library_path(root))
    image = Image(root, account, final, "")
    work, target, home = root / "build", root / "opt", root / "tmp"
    for folder in (work, target, home):
        folder.mkdir()
    if account is not None:
        owner = f"{account.uid}:{account.gid}"
        subprocess.run(["chown", "-R", owner, stage, work, target, home], check=True)
    variables = {name: one for name, one in os.environ.items() if name.startswith("PIP_")}
    variables |= library_path(root) | build.variables
    variables |= {"PATH": f"{stage}/bin:/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home)}
    output = ""
    try:
        for word, arguments in build.instructions:
            if word == "COPY":
                copy(arguments, work)
            elif word == "RUN":
                done = subprocess.run(
                    ["/bin/sh", "-c", image.placed(arguments)],
                    cwd=work,
                    env=variables,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=BUILD_S_MAX,
                    check=False,
                    **image.identity,
                )
                output += done.stdout
                assert done.returncode == 0, output
        yield image._replace(build_output=output)
    finally:
        subprocess.run(["chmod", "-R", "u+w", work], check=True)
        shutil.rmtree(root)


def copy(arguments: str, work: Path) -> None:
    """COPY: what the user of the commands can read and not change."""
    *sources, into = arguments.split()
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so")
    for name in sources:
        source = ROOT / name
        where = work / into
        if source.is_dir():
            shutil.copytree(source, where, ignore=ignored)
        else:
            assert into.endswith("/"), "a file is copied into a folder"
            where.mkdir(parents=True, exist_ok=True)
            where = where / source.name
            shutil.copy(source, where)
        subprocess.run(["chmod", "-R", "u=rX,go=rX", where], check=True)


def test_the_commands_build_the_program_from_sources_they_cannot_change(image: Image) -> None:
    assert image.build_output.splitlines()[-1] == f"sqs2pg {sqs2pg.__version__}"
    files = {path for path in (image.root / "build").rglob("*") if path.is_file()}
    [wheel] = [path for path in files if path.parent.name == "dist"]
    assert "none-any" not in wheel.name, "the native extension is in it"
    left = {path.relative_to(image.root / "build") for path in files - {wheel}}
    made = {path for path in left if path.suffix != ".pyc" and not (ROOT / path).is_file()}
    assert made == set(), "no file is written beside the sources"
    programs = {path.name for path in (image.root / "opt/sqs2pg/bin").iterdir()}
    assert "sqs2pg" in programs
    assert not programs & {"pip", "pip3"}


@pytest.fixture
def shell(make_shell: Any, database: str) -> Shell:
    """The operator's shell: it makes the keys, the tables, and what comes over the queue."""
    shell: Shell = make_shell(database)
    shell("migrate")
    shell("send", "--count", str(SENT), "--seed", "5")
    return shell


@contextmanager
def container(image: Image, shell: Shell, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run ENTRYPOINT and CMD; in a namespace where we may make one. Yield the program's process."""
    folder = image.root / "var/lib/sqs2pg"
    if not folder.is_dir():
        # The last command of the final stage's RUN; those before it make the user.
        install = image.final.of("RUN")[0].split("&& ")[-1]
        assert install.startswith("install --directory ")
        if image.account is None:
            install = re.sub(r"--(owner|group) \d+", "", install)
        subprocess.run(["/bin/sh", "-c", image.placed(install)], check=True)
        assert folder.stat().st_mode & 0o777 == 0o700
    keys = folder / "sqs2pg.keys"
    shutil.copy(shell.environment["SQS2PG_KEYS__FILE"], keys)
    keys.chmod(0o600)
    command = yaml.safe_load(image.final.of("ENTRYPOINT")[0])
    command += yaml.safe_load(image.final.of("CMD")[0])
    identity = image.identity
    if image.account is not None:
        os.chown(keys, image.account.uid, image.account.gid)
        inside = CONTAINED.format(user=image.account.uid, group=image.account.gid)
        unshare = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]
        command = [*unshare, "/bin/sh", "-c", inside, "sh", *command]
        identity = {}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=outside(shell)
        | image.environment
        | {"SQS2PG_KEYS__FILE": str(keys), "SQS2PG_STATUS__BIND": f"127.0.0.1:{port}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **identity,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def outside(shell: Shell) -> dict[str, str]:
    """What `docker run -e` would give: where queue and database are."""
    names = ("AWS_", "SQS2PG_", "DATABASE_URL")
    return {name: one for name, one in shell.environment.items() if name.startswith(names)}


def health(image: Image, port: int) -> int:
    """Return the exit code of the health check's command."""
    [arguments] = image.final.of("HEALTHCHECK")
    command = yaml.safe_load(arguments.partition("CMD ")[2])
    command[-1] = command[-1].replace(f":{own_port()}/", f":{port}/")
    assert f":{port}/livez" in command[-1]
    return subprocess.run(
        command,
        env=image.environment,
        executable=shutil.which(command[0], path=image.environment["PATH"]),
        stderr=subprocess.DEVNULL,
        timeout=WAIT_S,
        check=False,
        **image.identity,
    ).returncode


def own_port() -> str:
    return load(environ={}, discover=False).status.address.rpartition(":")[2]


def first_process(process: subprocess.Popen[str]) -> int:
    """The program itself, as seen from outside its namespace."""
    if os.geteuid() != 0:
        return process.pid
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            return int(children[0])
    raise AssertionError("unshare made no process")


def test_the_entrypoint_is_healthy_and_stops_on_sigterm_as_process_one(
    image: Image, shell: Shell, database: str, sqs_client: Any, queue_url: str
) -> None:
    assert image.final.of("STOPSIGNAL") == ["SIGTERM"]
    reserved = reserve_port()
    port = reserved.getsockname()[1]
    assert health(image, port) != 0
    with (
        reserved,
        container(image, shell, port) as process,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        wait_until(
            lambda: connection.execute("SELECT 1 FROM user_logins LIMIT 1").fetchone(),
            during=process,
        )
        assert health(image, port) == 0
        program = first_process(process)
        if image.account is not None:
            status = Path(f"/proc/{program}/status").read_text()
            found = dict(re.findall(r"^(\w+):\t(.*)$", status, flags=re.MULTILINE))
            assert found["NSpid"].split()[-1] == "1"
            assert found["Uid"].split() == [str(image.account.uid)] * 4
            assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
        os.kill(program, signal.SIGTERM)
        output, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, output
        counts = sqs_client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
        held = counts["Attributes"]["ApproximateNumberOfMessagesNotVisible"]
        assert held == "0", "the messages held are settled or released"
    assert health(image, port) != 0
    report = shell("verify", "--json").last
    assert report["ok"] is True
    rest = int(counts["Attributes"]["ApproximateNumberOfMessages"])
    assert report["written"] + report["quarantined"] + rest == SENT
