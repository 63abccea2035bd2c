"""The image, built from our Dockerfile by buildah and run with a read-only root.

There is no registry of images here, so the base is a Debian made by debootstrap. What runs is read
from the built image's own configuration: user, environment, entrypoint, health check and signal.
A container is process 1 of a PID namespace below the image's files, with no capabilities; it shares
our network, where the real servers are. Root is needed, for debootstrap and the namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

import sqs2pg
from sqs2pg.cli.embedded.child_process import reserve_port
from tests.shell import bare_environment
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
# The base is made once, in minutes.
pytestmark = [pytest.mark.image, pytest.mark.timeout(1_800)]

STORE = ROOT / "build" / "image"
BASE, NAME = "localhost/sqs2pg-base", "localhost/sqs2pg-test"
BUILD_S_MAX, RUN_S_MAX = 900, 120
SENT = 2_000
# The Dockerfile's venv needs Debian's split-off packages; the C extension needs Python's headers.
PACKAGES = "python3,python3-venv,python3-pip,python3-dev,ca-certificates"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
CONTAINED = """set -e
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"
mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mount -t tmpfs tmpfs "$1/tmp"
mount --bind "$2" "$1/var/lib/sqs2pg"
user=$3 folder=$4 root=$1; shift 4
exec chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
    --no-new-privs --bounding-set=-all sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
"""


def command(*words: str | Path, **options: Any) -> str:
    """Run a command to its end; return what it printed, or fail with that."""
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=BUILD_S_MAX,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def buildah(*words: str | Path) -> str:
    """Run buildah on a store of our own; vfs needs nothing of the kernel."""
    store = ("--root", STORE / "store", "--runroot", STORE / "run", "--storage-driver", "vfs")
    return command("buildah", *store, *words)


@dataclass
class Image:
    """The built image: its files, below a folder, and what its configuration says."""

    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.config["Env"])


def make_base() -> None:
    """Make the base image, once for each store; it takes minutes."""
    if BASE in buildah("images", "--format", "{{.Name}}").split():
        return
    with tempfile.TemporaryDirectory(prefix="test-image-base-") as folder:
        system, context = Path(folder, "system"), Path(folder, "context")
        context.mkdir()
        command("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", system)
        (system / "usr/bin/python").symlink_to("python3")
        # pip is to install into the base as into the official Python image.
        for mark in (system / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
            mark.unlink()
        command("tar", "-C", system, "-cf", context / "base.tar", ".")
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        buildah("bud", "--isolation", "chroot", "--format", "docker", "-t", BASE, context)


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Build the image from the Dockerfile, unchanged."""
    assert os.geteuid() == 0, "make test-image needs root"
    STORE.mkdir(parents=True, exist_ok=True)
    make_base()
    trust = (f"--volume={CERTIFICATES}:{CERTIFICATES}:ro",) if Path(CERTIFICATES).exists() else ()
    buildah(
        *("bud", "--isolation", "chroot", "--network", "host", "--format", "docker", *trust),
        *("--build-arg", f"PYTHON_IMAGE={BASE}"),
        *("--build-arg", f"VERSION={sqs2pg.__version__}"),
        *("-t", NAME, ROOT),
    )
    config = json.loads(buildah("inspect", "--type", "image", NAME))["Docker"]["config"]
    container = buildah("from", "--pull-never", NAME).split()[-1]
    try:
        yield Image(Path(buildah("mount", container).split()[-1]), config)
    finally:
        buildah("rm", container)
        buildah("rmi", NAME)


@dataclass
class Engine:
    """Runs the image's containers, which share one volume and the servers of a test."""

    image: Image
    volume: Path
    outside: Mapping[str, str]
    """What `docker run -e` would give: where queue and database are."""

    def start(self, *arguments: str, entrypoint: list[str] | None = None) -> subprocess.Popen[str]:
        """Start a container with these arguments in place of CMD."""
        config = self.image.config
        words = [*(entrypoint or config["Entrypoint"]), *arguments]
        unshare = ["unshare", "--pid", "--fork", "--mount", "--kill-child"]
        place = [str(self.image.root), str(self.volume), config["User"], config["WorkingDir"]]
        return subprocess.Popen(
            [*unshare, "/bin/sh", "-c", CONTAINED, "sh", *place, *words],
            env={"PATH": os.environ["PATH"]} | self.image.environment | dict(self.outside),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, entrypoint: list[str] | None = None) -> tuple[int, str]:
        """Run a container to its end; return its exit code and what it printed."""
        process = self.start(*arguments, entrypoint=entrypoint)
        try:
            output, _ = process.communicate(timeout=RUN_S_MAX)
        finally:
            process.kill()
        return process.returncode, output

    def __call__(self, *arguments: str) -> str:
        """Run a container that must succeed; return what it printed."""
        code, output = self.run(*arguments)
        assert code == 0, output
        return output

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start a container, and kill it at the end if it still runs."""
        process = self.start(*arguments)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def health(self, port: int) -> int:
        """Return the exit code of the image's own health check."""
        kind, *check = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        check[-1] = check[-1].replace(":9465/", f":{port}/")
        assert f":{port}/livez" in check[-1]
        return self.run(entrypoint=check)[0]


