"""Measures one drain. The definition is the same for every contender:

- The queue is filled first, then the contender starts. The clock runs from the first answered
  receive until 99% of the messages are deleted, by the queue server's counters. All contenders
  commit before they delete; the start of the process is not included. Not until the last delete:
  some delete their last few messages on a timer of a second.
- CPU time is the user and system time between those two moments, per process tree: the contender,
  PostgreSQL (postmaster and all its children), the queue server.
- Peak memory is the VmHWM of the contender's largest process, since its start.
- Afterwards the rows are counted: a run with one row too many or too few is not valid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
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

SHARE = 0.99
"""Part of the messages whose deletion stops the clock."""
START_S = 60.0
"""Longest wait for a contender's first receive."""
END_S = 30.0
"""Longest wait for a contender to end once the queue is empty."""
_SLICE_S = 1.0  # waits are split into slices, to notice a contender that has died


@dataclasses.dataclass(frozen=True)
class Run:
    """One drain of one contender. CPU seconds are None if they are not known."""

    contender: str
    messages: int
    """Messages deleted while the clock ran."""
    seconds: float
    pipeline_cpu_s: float | None
    postgres_cpu_s: float | None
    queue_server_cpu_s: float | None
    peak_bytes: int | None
    complete: bool = True
    """False if the time limit was reached: the rate is then that up to the limit."""
    body_bytes: int = 0
    rows_before: int = 0

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds

    def cpu_us(self, process: str) -> float | None:
        """Return the CPU, µs per message, of `pipeline`, `postgres` or `queue_server`."""
        seconds: float | None = getattr(self, f"{process}_cpu_s")
        return None if seconds is None else seconds * 1e6 / self.messages


@dataclasses.dataclass(frozen=True)
class CpuReading:
    """The time, and the CPU seconds of all processes, at one moment."""

    at: float
    pipeline: float | None
    postgres: float | None
    queue_server: float | None

    @classmethod
    def take(cls, pid: int, stand: Stand) -> CpuReading:
        """Read all clocks now; takes a few milliseconds."""
        return cls(
            time.perf_counter(),
            processes.cpu_s(pid),
            processes.cpu_s(stand.postgres_pid) if stand.postgres_pid else None,
            processes.cpu_s(stand.server.pid),
        )


@dataclasses.dataclass(frozen=True)
class Backlog:
    """The messages that a queue is filled with before a drain."""

    messages: int
    malformed_share: float = 0.0
    duplicate_share: float = 0.0
    pad_bytes: int = 0
    latency_ms: int = 0
    people: int = 0
    """Number of people who log in; 0: a third of the number of messages."""
    seed: int = 1
    """The same seed gives the same logins and people."""
    template: str = ""
    """What each login is put into (`QueueServer.fill`); empty: nothing."""
    table: str = "user_logins"
    rows: int = 1
    """Rows of one message."""
    counted: bool = True
    """Whether the table's rows say how many messages there were: not where it has one per key."""


@contextlib.contextmanager
def running(launch: Launch, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a contender with its output in a file; it has ended when the block is left."""
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
    """Return the last lines the contender printed; they quote only generated messages."""
    return "\n".join((folder / "contender.log").read_text(errors="replace").splitlines()[-5:])


def wait(
    stand: Stand,
    process: subprocess.Popen[bytes],
    counter: str,
    at_least: int,
    timeout_s: float,
) -> bool:
    """Wait for a counter of the queue server; return whether it reached `at_least` in time.

    Raises BenchmarkError if the contender ends first.
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
                f"ended with exit {process.returncode} before `{counter}` was {at_least:,}:\n"
                + last_words(stand.target.folder)
            )


def fill(stand: Stand, backlog: Backlog) -> tuple[int, int]:
    """Fill the queue and set the faults; return counts of malformed messages and body bytes."""
    filled = stand.server.fill(
        stand.target.queue_url.rsplit("/", 1)[-1],
        backlog.messages,
        malformed_share=backlog.malformed_share,
        pad_bytes=backlog.pad_bytes,
        people=backlog.people or max(1, backlog.messages // 3),
        seed=backlog.seed,
        **({"template": backlog.template} if backlog.template else {}),
    )
    if backlog.latency_ms:
        stand.server.set_faults("*", latency_ms=backlog.latency_ms)
    if backlog.duplicate_share:
        stand.server.set_faults(duplicate_share=backlog.duplicate_share)
    return filled["malformed"], filled["body_bytes"]


def drain(stand: Stand, contender: Contender, backlog: Backlog, limit_s: float) -> Run:
    """Fill the queue, let the contender drain it, and return the measured run.

    Raises BenchmarkError if the contender fails or the rows do not match the messages sent.
    """
    malformed, body_bytes = fill(stand, backlog)
    start: dict[str, Any] = dict(stand.server.stats())
    with running(contender.launch(stand.target), stand.target.folder) as process:
        if not wait(stand, process, "received", start["received"] + 1, START_S):
            raise BenchmarkError(f"no receive within {START_S:.0f} s")
        before = CpuReading.take(process.pid, stand)
        goal = start["deleted"] + backlog.messages
        most = start["deleted"] + math.ceil(SHARE * backlog.messages)
        end = time.monotonic() + limit_s
        complete = wait(stand, process, "deleted", most, limit_s)
        deleted = min(stand.server.stats()["deleted"], goal) - start["deleted"]
        after = CpuReading.take(process.pid, stand)
        peak = processes.peak_bytes(process.pid)
        if complete:
            complete = wait(stand, process, "deleted", goal, max(END_S, end - time.monotonic()))
        if complete and contender.ends and not backlog.duplicate_share:
            try:
                code = process.wait(END_S)
            except subprocess.TimeoutExpired:
                raise BenchmarkError("the queue is empty, but the contender did not end") from None
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
    """Compare the target's rows with the messages sent. Raises BenchmarkError if they differ."""
    if not backlog.counted:
        return
    [(count,)] = stand.query(f"SELECT count(*) FROM {backlog.table}")
    rows, good = (count - stand.rows) / backlog.rows, backlog.messages - malformed
    exact = run.complete and not backlog.duplicate_share
    # If messages are delivered twice, some of the counted deletes repeat a message.
    least = good if exact else run.messages - malformed - 2 * backlog.duplicate_share * good
    if not least <= rows <= good:
        raise BenchmarkError(
            f"{good:,} good messages sent, {run.messages:,} deleted, {rows:,g} rows found"
        )
    stand.rows = count
