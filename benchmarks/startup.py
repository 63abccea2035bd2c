"""`python -m benchmarks.startup [BASE]`: how long a start takes, beside an earlier checkout's.

For each command, wall and CPU time from the start of the process: `--help` and the like to their
end, `run --drain` on an empty queue to its first poll. Of several interleaved runs the medians.
BASE is the folder of another checkout with its own `.venv`; its column shows this checkout's times
as shares of its own. CPU time is the steadier of the two on a machine that does other work.

Linux only: the CPU time of a process that runs is read from its clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from sqs2pg.cli.embedded import servers

from .environment import isolated

HERE = Path(__file__).parent.parent
COMMANDS = ("--version", "run --help", "verify --help")
RUN = "run --drain"
RUNS = 15
POLL_S_MAX = 60.0
_ZEROES = dict.fromkeys(
    (
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ),
    "0",
)
_ARN = "arn:aws:sqs:us-east-1:000000000000:login-queue"


class Cost(NamedTuple):
    """Of one start, in seconds."""

    wall_s: float
    cpu_s: float


class EmptyQueue(ThreadingHTTPServer):
    """An SQS endpoint with one queue that is empty; it takes the time of a process's first poll."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.polled = threading.Event()
        self.pid = 0
        self.first = Cost(0, 0)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self.server_port}"

    def expect(self, pid: int) -> None:
        """Take the time of the next poll as this process's first."""
        self.pid = pid
        self.polled.clear()

    def answer(self, operation: str) -> dict[str, Any]:
        """Return the answer to a call."""
        if operation == "ReceiveMessage":
            if not self.polled.is_set():
                self.first = Cost(time.monotonic(), time.clock_gettime(_cpu_clock(self.pid)))
                self.polled.set()
            return {}
        if operation == "GetQueueUrl":
            return {"QueueUrl": f"{self.url}/000000000000/login-queue"}
        return {"Attributes": {"QueueArn": _ARN} | _ZEROES}

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the processes are killed while they poll."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet: a second one would wait 40 ms for the first one's ACK
    server: EmptyQueue

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        body = json.dumps(self.server.answer(operation)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _cpu_clock(pid: int) -> int:
    """Return the clock of a process's CPU time (CPUCLOCK_SCHED of Linux's posix-timers.h)."""
    return (~pid << 3) | 2


def to_its_end(command: list[str], environment: Mapping[str, str]) -> Cost:
    """Return the cost of a whole command. Raises CalledProcessError if it fails."""
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(time.monotonic() - began, usage.ru_utime + usage.ru_stime)


def to_its_first_poll(
    command: list[str], environment: Mapping[str, str], queue: EmptyQueue
) -> Cost:
    """Return the cost of a start. Raises TimeoutError if it polls nothing."""
    queue.expect(0)
    began = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        queue.pid = process.pid
        polled = queue.polled.wait(POLL_S_MAX)
        process.kill()
    if not polled:
        raise TimeoutError(f"no poll within {POLL_S_MAX:g} s")
    return Cost(queue.first.wall_s - began, queue.first.cpu_s)


def measure(checkouts: list[Path], runs: int) -> dict[tuple[str, Path], list[Cost]]:
    """Return the costs of every command and checkout, taken in turns."""
    costs: dict[tuple[str, Path], list[Cost]] = {}
    with servers(sqs=False) as local, tempfile.TemporaryDirectory() as scratch:
        queue = EmptyQueue()
        environments = {}
        for number, checkout in enumerate(checkouts):
            name = f"startup_{number}"
            with psycopg.connect(local.database_url, autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {name}".encode())
            environment = isolated(queue.url, f"{local.database_url.rpartition('/')[0]}/{name}")
            # Installed packages are compiled; these sources must be, too, and leave no trace.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            environment["PYTHONPYCACHEPREFIX"] = f"{scratch}/{name}"
            environment["SQS2PG_STATUS__BIND"] = "127.0.0.1:0"
            environments[checkout] = environment
            to_its_end(_command(checkout, "migrate"), environment)
        for turn in range(runs + 1):
            for checkout in checkouts if turn % 2 else checkouts[::-1]:
                for words in (*COMMANDS, RUN):
                    command = _command(checkout, *words.split())
                    if words == RUN:
                        cost = to_its_first_poll(command, environments[checkout], queue)
                    else:
                        cost = to_its_end(command, environments[checkout])
                    if turn:  # the first one compiles
                        costs.setdefault((words, checkout), []).append(cost)
    return costs


def _command(checkout: Path, *arguments: str) -> list[str]:
    no_file = ["-c", os.devnull] if arguments[0] in ("run", "migrate") else []
    return [str(checkout / ".venv/bin/sqs2pg"), *arguments, *no_file]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__.split("\n")[0])
    parser.add_argument("base", nargs="?", type=Path, help="folder of an earlier checkout")
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    checkouts = [HERE, *([options.base.resolve()] if options.base else [])]
    costs = measure(checkouts, options.runs)
    beside = " | base: wall, CPU | ours by base" if options.base else ""
    print(f"medians of {options.runs}, ms: wall, CPU{beside}")
    for words in (*COMMANDS, RUN):
        found = [_medians(costs[words, checkout]) for checkout in checkouts]
        cells = [f"{1000 * one.wall_s:6.0f} {1000 * one.cpu_s:6.0f}" for one in found]
        if len(found) > 1:
            ours, base = found
            cells.append(f"{ours.wall_s / base.wall_s:.2f} {ours.cpu_s / base.cpu_s:.2f}")
        print(f"{words:14} {' | '.join(cells)}")


def _medians(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


if __name__ == "__main__":
    main()
