"""One drain, measured. The definition is the same for every contender:

- The queue is filled first, then the contender is started. The clock runs from the first receive
  that was answered to the last delete that was answered, by the queue server's own counters. All
  commit before they delete, so the last commit is inside; the start of the process is not.
- CPU time is user and system time between those two moments, by process tree: the contender,
  PostgreSQL (postmaster and all its children), the queue server.
- Peak memory is the VmHWM of the contender's largest process, from its start.
- Afterwards the rows are counted: a run with a row too many or too few is no run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import processes
from .contenders import Contender, Launch
from .rig import BenchmarkError, Stand

START_S = 60.0
"""Longest wait for a contender's first receive."""
END_S = 30.0
"""Longest wait for a contender to end once the queue is empty."""
_SLICE_S = 1.0  # a wait is cut in slices, to notice a contender that died


@dataclasses.dataclass(frozen=True)
class Run:
    """One drain of one contender. Seconds of CPU are None where they are not known."""

    contender: str
    messages: int
    """Messages deleted between the first receive and the last delete."""
    seconds: float
    pipeline_cpu_s: float | None
    postgres_cpu_s: float | None
    queue_server_cpu_s: float | None
    peak_bytes: int | None
    complete: bool = True
    """False where the time limit came first: then it is the rate up to the limit."""
    body_bytes: int = 0
    rows_before: int = 0

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    def cpu_us(self, process: str) -> float | None:
        """Return microseconds of CPU a message: `pipeline`, `postgres` or `queue_server`."""
        seconds: float | None = getattr(self, f"{process}_cpu_s")
        return None if seconds is None else seconds * 1e6 / self.messages


@dataclasses.dataclass(frozen=True)
class Reading:
    """The clock and everybody's CPU seconds at one moment."""

    at: float
    pipeline: float | None
    postgres: float | None
    queue_server: float | None

    @classmethod
    def take(cls, pid: int, stand: Stand) -> Reading:
        """Read now; a few milliseconds."""
        return cls(
            time.perf_counter(),
            processes.cpu_s(pid),
            processes.cpu_s(stand.postgres_pid) if stand.postgres_pid else None,
            processes.cpu_s(stand.server.pid),
        )


@dataclasses.dataclass(frozen=True)
class Backlog:
    """What a queue is filled with before a drain."""

    messages: int
    malformed_share: float = 0.0
    duplicate_share: float = 0.0
    pad_bytes: int = 0
    latency_ms: int = 0
    people: int = 0
    """Who may log in; 0: a third as many as messages."""
    seed: int = 1
    """Equal ones give the same logins, and the same people."""


@contextlib.contextmanager
def running(launch: Launch, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a contender, its output to a file; it is gone when the block is left."""
    with (folder / "contender.log").open("wb") as log:
        process = subprocess.Popen(
            launch.argv,
            env=launch.environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_words(folder: Path) -> str:
    """Return the last lines the contender printed; the messages are made up, so none is secret."""
    return "\n".join((folder / "contender.log").read_text(errors="replace").splitlines()[-5:])


def wait(
    stand: Stand,
    process: subprocess.Popen[bytes],
    counter: str,
    at_least: int,
    timeout_s: float,
) -> bool:
    """Wait for a counter of the queue server; return whether it got there in time.

    Raises BenchmarkError when the contender ends before that.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        slice_s = max(0.001, min(_SLICE_S, left_s))
        if stand.server.wait(counter, at_least=at_least, timeout_s=slice_s)["reached"]:
            return True
        if left_s <= 0:
            return False
        if process.poll() is not None:
            raise BenchmarkError(
                f"it ended (exit {process.returncode}) before `{counter}` was {at_least:,}:\n"
                + last_words(stand.target.folder)
            )


def fill(stand: Stand, backlog: Backlog) -> tuple[int, int]:
    """Fill the queue and set the faults; return malformed messages and bytes of bodies."""
    filled = stand.server.fill(
        stand.target.queue_url.rsplit("/", 1)[-1],
        backlog.messages,
        malformed_share=backlog.malformed_share,
        pad_bytes=backlog.pad_bytes,
        people=backlog.people or max(1, backlog.messages // 3),
        seed=backlog.seed,
    )
    if backlog.latency_ms:
        stand.server.set_faults("*", latency_ms=backlog.latency_ms)
    if backlog.duplicate_share:
        stand.server.set_faults(duplicate_share=backlog.duplicate_share)
    return filled["malformed"], filled["body_bytes"]


def drain(stand: Stand, contender: Contender, backlog: Backlog, limit_s: float) -> Run:
    """Fill the queue, let the contender drain it, and return what it took.

    Raises BenchmarkError where it fails or the rows are not those that were sent.
    """
    malformed, body_bytes = fill(stand, backlog)
    start: dict[str, Any] = dict(stand.server.stats())
    with running(contender.launch(stand.target), stand.target.folder) as process:
        if not wait(stand, process, "received", start["received"] + 1, START_S):
            raise BenchmarkError(f"no receive within {START_S:.0f} s")
        before = Reading.take(process.pid, stand)
        goal = start["deleted"] + backlog.messages
        complete = wait(stand, process, "deleted", goal, limit_s)
        after = Reading.take(process.pid, stand)
        peak = processes.peak_bytes(process.pid)
        deleted = min(stand.server.stats()["deleted"], goal) - start["deleted"]
        if complete and contender.ends and not backlog.duplicate_share:
            try:
                code = process.wait(END_S)
            except subprocess.TimeoutExpired:
                raise BenchmarkError("the queue is empty, and it did not end") from None
            if code:
                raise BenchmarkError(f"exit {code}\n{last_words(stand.target.folder)}")
    if not deleted:
        raise BenchmarkError(f"nothing was deleted within {limit_s:.0f} s")
    run = Run(
        contender=contender.name,
        messages=deleted,
        seconds=round(after.at - before.at, 4),
        pipeline_cpu_s=_between(before.pipeline, after.pipeline),
        postgres_cpu_s=_between(before.postgres, after.postgres),
        queue_server_cpu_s=_between(before.queue_server, after.queue_server),
        peak_bytes=peak,
        complete=complete,
        body_bytes=body_bytes,
        rows_before=stand.rows,
    )
    check_rows(stand, backlog, malformed, run)
    return run


def _between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else round(after - before, 3)


def check_rows(stand: Stand, backlog: Backlog, malformed: int, run: Run) -> None:
    """Hold the target against what was sent. Raises BenchmarkError."""
    [(count,)] = stand.query("SELECT count(*) FROM user_logins")
    rows, good = count - stand.rows, backlog.messages - malformed
    exact = run.complete and not backlog.duplicate_share
    # With deliveries twice, some of the deletes counted were second ones of the same message.
    least = good if exact else run.messages - malformed - 2 * backlog.duplicate_share * good
    if not least <= rows <= good:
        raise BenchmarkError(
            f"{good:,} good messages were sent, {run.messages:,} deleted, {rows:,} rows are there"
        )
    stand.rows = count
