"""`python -m benchmarks.floors`: compares a drain with the sum of its stages run alone.

A stage run alone is the pipeline's own code for that stage, with nothing else in the process: no
leases, budget, outcomes or log lines, and no data of another stage in the caches. The difference
between a drain and the sum of the stages is the cost of combining them. Drains and stages take
turns on the same servers, so that changes of the machine's speed affect both. The command writes
its own part of RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.encoder import Encoded
from sqs2pg.message import DeadLetter, Message
from sqs2pg.postgres.sink import Batch
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings.load import load
from sqs2pg.sqs.concurrency import CONCURRENCY_MIN

from . import processes
from .contenders import ONE
from .contenders.pipeline import environment
from .machine import commit, machine
from .measure import Backlog, drain, fill
from .report import publish_part
from .rig import BenchmarkError, Rig, open_rig

MESSAGES = 100_000
RUNS = 7
LIMIT_S = 60.0
STAGES = ("receive", "decode, mask, pack", "write", "delete")
SERVER, SERVER_IN_DRAIN = "PostgreSQL", "PostgreSQL in the drain"
GOAL = 1.5
"""A drain should cost at most this many times the sum of its stages."""


class HandleBatches:
    """Receipt handles to delete, ten at a time."""

    def __init__(self, queue_url: str, handles: list[str]) -> None:
        self.queue_url = queue_url
        self._left = [handles[at : at + 10] for at in range(0, len(handles), 10)]
        self.handles = self._left.pop()

    def advance(self) -> bool:
        """Move on to the next ten handles; return False if there are none."""
        if not self._left:
            return False
        self.handles = self._left.pop()
        return True


async def _receive(ready: Pipeline, timeout_s: int, count: int) -> list[Message]:
    messages: list[Message] = []

    def take(came: list[Message]) -> bool:
        messages.extend(came)
        return True

    async def poll() -> None:
        while len(messages) < count:
            messages.extend(
                await ready.client.receive_while(
                    take, ready.source.queue_url, wait_s=0, visibility_timeout_s=timeout_s
                )
            )

    await asyncio.gather(*(poll() for _ in range(CONCURRENCY_MIN)))
    return messages


async def _encode(ready: Pipeline, batches: list[list[Message]]) -> list[Encoded]:
    processor = ready.processors[0]
    encoded = [
        processor.plan.encoder.encode(batch, processor.sink.ledger_end()) for batch in batches
    ]
    if any(one.faults for one in encoded):
        raise BenchmarkError("a good login was not encoded")
    return encoded


async def _write(ready: Pipeline, batches: list[Encoded]) -> None:
    def refuse(key: str, fault: PermanentFault) -> DeadLetter:
        raise BenchmarkError(f"a row was rejected ({key}: {fault.code})")

    sink = ready.processors[0].sink
    for encoded in batches:
        if (await sink.write(Batch(encoded, (), refuse))).slow:
            raise BenchmarkError("a batch took the slow path")


async def _delete(ready: Pipeline, messages: list[Message]) -> None:
    async def delete(part: list[Message]) -> None:
        handles = [message.receipt_handle for message in part]
        if failures := await ready.client.delete_batches(
            HandleBatches(ready.source.queue_url, handles)
        ):
            raise BenchmarkError(f"{len(failures)} deletes failed")

    share = -(-len(messages) // CONCURRENCY_MIN // 10) * 10
    parts = [messages[at : at + share] for at in range(0, len(messages), share)]
    await asyncio.gather(*map(delete, parts))


async def stages(count: int, postgres: int | None) -> dict[str, float]:
    """Return the CPU, µs per message, of each stage and of PostgreSQL, by name."""
    spent: dict[str, float] = {}
    server = processes.cpu_s(postgres) if postgres else None

    async def timed(stage: str, work: Callable[[], Awaitable[Any]]) -> Any:
        began = time.process_time()
        done = await work()
        spent[stage] = (time.process_time() - began) * 1e6 / count
        return done

    settings = load(Path("/dev/null"))
    rows, timeout_s = settings.sink.batch_rows_max, settings.source.visibility_timeout_s
    async with Pipeline(settings) as ready:
        gc.freeze()
        messages = await timed("receive", lambda: _receive(ready, timeout_s, count))
        batches = [messages[at : at + rows] for at in range(0, count, rows)]
        packed = await timed("decode, mask, pack", lambda: _encode(ready, batches))
        await timed("write", lambda: _write(ready, packed))
        await timed("delete", lambda: _delete(ready, messages))
    if postgres and server is not None:
        spent[SERVER] = ((processes.cpu_s(postgres) or 0.0) - server) * 1e6 / count
    return spent


def _alone(rig: Rig, count: int) -> dict[str, float]:
    with rig.stand() as stand:
        fill(stand, Backlog(count))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.floors", "--stages", str(count)]
            + ([str(stand.postgres_pid)] if stand.postgres_pid else []),
            env=environment(stand.target),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError("the run of the stages alone failed")
        spent: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return spent


def measure(rig: Rig, runs: int, count: int) -> list[dict[str, float]]:
    """Return the CPU, µs per message, of every stage and of the drain, one dict per turn."""
    turns = []
    for turn in range(1, runs + 1):
        spent = _alone(rig, count)
        with rig.stand() as stand:
            run = drain(stand, ONE, Backlog(count), LIMIT_S)
        spent["drain"] = run.cpu_us("pipeline") or float("nan")
        spent[SERVER_IN_DRAIN] = run.cpu_us("postgres") or float("nan")
        spent["rate"] = run.rate
        turns.append(spent)
        told = ", ".join(f"{name} {us:.1f}" for name, us in spent.items() if name != "rate")
        print(f"turn {turn} of {runs}: {told}; {run.rate:,.0f}/s", file=sys.stderr)
    return turns


def table(turns: Sequence[dict[str, float]], count: int) -> str:
    """Return the part of RESULTS.md."""

    def median(name: str) -> float:
        return statistics.median(turn[name] for turn in turns)

    sums = [sum(turn[stage] for stage in STAGES) for turn in turns]
    ratios = [turn["drain"] / floor for turn, floor in zip(turns, sums, strict=True)]
    least, middle, most = min(ratios), statistics.median(ratios), max(ratios)
    lines = ["| CPU µs per message, medians | alone | in a drain |", "| --- | ---: | ---: |"]
    lines += [f"| {stage} | {median(stage):.1f} | |" for stage in STAGES]
    lines += [f"| **pipeline** | {statistics.median(sums):.1f} | {median('drain'):.1f} |"]
    if SERVER in turns[0]:
        lines += [f"| PostgreSQL | {median(SERVER):.1f} | {median(SERVER_IN_DRAIN):.1f} |"]
    ratio = f"{middle:.2f} times the sum of its stages ({least:.2f} to {most:.2f})"
    lines += ["", f"Per turn, a drain costs {ratio}; the goal is {GOAL:g}."]
    how = f"{len(turns)} turns of {count:,} messages; load {os.getloadavg()[0]:.1f}."
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}"
    lines += ["", f"{machine()}. {how} Measured {when}: `python -m benchmarks.floors`"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and publish unless told not to."""
    parser = argparse.ArgumentParser(prog="benchmarks.floors", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--no-publish", action="store_true", help="leave RESULTS.md alone")
    parser.add_argument("--stages", type=int, nargs="+", help=argparse.SUPPRESS)
    options: Any = parser.parse_args(arguments)
    if options.stages:
        count, *postgres = options.stages
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            spent = runner.run(stages(count, postgres[0] if postgres else None))
        print(json.dumps(spent))
        return 0
    with open_rig(settings={}) as rig:
        turns = measure(rig, options.runs, options.messages)
    text = table(turns, options.messages)
    print(text)
    if not options.no_publish:
        publish_part("floors", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
