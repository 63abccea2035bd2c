"""The workloads: what is on the queue, who drains it, and how a workload is run.

Contenders take turns (A B C A B C …), so that a machine that slows down affects all of them. If a
contender cannot run here, the section records why, and no ratio uses it.
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
"""Shorter drains mean little: too much of their time is start and end."""
TRIAL_LARGE = 100
Tell = Callable[[str], None]
OURS = ("sqs2pg", "sqs2pg2")
ALL = ("plain", "tuned", "sqs2pg", "sqs2pg2", "redpanda-connect", "vector")


@dataclasses.dataclass(frozen=True)
class Workload:
    """A backlog to drain. Its size is `messages`, or comes from a trial of each contender."""

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
    template: str = ""
    """What each login is put into; empty: nothing."""
    runs_max: int = 1_000

    def backlog(self, messages: int) -> Backlog:
        """Return a backlog with this many messages, within the workload's bounds."""
        return Backlog(
            messages=max(10, min(messages, self.messages_max)),
            malformed_share=self.malformed_share,
            duplicate_share=self.duplicate_share,
            pad_bytes=self.pad_bytes,
            latency_ms=self.latency_ms,
            template=self.template,
        )


DRAINS: tuple[Workload, ...] = (
    Workload("drain", "Drain of a backlog", "good logins of about 170 bytes", ALL),
    Workload(
        "nested",
        "Nested logins",
        "the same logins inside event.login, and the same columns",
        ("sqs2pg-nested", "redpanda-connect-nested", "vector-nested"),
        template='{"v": 1, "event": {"login": $}}',
    ),
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
        "each answer of the queue is delayed by 10 ms",
        latency_ms=10,
    ),
    Workload(
        "latency50",
        "50 ms to the queue",
        "each answer of the queue is delayed by 50 ms",
        latency_ms=50,
    ),
    Workload(
        "large",
        "Bodies of 1 MiB",
        "logins padded to SQS's size limit",
        ("sqs2pg",),
        messages_max=2_000,
        pad_bytes=2**20 - 512,
    ),
    Workload(
        "million",
        "A backlog of a million",
        "measures peak memory",
        ("sqs2pg",),
        1_000_000,
        runs_max=1,
    ),
)


@dataclasses.dataclass(frozen=True)
class SuitePlan:
    """The options of one invocation, for every workload."""

    runs: int = 5
    seconds: float = 6.0
    """How long a drain should take; a trial sizes the backlogs for it."""
    limit_s: float = 60.0
    """Longest drain, unless a contender has a shorter limit of its own."""
    only: Sequence[str] = ()
    """Contenders to run; empty: those of each workload."""
    messages: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sizes of backlogs by contender, instead of those from trials."""

    @property
    def share(self) -> float:
        """The factor for a full run's fixed sizes: 1 in a full run, less in a quick try."""
        return min(1.0, self.seconds / FULL_S)

    def limit_of(self, contender: Contender) -> float:
        """Return the longest drain of a contender, in seconds."""
        return min(self.limit_s, contender.limit_s)

    def pick(self, names: Sequence[str]) -> list[Contender]:
        """Return those of a workload's contenders that were requested."""
        return [CONTENDERS[name] for name in names if not self.only or name in self.only]


@dataclasses.dataclass
class ResultSection:
    """One workload's result, as saved in JSON."""

    name: str
    title: str
    says: str
    runs: list[Run] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    failed: list[str] = dataclasses.field(default_factory=list)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Figures that are not from drains, such as latencies."""
    stamp: dict[str, Any] = dataclasses.field(default_factory=dict)
    """When, where and by which command it was measured; see machine.py."""

    def fail(self, contender: str, why: str) -> None:
        """Remove a contender that failed, including its earlier runs."""
        self.runs = [run for run in self.runs if run.contender != contender]
        self.missing[contender] = f"failed: {why.splitlines()[0]}"
        self.failed.append(contender)

    def of(self, contender: str) -> list[Run]:
        """Return a contender's runs, in order."""
        return [run for run in self.runs if run.contender == contender]

    def rate(self, contender: str) -> float | None:
        """Return the median messages/s; None if it was not measured."""
        rates = [run.rate for run in self.of(contender)]
        return statistics.median(rates) if rates else None

    def ratio(self, contender: str, to: str) -> float | None:
        """Return the ratio of the two median rates; None if either was not measured."""
        ours, theirs = self.rate(contender), self.rate(to)
        return ours / theirs if ours and theirs else None

    def cpu_us(self, contender: str, process: str) -> float | None:
        """Return the median CPU of a process, µs per message; None if it is not known."""
        found = [us for run in self.of(contender) if (us := run.cpu_us(process)) is not None]
        return statistics.median(found) if found else None


def run_drains(rig: Rig, workload: Workload, plan: SuitePlan, tell: Tell) -> ResultSection:
    """Run a workload, contenders in turns. One that fails is removed and listed as failed."""
    section = ResultSection(workload.name, workload.title, workload.says)
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


def _size(rig: Rig, workload: Workload, contender: Contender, plan: SuitePlan) -> int:
    """Return the backlog that keeps a contender busy for the plan's seconds, from a trial.

    The trial also warms up caches; it is not counted.
    """
    if fixed := plan.messages.get(contender.name) or workload.messages:
        return fixed
    trial = round((TRIAL_LARGE if workload.pad_bytes else contender.trial) * plan.share)
    with rig.stand(tls=workload.tls) as stand:
        run = drain(stand, contender, workload.backlog(trial), plan.limit_of(contender))
    return round(run.rate * plan.seconds)


def describe(run: Run) -> str:
    """Return one run as one line of text."""
    cpu = " + ".join(
        "?" if us is None else f"{us:.1f}"
        for us in map(run.cpu_us, ("pipeline", "postgres", "queue_server"))
    )
    peak = "?" if run.peak_bytes is None else f"{run.peak_bytes / 1e6:.0f}"
    return (
        f"{run.contender}: {run.rate:,.0f} messages/s ({run.messages:,} in {run.seconds:.2f} s"
        f"{'' if run.complete else ', time limit'}), CPU us per message {cpu} "
        f"(contender + PostgreSQL + queue server), peak {peak} MB"
    )


def run_growth(rig: Rig, plan: SuitePlan, rows: int, step: int, tell: Tell) -> ResultSection:
    """Drain into one database, `step` messages at a time, until its ledger holds `rows`."""
    section = ResultSection(
        "ledger",
        "Ledger growth",
        f"one database, filled by drains of {step:,} messages until its ledger holds {rows:,}",
    )
    with rig.stand() as stand:
        while stand.rows < rows:
            run = drain(stand, ONE, Backlog(step), plan.limit_s)
            if not run.complete:
                tell("ledger: a drain reached the time limit; the growth ends here")
                break
            section.runs.append(run)
            tell(f"ledger at {run.rows_before:,} rows, {describe(run)}")
    return section
