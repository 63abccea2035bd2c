"""The clients of the soak's queue: a sender that records what it sent, and the consumers."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.queue_server import QueueServer

QUEUE = "soak"
CONSUMERS = 4
MALFORMED_EVERY = 100
START_MAX_S = 60.0


class Sender(threading.Thread):
    """Sends the messages evenly over the time given, and records what it sent."""

    def __init__(self, queue: QueueServer, messages: int, seconds: float) -> None:
        super().__init__(name="sender", daemon=True)
        self._queue = queue
        self._messages = messages
        self._seconds = seconds
        self.sent = 0
        self.logins: set[str] = set()
        self.malformed: set[str] = set()
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

    def _send(self, numbers: range) -> None:
        bodies = {str(number): self._body(number) for number in numbers}
        entries = [{"Id": name, "MessageBody": body} for name, body in bodies.items()]
        url = f"{self._queue.endpoint_url}/000000000000/{QUEUE}"
        answer = self._queue.call("SendMessageBatch", {"QueueUrl": url, "Entries": entries})
        for done in answer["Successful"]:
            if int(done["Id"]) % MALFORMED_EVERY == 7:
                self.malformed.add(done["MessageId"])
            else:
                self.logins.add(f"soak-{done['Id']}")
        self.sent += len(answer["Successful"])

    @staticmethod
    def _body(number: int) -> str:
        if number % MALFORMED_EVERY == 7:
            return '{"user_id": "soak-' + str(number)
        login = {"user_id": f"soak-{number}", "app_version": "2.3.0", "device_type": "android",
                 "ip": f"10.{number % 7}.{number % 251}.{number % 13}", "locale": None,
                 "device_id": f"593-47-{number % 10_000:04}"}  # fmt: skip
        return json.dumps(login)


class Consumers:
    """The consumer processes, which are killed and started again."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._log = (folder / "consumers.log").open("ab")
        self.processes = [self._start() for _ in range(CONSUMERS)]
        self.failed = 0

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "sqs2pg", "run"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )

    def kill(self, rng: random.Random) -> None:
        """Kill one process at random and start another."""
        index = rng.randrange(CONSUMERS)
        victim = self.processes[index]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.processes[index] = self._start()

    def tend(self) -> None:
        """Restart processes that ended by themselves, as a supervisor would."""
        for index, process in enumerate(self.processes):
            if process.poll() is not None:
                self.failed += 1
                self.processes[index] = self._start()

    def stop(self) -> list[int]:
        """Ask all processes to stop; return their exit codes."""
        for process in self.processes:
            _await_handler(process)
            process.terminate()
        codes = [process.wait(timeout=60) for process in self.processes]
        self._log.close()
        return codes


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