@pytest.fixture
def engine(
    image: Image, database: str, aws_environment: dict[str, str], queue_url: str
) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="test-image-") as folder:
        volume = Path(folder, "volume")
        # As an engine does with a new named volume: owner and mode of the folder in the image.
        shutil.copytree(image.root / "var/lib/sqs2pg", volume)
        shutil.copystat(image.root / "var/lib/sqs2pg", volume)
        owner = (image.root / "var/lib/sqs2pg").stat()
        os.chown(volume, owner.st_uid, owner.st_gid)
        known = bare_environment()
        own = {name: one for name, one in aws_environment.items() if name not in known}
        yield Engine(
            image,
            volume,
            own
            | {
                "DATABASE_URL": database,
                "SQS2PG_SOURCE__QUEUE": queue_url.rsplit("/", 1)[-1],
                "SQS2PG_KEYS__FILE": "/var/lib/sqs2pg/sqs2pg.keys",
            },
        )


def test_the_configuration_of_the_image(image: Image) -> None:
    config = image.config
    user, _, group = config["User"].partition(":")
    assert (user, group) == ("10001", "10001"), "numbers, which runAsNonRoot can check"
    assert config["Labels"]["org.opencontainers.image.version"] == sqs2pg.__version__
    assert config["StopSignal"] == "SIGTERM"
    assert (config["Entrypoint"], config["Cmd"]) == (["sqs2pg"], ["run"])
    programs = {one.name for one in (image.root / "opt/sqs2pg/bin").iterdir()}
    assert "sqs2pg" in programs
    assert not programs & {"pip", "pip3"}


def test_the_image_moves_messages_as_its_user_on_a_read_only_root(engine: Engine) -> None:
    who, output = engine.run("-c", "id -u; touch /made", entrypoint=["sh"])
    assert who != 0
    assert output.splitlines()[0] == "10001"
    assert "Read-only file system" in output
    assert "native extension" in engine("--version", "-v")
    engine("keys", "init")
    engine("migrate")
    engine("send", "--count", str(SENT), "--seed", "7")
    engine("run", "--drain")
    report = json.loads(engine("verify", "--json").strip().splitlines()[-1])
    assert report["ok"] is True
    assert report["written"] + report["quarantined"] == SENT
    assert report["written"] > SENT // 2


def test_its_health_check_turns_and_it_stops_on_sigterm_as_process_one(
    engine: Engine, database: str, sqs_client: Any, queue_url: str
) -> None:
    for words in (["keys", "init"], ["migrate"], ["send", "--count", str(SENT)]):
        engine(*words)
    with reserve_port() as reserved, psycopg.connect(database, autocommit=True) as connection:
        port = reserved.getsockname()[1]
        assert engine.health(port) != 0
        engine.outside = {**engine.outside, "SQS2PG_STATUS__BIND": f"127.0.0.1:{port}"}
        with engine.running("run") as process:
            wait_until(
                lambda: connection.execute("SELECT 1 FROM user_logins LIMIT 1").fetchone(),
                during=process,
            )
            assert engine.health(port) == 0
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            [program] = map(int, children)
            status = Path(f"/proc/{program}/status").read_text()
            found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert found["NSpid"].split()[-1] == "1"
            assert found["Uid"].split() == ["10001"] * 4
            assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
            os.kill(program, signal.SIGTERM)
            output, _ = process.communicate(timeout=RUN_S_MAX)
            assert process.returncode == 0, output
        assert engine.health(port) != 0
    held = sqs_client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
    assert held["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "0"
    assert json.loads(engine("verify", "--json").strip().splitlines()[-1])["ok"] is True
