"""The clients of the soak's queue: a sender that records what it sent, and the consumers."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.queue_server import QueueServer
from benchmarks.soak_state import change_of, is_barred

QUEUE = "soak"
CONSUMERS = 4
START_MAX_S = 60.0
PEOPLE = 500
"""People who log in again and again; their keys are damaged."""
ERASED_EVERY = 50
"""One login in so many is of a person who will be erased: one person per block of messages."""
YEAR = 2001
"""The first block's month is January of that year."""

# Kinds of messages: every so many, from which number on. Each number is of the first that fits.
_KINDS = {
    "malformed": (100, 7),  # no JSON
    "refused": (200, 11),  # the table's CHECK refuses its row
    "slow": (5_000, 321),  # the table's trigger runs out of time, while the soak wants it
    "astray": (5_000, 1_234),  # the trigger reads a missing table, while the soak wants it
}


def kind_of(number: int) -> str:
    """Return what is wrong with the message of a number; "" for a healthy login."""
    for kind, (every, first) in _KINDS.items():
        if number % every == first:
            return kind
    return ""


def name_of(number: int) -> str:
    """Return the mark of a message, which its row carries as the device's type."""
    return f"soak-{number}"


def number_of(name: str) -> int:
    """Return the number of a message with a mark."""
    return int(name.rpartition("-")[2])


class Sender(threading.Thread):
    """Sends the messages evenly over the time given, and records what it sent.

    The messages are of so many blocks, one after the other. Each has a month and a person of its
    own, who will be erased.
    """

    def __init__(
        self,
        queue: QueueServer,
        messages: int,
        seconds: float,
        blocks: int = 1,
        is_odd: Callable[[str], bool] = lambda _: False,
        *,
        state: bool = False,
    ) -> None:
        """`is_odd`: whether the queue delivers the message with a MessageId oddly.

        `state`: the messages go to the state table, too.
        """
        super().__init__(name="sender", daemon=True)
        self._queue = queue
        self._messages = messages
        self._seconds = seconds
        self._blocks = blocks
        self._is_odd = is_odd
        self._state = state
        self.sent = 0
        self.logins: dict[str, float] = {}
        """Marks of the messages that must become rows -> when they were sent, seconds of the epoch.
        """
        self.refused: dict[str, int] = {}
        """MessageIds of those that must be quarantined -> their numbers."""
        self.odd = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Send all messages."""
        began = time.monotonic()
        try:
            for start in range(0, self._messages, 10):
                early = start * self._seconds / self._messages
                time.sleep(max(0.0, began + early - time.monotonic()))
                self._send(range(start, min(start + 10, self._messages)))
        except BaseException as error:
            self.failure = error

    def block_of(self, number: int) -> int:
        """Return the block of a message."""
        return number * self._blocks // self._messages

    def person_of(self, number: int) -> str:
        """Return whose login a message is."""
        if number % ERASED_EVERY == 3:
            return erased_person(self.block_of(number))
        return f"person-{number % PEOPLE}"

    def poison_of(self, number: int) -> str:
        """Return what is wrong with the row of a message, if its body is well."""
        kind = kind_of(number)
        return "" if kind == "malformed" else kind

    def _send(self, numbers: range) -> None:
        bodies = {str(number): self._body(number) for number in numbers}
        entries = [{"Id": name, "MessageBody": body} for name, body in bodies.items()]
        url = f"{self._queue.endpoint_url}/000000000000/{QUEUE}"
        sent_at = time.time()
        answer = self._queue.call("SendMessageBatch", {"QueueUrl": url, "Entries": entries})
        for done in answer["Successful"]:
            odd = self._is_odd(done["MessageId"])
            self.odd += odd
            if odd or self._is_refused(int(done["Id"])):
                self.refused[done["MessageId"]] = int(done["Id"])
            else:
                self.logins[name_of(int(done["Id"]))] = sent_at
        self.sent += len(answer["Successful"])

    def _is_refused(self, number: int) -> bool:
        """Whether a message that is delivered well is refused for good."""
        return kind_of(number) in ("malformed", "refused") or (self._state and is_barred(number))

    def _body(self, number: int) -> str:
        kind = kind_of(number)
        login = {
            "user_id": self.person_of(number),
            "app_version": "2.3.0",
            "device_type": name_of(number),
            # An address of its own: each message has a value for the vault to seal.
            "ip": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            "locale": kind or None,
            "device_id": f"593-47-{number % 10_000:04}",
        }
        if number % 2:
            login["create_date"] = month_of(self.block_of(number))
        if self._state:
            login |= change_of(number, self._messages).members()
        body = json.dumps(login)
        return body[: len(body) // 2] if kind == "malformed" else body


def erased_person(block: int) -> str:
    """Return the person of a block, who will be erased."""
    return f"gone-{block}"


def month_of(block: int) -> str:
    """Return the first day of a block's month, as an ISO date."""
    return f"{YEAR + block // 12}-{block % 12 + 1:02}-01"


class Consumers:
    """The consumer processes, which are killed and started again. Each keeps a log of its own."""

    def __init__(
        self, environment: dict[str, str], folder: Path, logs: Path, say: Callable[[str], None]
    ) -> None:
        """`folder` is where they run, `logs` gets a file for each process that was started."""
        self._environment = environment
        self._folder = folder
        self._logs = logs
        self._say = say
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.glob("consumer-*.log"):
            old.unlink()
        self._started: dict[int, Path] = {}  # pid -> log
        self.processes = [self._start() for _ in range(CONSUMERS)]
        self.failed = 0
        """Processes that ended by themselves."""

    def _start(self) -> subprocess.Popen[bytes]:
        path = self._logs / f"consumer-{len(self._started):04}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sqs2pg", "run"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._started[process.pid] = path
        return process

    def kill(self, rng: random.Random) -> None:
        """Kill one process at random and start another."""
        index = rng.randrange(CONSUMERS)
        victim = self.processes[index]
        if victim.poll() is not None:
            return  # it ended by itself: `tend` counts it
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.processes[index] = self._start()

    def tend(self) -> None:
        """Count processes that ended by themselves, and start others, as a supervisor would."""
        for index, process in enumerate(self.processes):
            if process.poll() is not None:
                self._report(process)
                self.processes[index] = self._start()

    def stop(self) -> None:
        """Ask all processes to stop; one that does not end with exit code 0 has failed."""
        for process in self.processes:
            _await_handler(process)
            process.terminate()
        for process in self.processes:
            if process.wait(timeout=60):
                self._report(process)

    def count(self, event: str) -> int:
        """Return how many lines of all logs tell of an event."""
        return sum(path.read_text(errors="replace").count(event) for path in self._logs.iterdir())

    def _report(self, process: subprocess.Popen[bytes]) -> None:
        self.failed += 1
        log = self._started[process.pid]
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if '"error"' in line or line.startswith("error:")]
        last = (errors or lines or ["it logged nothing"])[-1]
        self._say(f"{log.name} ended by itself with exit code {process.returncode}: {last}")


def _await_handler(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process handles SIGTERM: before that, SIGTERM would just kill it.

    Source: proc(5), /proc/pid/status, SigCgt.
    """
    late = time.monotonic() + START_MAX_S
    while process.poll() is None and time.monotonic() < late:
        status = Path(f"/proc/{process.pid}/status").read_text()
        [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.05)
