"""Many pipelines in one process: what they cost idle, their rate, and one that is poisoned.

    python -m benchmarks.fleet --pipelines 50 --messages 4000000 --idle-s 60

1. Idle: CPU of the process and of PostgreSQL, memory, connections, and requests a minute.
2. Rate: all queues filled and drained by one process, beside one pipeline that drains one queue
   with as many messages, in turn. The time is from the first batch's begin to the last one's. One
   pipeline's start lies before it, but of fifty most starts lie in it, about 1.7 s of CPU with
   PostgreSQL's: so there are as many messages as make that little.
3. Poison: as 2 with a quarter of the messages, but with one table locked by another session for the
   whole run: how long the other pipelines take, beside the same without the lock.

Prints one line of JSON at the end; the exit code is 1 if a table has other rows than were sent.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from .contenders import pipeline as ours
from .machine import short_stamp
from .processes import cpu_s, peak_bytes
from .rig import BenchmarkError, Rig, Stand, open_rig, run_command

SETTLE_S = 80.0
"""After the start, before the idle time is measured: what a start leaves running, such as the first
upkeep, is no event to wait for, and an empty queue's depth is read ever less often, down to once a
minute."""
WAIT_S = 600.0
TOOK = "SELECT extract(epoch FROM max(at) - min(at)) FROM sqs2pg.tally WHERE kind = 'batch'"
ROWS = "SELECT avg(written)::float8 FROM sqs2pg.tally WHERE kind = 'batch'"
WRITTEN = "SELECT coalesce(sum(written), 0)::bigint FROM sqs2pg.tally"
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sqs2pg'"


def main(arguments: list[str] | None = None) -> int:
    """Run and print the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pipelines", type=int, default=50)
    parser.add_argument("--messages", type=int, default=4_000_000, help="in all queues together")
    parser.add_argument("--idle-s", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3, help="of each rate; the median counts")
    options = parser.parse_args(arguments)
    stamped = short_stamp()
    with open_rig(settings={}) as rig:
        report = {"pipelines": options.pipelines, "messages": options.messages}
        report |= _idle(rig, options.pipelines, options.idle_s)
        report |= _rates(rig, options.pipelines, options.messages, options.rounds)
        report |= _poisoned(rig, options.pipelines, options.messages // 4)
    print(json.dumps(report | stamped))
    return 0


class Set:
    """The settings of several pipelines on one stand, each with its own queue and table."""

    def __init__(self, stand: Stand, count: int) -> None:
        self.stand = stand
        self.folder = stand.target.folder / f"pipelines-{os.urandom(3).hex()}"
        self.folder.mkdir()
        self.names = [f"p{number:03}" for number in range(count)]
        self.environment = ours.environment(stand.target)
        del self.environment["SQS2PG_SOURCE__QUEUE"]
        for name in self.names:
            stand.server.call("CreateQueue", {"QueueName": name})
            text = f'[source]\nqueue = "{name}"\n[sink]\ntable = "{name}"\n'
            (self.folder / f"{name}.toml").write_text(text)
        self.command("migrate")

    def command(self, *arguments: str) -> str:
        """Run a command on the folder; return its stdout. Raises BenchmarkError."""
        return run_command(
            self.stand.target, *arguments, settings=self.folder, environment=self.environment
        )

    def fill(self, messages: int) -> int:
        """Put messages on the queues, as many on each; return how many in all."""
        each = max(1, messages // len(self.names))
        for number, name in enumerate(self.names):
            self.stand.server.fill(name, each, seed=number + 1, malformed_share=0.0)
        return each * len(self.names)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run all in one process, which is stopped in good order."""
        line = ours.command("run", settings=self.folder)
        process = subprocess.Popen(line, env=self.environment, stderr=subprocess.DEVNULL)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            if process.wait(60):
                raise BenchmarkError(f"the process ended with {process.returncode}")
        finally:
            process.kill()
            process.wait()

    def check(self, sent: int) -> None:
        """Raise BenchmarkError unless the tables have as many rows as were sent."""
        rows = sum(self.stand.query(f"SELECT count(*) FROM {n}")[0][0] for n in self.names)
        if rows != sent:
            raise BenchmarkError(f"{rows:,} rows of {sent:,} messages")


def _idle(rig: Rig, pipelines: int, idle_s: float) -> dict[str, Any]:
    with rig.stand() as stand:
        several = Set(stand, pipelines)
        with several.running() as process:
            _until(lambda: _workers(stand) == pipelines, process)
            time.sleep(SETTLE_S)
            pids = {"process": process.pid, "postgres": stand.postgres_pid}
            before = {n: cpu_s(p) or 0.0 if p else 0.0 for n, p in pids.items()}
            requests, began = stand.server.stats()["requests"], time.monotonic()
            time.sleep(idle_s)  # this is what is measured
            took = time.monotonic() - began
            after = stand.server.stats()["requests"]
            shares = {
                f"idle_cpu_share_{name}": round(((cpu_s(pid) or 0.0) - before[name]) / took, 4)
                for name, pid in pids.items()
                if pid
            }
            calls = {
                name: round((count - requests.get(name, 0)) / took * 60, 1)
                for name, count in after.items()
                if count != requests.get(name, 0)
            }
            memory = peak_bytes(process.pid) or 0
            connections = stand.query(CONNECTIONS)[0][0]
    found = shares | {
        "idle_memory_mb": round(memory / 2**20, 1),
        "idle_connections": connections,
        "idle_requests_per_minute": round(sum(calls.values()), 1),
        "idle_requests_by_call": calls,
    }
    _tell(f"idle: {found}")
    return found


def _workers(stand: Stand) -> int:
    return int(stand.query("SELECT count(*) FROM sqs2pg.worker")[0][0])


def _rates(rig: Rig, pipelines: int, messages: int, rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"all": [], "one": []}
    cpus: dict[str, list[float]] = {"all": [], "one": []}
    rows: dict[str, list[float]] = {"all": [], "one": []}
    for _ in range(rounds):
        for name, count in (("all", pipelines), ("one", 1)):
            with rig.stand() as stand:
                several = Set(stand, count)
                sent = several.fill(messages)
                before = _children_cpu_s()
                several.command("run", "--drain", "--json")
                cpu_us = round((_children_cpu_s() - before) * 1e6 / sent, 2)
                several.check(sent)
                rows[name].append(round(float(stand.query(ROWS)[0][0])))
                rate = round(sent / float(stand.query(TOOK)[0][0]), 1)
            rates[name].append(rate)
            cpus[name].append(cpu_us)
            _tell(f"{name}: {rate:,.0f} a second, {cpu_us} µs of CPU per message")
    every, one = statistics.median(rates["all"]), statistics.median(rates["one"])
    return {
        "messages_per_second_all": every,
        "messages_per_second_one": one,
        "ratio": round(every / one, 3),
        "rates": rates,
        "cpu_us_per_message": cpus,
        "rows_per_batch": rows,
    }


def _children_cpu_s() -> float:
    """Return the CPU time of the commands that have ended, PostgreSQL and the queue apart."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _poisoned(rig: Rig, pipelines: int, messages: int) -> dict[str, Any]:
    took = {}
    for name in ("healthy", "poisoned"):
        with rig.stand() as stand:
            several = Set(stand, pipelines)
            sent = several.fill(messages)
            bad = sent // pipelines
            with psycopg.connect(stand.database_url) as other:
                if name == "poisoned":
                    other.execute(f"LOCK TABLE {several.names[0]} IN ACCESS EXCLUSIVE MODE")
                began = time.monotonic()
                with several.running() as process:
                    written = sent - bad if name == "poisoned" else sent

                    def whole(stand: Stand = stand, written: int = written) -> bool:
                        return int(stand.query(WRITTEN)[0][0]) >= written

                    _until(whole, process)
                    took[name] = round(time.monotonic() - began, 2)
                    other.rollback()
                    _until(lambda s=stand, n=sent: int(s.query(WRITTEN)[0][0]) >= n, process)
            several.check(sent)
        _tell(f"{name}: {took[name]} s")
    return {"seconds_healthy": took["healthy"], "seconds_beside_poison": took["poisoned"]}


def _until(holds: Any, process: subprocess.Popen[bytes]) -> None:
    late = time.monotonic() + WAIT_S
    while not holds():
        if process.poll() is not None or time.monotonic() > late:
            raise BenchmarkError("the pipelines did not come so far")
        time.sleep(0.1)  # the database tells nobody of a commit; more often would load it


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
