"""A long hang of PostgreSQL under load, and SIGTERM during a second one.

    make hang HANG_SECONDS=285

One `sqs2pg run` with two writers consumes a steady load. PostgreSQL hangs (SIGSTOP: the kernel
takes connections, no process answers) for the time given, and goes on. When all is written, it
hangs again, and the consumer is asked to stop.

Prints one line of JSON. The exit code is 0 only if
- the consumer has as many connections to PostgreSQL afterwards as before;
- `/livez` never answered 503, and `/readyz` turned within 12 s;
- the process ended within `shutdown_grace_s` + 1 of the SIGTERM, with exit code 0;
- every message was written once: the rest by a second consumer, with `--drain`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from benchmarks.environment import isolated
from benchmarks.pictures import free_port
from benchmarks.queue_server import QueueServer
from sqs2pg.cli.embedded import Postgres, servers
from tests.faults.hang import go_on, hung, stop_all

QUEUE = "hang"
RATE_PER_S = 500
GRACE_S = 25
READY_TURNS_S = 12.0
WAIT_S = 300.0
SETTLE_S = 15.0
"""How long connections are watched: a reading of the database has one more, for a moment."""


@dataclasses.dataclass
class Result:
    """What was seen; times in seconds."""

    hang_s: float = 0.0
    connections_before: int = 0
    connections_after: int = 0
    livez_503: int = 0
    livez_asked: int = 0
    readyz_turned_s: float = -1.0
    readyz_back_s: float = -1.0
    """After the end of the hang."""
    exit_s: float = -1.0
    exit_code: int = -1
    sent: int = 0
    lost: int = 0
    doubled: int = 0

    @property
    def well(self) -> bool:
        """Whether all is as it must be."""
        return (
            self.connections_after == self.connections_before
            and not self.livez_503
            and 0 <= self.readyz_turned_s <= READY_TURNS_S
            and 0 <= self.exit_s <= GRACE_S + 1
            and self.exit_code == 0
            and not (self.lost or self.doubled)
        )


class Consumer:
    """The process under test, and what it says of itself."""

    def __init__(self, environment: dict[str, str], folder: Path, port: int, database: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._database = database
        self.log = folder / "consumer.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sqs2pg", "run"],
                cwd=folder,
                env=environment | {"SQS2PG_STATUS__BIND": f"127.0.0.1:{port}"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def answer(self, path: str) -> int:
        """Return the status of a request; 0 if there is no answer."""
        try:
            with urllib.request.urlopen(f"{self._url}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return 0

    def connections(self) -> int:
        """Return how many sockets of the process lead to PostgreSQL, half-open ones included."""
        inodes = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").rstrip("]"))
        lines = Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]
        ends = [line.split() for line in lines]
        return sum(end[9] in inodes and end[2].endswith(f":{self._database:04X}") for end in ends)

    def fewest_connections(self) -> int:
        """Return the fewest connections within a while."""
        return min(self.connections() for _ in _every(0.5, SETTLE_S))


def _every(step_s: float, seconds: float) -> Iterator[float]:
    """Yield the time since the start, again and again."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        yield passed
        time.sleep(step_s)


def _until(holds: Callable[[], bool], what: str) -> None:
    for _ in _every(0.2, WAIT_S):
        if holds():
            return
    raise TimeoutError(f"not so within {WAIT_S:.0f} s: {what}")


def say(text: str) -> None:
    """Print progress to stderr; stdout is for the result."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def hang(seconds: float) -> Result:
    """Run it; return what was seen."""
    result = Result(hang_s=seconds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sqs2pg-hang-")))
        local = stack.enter_context(servers(sqs=False))
        assert local.postgres is not None
        queue = stack.enter_context(QueueServer())
        queue.call("CreateQueue", {"QueueName": QUEUE})
        environment = isolated(f"http://127.0.0.1:{queue.port}", local.database_url) | {
            "SQS2PG_SOURCE__QUEUE": QUEUE,
            "SQS2PG_SINK__CONNECTIONS": "2",
            "SQS2PG_KEYS__PROVIDER": "development",
            "SQS2PG_SHUTDOWN_GRACE_S": str(GRACE_S),
        }
        migrate = [sys.executable, "-m", "sqs2pg", "migrate"]
        subprocess.run(migrate, cwd=folder, env=environment, check=True, capture_output=True)
        database = urlsplit(local.database_url).port or 5432
        consumer = Consumer(environment, folder, free_port(), database)
        stack.callback(consumer.process.kill)
        _watch_hang(local.postgres, queue, consumer, result)
        _watch_exit(local.postgres, queue, consumer, result)
        drain = [sys.executable, "-m", "sqs2pg", "run", "--drain"]
        subprocess.run(drain, cwd=folder, env=environment, check=True, capture_output=True)
        with psycopg.connect(local.database_url) as connection:
            [(rows, ledger)] = connection.execute(
                "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM sqs2pg.delivery)"
            ).fetchall()
        result.sent = queue.stats()["sent"]
        result.lost, result.doubled = result.sent - ledger, rows - ledger
    return result


def _watch_hang(server: Postgres, queue: QueueServer, consumer: Consumer, result: Result) -> None:
    def load(seconds: float) -> None:
        queue.fill(QUEUE, int(RATE_PER_S * seconds), rate_per_s=RATE_PER_S, background=True)

    def livez() -> None:
        result.livez_asked += 1
        result.livez_503 += consumer.answer("/livez") == 503

    _until(lambda: consumer.answer("/readyz") == 200, "ready")
    load(SETTLE_S + result.hang_s + 60)
    queue.wait("deleted", at_least=1_000, timeout_s=60)
    result.connections_before = consumer.fewest_connections()
    say(f"{result.connections_before} connections; PostgreSQL hangs for {result.hang_s:.0f} s")
    with hung(server):
        for passed in _every(0.5, result.hang_s):
            livez()
            if result.readyz_turned_s < 0 and consumer.answer("/readyz") == 503:
                result.readyz_turned_s = round(passed, 1)
                say(f"/readyz turned after {result.readyz_turned_s} s")
    say(f"it goes on; {consumer.connections()} connections")
    began = time.monotonic()

    def written() -> bool:
        livez()
        if result.readyz_back_s < 0 and consumer.answer("/readyz") == 200:
            result.readyz_back_s = round(time.monotonic() - began, 1)
        stats = queue.stats()
        return not (stats["visible"] or stats["in_flight"] or stats["filling"])

    _until(written, "everything written")
    say(f"all is written after {time.monotonic() - began:.0f} s")
    result.connections_after = consumer.fewest_connections()


def _watch_exit(server: Postgres, queue: QueueServer, consumer: Consumer, result: Result) -> None:
    before = queue.stats()["received"]
    stop_all(server)
    queue.fill(QUEUE, 5_000)
    queue.wait("received", at_least=before + 1_000, timeout_s=60)
    say(f"{result.connections_after} connections; it hangs again; SIGTERM")
    asked = time.monotonic()
    consumer.process.send_signal(signal.SIGTERM)
    result.exit_code = consumer.process.wait(timeout=10 * GRACE_S)
    result.exit_s = round(time.monotonic() - asked, 1)
    go_on(server)


def main() -> int:
    """Read the options, run, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=285.0)
    result = hang(parser.parse_args().seconds)
    print(json.dumps(dataclasses.asdict(result)))
    return 0 if result.well else 1


if __name__ == "__main__":
    sys.exit(main())
