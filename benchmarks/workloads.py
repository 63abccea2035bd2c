"""The workloads: what is on the queue, who drains it, and how one workload is run.

Runs are interleaved (A B C A B C …), so that a machine that slows down slows all. A contender
that cannot run here is noted with its reason, and no ratio is made of it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .contenders import CONTENDERS, ONE, Contender
from .measure import Backlog, Run, drain
from .rig import BenchmarkError, Rig

FULL_S = 5.0
"""Shorter drains than this say little: too much of them is start and end."""
TRIAL_LARGE = 100
Tell = Callable[[str], None]
OURS = ("sqs2pg", "sqs2pg2")
ALL = ("plain", "tuned", "sqs2pg", "sqs2pg2", "redpanda-connect", "vector")


@dataclasses.dataclass(frozen=True)
class Workload:
    """A backlog to drain. Its size follows from a trial of each contender, or is `messages`."""

    name: str
    title: str
    says: str
    contenders: Sequence[str] = OURS
    messages: int | None = None
    messages_max: int = 2_000_000
    malformed_share: float = 0.0
    duplicate_share: float = 0.0
    pad_bytes: int = 0
    latency_ms: int = 0
    tls: bool = False
    runs_max: int = 1_000

    def backlog(self, messages: int) -> Backlog:
        """Return what the queue is filled with, of a size."""
        return Backlog(
            messages=max(10, min(messages, self.messages_max)),
            malformed_share=self.malformed_share,
            duplicate_share=self.duplicate_share,
            pad_bytes=self.pad_bytes,
            latency_ms=self.latency_ms,
        )


DRAINS: tuple[Workload, ...] = (
    Workload("drain", "Drain of a backlog", "good logins of about 170 bytes", ALL),
    Workload("bad", "5% bad", "one login in twenty is malformed", malformed_share=0.05),
    Workload(
        "twice",
        "5% delivered twice",
        "one message in twenty is delivered twice: at once, later, or after its delete",
        duplicate_share=0.05,
    ),
    Workload("tls", "TLS to the queue", "TLS 1.3, certificate verified", tls=True),
    Workload(
        "latency10",
        "10 ms to the queue",
        "each answer of the queue comes 10 ms late",
        latency_ms=10,
    ),
    Workload(
        "latency50",
        "50 ms to the queue",
        "each answer of the queue comes 50 ms late",
        latency_ms=50,
    ),
    Workload(
        "large",
        "Bodies of 1 MiB",
        "logins with a field of padding up to SQS's limit",
        ("sqs2pg",),
        messages_max=2_000,
        pad_bytes=2**20 - 512,
    ),
    Workload("million", "A backlog of a million", "for memory", ("sqs2pg",), 1_000_000, runs_max=1),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one invocation asks of every workload."""

    runs: int = 5
    seconds: float = 6.0
    """How long a drain should take; the backlogs are sized for it by a trial."""
    limit_s: float = 60.0
    """Longest drain, where a contender has no shorter one of its own."""
    only: Sequence[str] = ()
    """Contenders; empty: each workload's own."""
    messages: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Backlogs by contender, in place of what a trial says."""

    @property
    def share(self) -> float:
        """What a quick try of the suite leaves of a full run's fixed sizes: 1 for a full one."""
        return min(1.0, self.seconds / FULL_S)

    def limit_of(self, contender: Contender) -> float:
        """Return the longest drain of a contender, in seconds."""
        return min(self.limit_s, contender.limit_s)

    def pick(self, names: Sequence[str]) -> list[Contender]:
        """Return a workload's contenders that were asked for."""
        return [CONTENDERS[name] for name in names if not self.only or name in self.only]


@dataclasses.dataclass
class Section:
    """One workload's result, as kept in JSON."""

    name: str
    title: str
    says: str
    runs: list[Run] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    failed: list[str] = dataclasses.field(default_factory=list)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What is not a drain: latencies and the like."""
    stamp: dict[str, Any] = dataclasses.field(default_factory=dict)
    """When, on what and by which command; see machine.py."""

    def fail(self, contender: str, why: str) -> None:
        """Take a contender out: what it did before it failed counts for nothing."""
        self.runs = [run for run in self.runs if run.contender != contender]
        self.missing[contender] = f"failed: {why.splitlines()[0]}"
        self.failed.append(contender)

    def of(self, contender: str) -> list[Run]:
        """Return a contender's runs, in order."""
        return [run for run in self.runs if run.contender == contender]

    def rate(self, contender: str) -> float | None:
        """Return the median messages/s; None where it was not measured."""
        rates = [run.rate for run in self.of(contender)]
        return statistics.median(rates) if rates else None

    def ratio(self, contender: str, to: str) -> float | None:
        """Return how many times faster, by the medians of this section; None where one is
        missing.
        """
        ours, theirs = self.rate(contender), self.rate(to)
        return ours / theirs if ours and theirs else None

    def cpu_us(self, contender: str, process: str) -> float | None:
        """Return the median CPU of a process, microseconds a message."""
        found = [us for run in self.of(contender) if (us := run.cpu_us(process)) is not None]
        return statistics.median(found) if found else None


def run_drains(rig: Rig, workload: Workload, plan: Plan, tell: Tell) -> Section:
    """Run a workload, interleaved. A contender that fails is out of the section, and named."""
    section = Section(workload.name, workload.title, workload.says)
    chosen: dict[str, Contender] = {}
    for contender in plan.pick(workload.contenders):
        if why := contender.missing():
            section.missing[contender.name] = why
            tell(f"{workload.name} {contender.name}: not measured, {why}")
        else:
            chosen[contender.name] = contender
    sizes: dict[str, int] = {}
    runs = min(plan.runs, workload.runs_max)
    for turn in range(runs):
        for name, contender in list(chosen.items()):
            try:
                if name not in sizes:
                    sizes[name] = _size(rig, workload, contender, plan)
                with rig.stand(tls=workload.tls) as stand:
                    backlog = workload.backlog(sizes[name])
                    run = drain(stand, contender, backlog, plan.limit_of(contender))
            except BenchmarkError as error:
                tell(f"{workload.name} {name} failed: {error}")
                section.fail(name, str(error))
                del chosen[name]
            else:
                section.runs.append(run)
                tell(f"{workload.name} {turn + 1}/{runs} {describe(run)}")
    return section


def _size(rig: Rig, workload: Workload, contender: Contender, plan: Plan) -> int:
    """Return the backlog that keeps a contender busy for the plan's seconds, by a trial.

    The trial warms caches up, too, and is not counted.
    """
    if fixed := plan.messages.get(contender.name) or workload.messages:
        return fixed
    trial = round((TRIAL_LARGE if workload.pad_bytes else contender.trial) * plan.share)
    with rig.stand(tls=workload.tls) as stand:
        run = drain(stand, contender, workload.backlog(trial), plan.limit_of(contender))
    return round(run.rate * plan.seconds)


def describe(run: Run) -> str:
    """Return one run in one line."""
    cpu = " + ".join(
        "?" if us is None else f"{us:.1f}"
        for us in map(run.cpu_us, ("pipeline", "postgres", "queue_server"))
    )
    peak = "?" if run.peak_bytes is None else f"{run.peak_bytes / 1e6:.0f}"
    return (
        f"{run.contender}: {run.rate:,.0f} messages/s ({run.messages:,} in {run.seconds:.2f} s"
        f"{'' if run.complete else ', time limit'}), CPU us a message {cpu} "
        f"(contender + PostgreSQL + queue server), peak {peak} MB"
    )


def run_growth(rig: Rig, plan: Plan, rows: int, step: int, tell: Tell) -> Section:
    """Drain into one database, `step` messages at a time, until its ledger holds `rows`."""
    section = Section(
        "ledger",
        "Ledger growth",
        f"one database, filled by drains of {step:,} messages until its ledger holds {rows:,}",
    )
    with rig.stand() as stand:
        while stand.rows < rows:
            run = drain(stand, ONE, Backlog(step), plan.limit_s)
            if not run.complete:
                tell("ledger: the time limit came first; the growth ends here")
                break
            section.runs.append(run)
            tell(f"ledger at {run.rows_before:,} rows, {describe(run)}")
    return section
