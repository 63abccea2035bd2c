"""The soak test: real consumers under kills, restarts, cut connections and a failing queue.

    make soak SOAK_MESSAGES=300000 SOAK_SECONDS=600

Sends exactly N messages over S seconds. One in a hundred is malformed, and one in twenty is
delivered twice under the same MessageId. Four `sqs2pg run` processes consume them through fault
proxies. For S seconds, consumers are killed with SIGKILL at random times, PostgreSQL is stopped in
immediate mode and started again, and connections on both sides are cut at random bytes. In bursts,
the queue throttles, fails and loses replies. Then the faults stop and the rest is drained. Finally
the database is compared with the sender's records: every login must be in the target once and every
malformed message in the quarantine once, the dead-letter queue must be empty, and `sqs2pg verify`
must succeed.

The queue's maxReceiveCount and the pipeline's `source.max_receives` are 1,000: here a message is
received again because its worker was killed from outside, which is not the message's fault.

Prints one line of JSON at the end: messages, kills, restarts, cuts, lost, doubled. The exit code is
0 only if nothing was lost or doubled and all counts agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from benchmarks.environment import isolated
from benchmarks.queue_server import QueueServer
from benchmarks.soak_clients import QUEUE, START_MAX_S, Consumers, Sender
from sqs2pg.cli.embedded import servers
from tests.faults.proxy import CUTS, Act, Fault, FaultProxy, Way, draw

DEAD = "soak-dead"
DUPLICATE_SHARE = 0.05
RECEIVES_MAX = 1_000
CUT_BYTES_MAX = 20_000
LEASE_S = 10
STALL_S_MAX = 4.0
DRAIN_MAX_S = 300.0
# A burst of the queue's own faults: its length, and the shares of requests that get a fault.
BURST_S = 1.0
BURST = {"throttle_share": 0.2, "error_share": 0.2, "lose_reply_share": 0.05}


CONSUMER_CALLS = (
    "ReceiveMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibilityBatch",
    "GetQueueAttributes",
    "GetQueueUrl",
)
"""Calls that get faults. The sender's call gets none, since its records must be exact."""


@dataclasses.dataclass
class SoakPlan:
    """How many messages one soak sends, for how long, and with which faults."""

    messages: int
    seconds: float
    kills: int
    restarts: int
    cuts: int
    seed: int
    dsn: str = ""
    """The URL of a database that the soak did not start, such as a pooler's; empty: start one."""


@dataclasses.dataclass
class Tally:
    """What the soak did, and what it found."""

    messages: int = 0
    kills: int = 0
    restarts: int = 0
    cuts: int = 0
    lost: int = 0
    doubled: int = 0


def say(text: str) -> None:
    """Print progress to stderr; stdout is for the result."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


Restart = Callable[[], None]


@contextmanager
def database(plan: SoakPlan, restart: Restart | None) -> Iterator[tuple[str, Restart | None]]:
    """Yield the database's URL and, if possible, a function that restarts it at once."""
    if plan.dsn:
        yield plan.dsn, restart
        return
    # fsync is off: an immediate stop ends the process, but the machine keeps its page cache.
    with servers(sqs=False) as local:
        server = local.postgres
        assert server is not None

        def stop_and_start() -> None:
            server.stop("immediate")
            server.start()

        yield local.database_url, stop_and_start


def soak(plan: SoakPlan, restart: Restart | None = None) -> tuple[Tally, bool]:
    """Run the plan; return what was done and found, and whether the soak passed.

    `restart` stops and starts the server behind `plan.dsn`.
    """
    rng = random.Random(plan.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sqs2pg-soak-")))
        direct, restart = stack.enter_context(database(plan, restart))
        queue = stack.enter_context(QueueServer("--manifest", "--seed", str(plan.seed)))
        port = urlsplit(direct).port or 5432
        proxies = [
            stack.enter_context(FaultProxy(("127.0.0.1", target))) for target in (queue.port, port)
        ]
        consumers_url = direct.replace(f":{port}/", f":{proxies[1].port}/")
        _make_queues(queue)
        environment = _environment(consumers_url, proxies[0].port)
        _command(environment | {"DATABASE_URL": direct}, folder, "migrate")
        sender = Sender(queue, plan.messages, plan.seconds)
        queue.set_faults("*", duplicate_share=DUPLICATE_SHARE, seed=plan.seed)
        consumers = Consumers(environment, folder)
        tally = Tally()
        try:
            sender.start()
            # Faults while the consumers still start up would not affect any message.
            queue.wait("deleted", at_least=1, timeout_s=START_MAX_S)
            _inject_faults(plan, rng, tally, sender, consumers, proxies, queue, restart)
            sender.join()
            if sender.failure:
                raise sender.failure
            drained = _drain(queue, consumers)
        finally:
            codes = consumers.stop()
        tally.cuts = sum(proxy.counts[act] for proxy in proxies for act in CUTS)
        tally.messages = sender.sent
        verified = _command(environment | {"DATABASE_URL": direct}, folder, "verify", "--json")
        well = _compare(direct, sender, tally, queue)
        log = (folder / "consumers.log").read_text(errors="replace").splitlines()
        if surprises := [line for line in log if "unexpected " in line]:
            say("consumers ended with unexpected errors: " + "; ".join(surprises))
            well = False
        say(f"exit codes {codes}; {consumers.failed} ended by themselves; verify: {verified}")
        return tally, well and drained and json.loads(verified)["ok"] and not any(codes)


def _make_queues(queue: QueueServer) -> None:
    queue.call("CreateQueue", {"QueueName": DEAD})
    policy = {
        "deadLetterTargetArn": f"arn:aws:sqs:us-east-1:000000000000:{DEAD}",
        "maxReceiveCount": RECEIVES_MAX,
    }
    attributes = {"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": str(LEASE_S)}
    queue.call("CreateQueue", {"QueueName": QUEUE, "Attributes": attributes})


def _environment(url: str, queue_port: int) -> dict[str, str]:
    return isolated(f"http://127.0.0.1:{queue_port}", url) | {
        "SQS2PG_SOURCE__QUEUE": QUEUE,
        "SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S": str(LEASE_S),
        "SQS2PG_SOURCE__WAIT_TIME_S": "5",
        "SQS2PG_SOURCE__MAX_RECEIVES": str(RECEIVES_MAX),
        "SQS2PG_SINK__BATCH_ROWS_MAX": "500",
        "SQS2PG_SINK__STATEMENT_TIMEOUT_S": "10",
        "SQS2PG_KEYS__PROVIDER": "development",
        "SQS2PG_STATUS__BIND": "",
    }


def _command(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sqs2pg", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if arguments[0] == "migrate" and done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()


def _inject_faults(
    plan: SoakPlan,
    rng: random.Random,
    tally: Tally,
    sender: Sender,
    consumers: Consumers,
    proxies: list[FaultProxy],
    queue: QueueServer,
    restart: Restart | None,
) -> None:
    """Inject the faults of the plan until its time is over."""

    def kill() -> None:
        consumers.kill(rng)
        tally.kills += 1

    def stop_database() -> None:
        assert restart is not None
        restart()
        tally.restarts += 1

    def cut() -> None:
        proxy = rng.choice(proxies)
        fault = draw(rng, bytes_max=CUT_BYTES_MAX, acts=sorted(CUTS))
        proxy.arm(fault)

    def stall() -> None:
        way, at = rng.choice([Way.UP, Way.DOWN]), rng.randrange(CUT_BYTES_MAX)
        armed = rng.choice(proxies).arm(Fault(act=Act.STALL, way=way, at=at))
        threading.Timer(rng.uniform(1.0, STALL_S_MAX), armed.release).start()

    def burst() -> None:
        for call in CONSUMER_CALLS:
            queue.set_faults(call, **BURST)
        threading.Timer(BURST_S, calm).start()

    def calm() -> None:
        for call in CONSUMER_CALLS:
            queue.set_faults(call, **dict.fromkeys(BURST, 0.0))

    def progress() -> None:
        cuts = sum(proxy.counts[act] for proxy in proxies for act in CUTS)
        stats = queue.stats()
        say(
            f"sent {sender.sent:,} deleted {stats['deleted']:,} kills {tally.kills} "
            f"restarts {tally.restarts} cuts {cuts}"
        )

    # Arm more cuts than planned: a cut that waits for its byte may wait long.
    schedule = [
        *_spread(rng, plan.seconds, plan.kills, kill),
        *_spread(rng, plan.seconds, plan.restarts if restart else 0, stop_database),
        *_spread(rng, plan.seconds, plan.cuts * 3 // 2, cut),
        *_spread(rng, plan.seconds, max(2, int(plan.seconds / 15)), burst),
        *_spread(rng, plan.seconds, max(2, int(plan.seconds / 10)), stall),
        *((at, index, progress) for index, at in enumerate(_every(plan.seconds, 15.0))),
    ]
    heapq.heapify(schedule)
    began = time.monotonic()
    while schedule:
        at, _, act = heapq.heappop(schedule)
        while (left := began + at - time.monotonic()) > 0:
            consumers.tend()
            time.sleep(min(left, 0.2))
        act()
    time.sleep(max(0.0, began + plan.seconds - time.monotonic()))
    time.sleep(BURST_S)
    for proxy in proxies:
        for armed in proxy.armed:
            armed.release()
    calm()
    progress()


Event = tuple[float, float, Callable[[], None]]


def _spread(
    rng: random.Random, seconds: float, count: int, act: Callable[[], None]
) -> Iterator[Event]:
    """Yield `count` events: one at a random time in each of `count` equal parts of the time."""
    for index in range(count):
        # Not in the last 0.1 s, so that each event comes before the end.
        at = (index + rng.random()) * (seconds - 0.1) / count
        yield at, rng.random(), act


def _every(seconds: float, step: float) -> Iterator[float]:
    at = step
    while at < seconds:
        yield at
        at += step


def _drain(queue: QueueServer, consumers: Consumers) -> bool:
    say("the faults are over; draining")
    ends = time.monotonic() + DRAIN_MAX_S
    while time.monotonic() < ends:
        consumers.tend()
        stats = queue.stats()
        if not (stats["visible"] or stats["in_flight"] or stats["delayed"]):
            return True
        queue.wait("visible", at_most=0, timeout_s=2.0)
        queue.wait("in_flight", at_most=0, timeout_s=2.0)
    say(f"not empty after {DRAIN_MAX_S:.0f} s: {stats}")
    return False


def _compare(url: str, sender: Sender, tally: Tally, queue: QueueServer) -> bool:
    """Compare the database with the sender's records; count lost and doubled messages."""
    with psycopg.connect(url) as connection:
        rows: dict[str, int] = dict(
            connection.execute("SELECT user_id, count(*) FROM user_logins GROUP BY 1").fetchall()
        )
        aside: dict[str, int] = dict(
            connection.execute(
                "SELECT message_id, count(*) FROM sqs2pg.quarantine GROUP BY 1"
            ).fetchall()
        )
        [ledger] = connection.execute("SELECT count(*) FROM sqs2pg.delivery").fetchall()
    tally.lost = len(sender.logins - rows.keys()) + len(sender.malformed - aside.keys())
    tally.doubled = sum(rows.values()) - len(rows) + sum(aside.values()) - len(aside)
    unknown = len(rows.keys() - sender.logins) + len(aside.keys() - sender.malformed)
    dead: dict[str, Any] = queue.stats()["queues"].get(DEAD, {})
    duplicated = queue.stats()["duplicated"]
    say(
        f"ledger {ledger[0]:,}, rows {sum(rows.values()):,}, quarantined {sum(aside.values()):,}, "
        f"unknown {unknown}, delivered twice on purpose {duplicated:,}, dead letters {dead}"
    )
    whole = ledger[0] == sender.sent
    return whole and not (tally.lost or tally.doubled or unknown or any(dead.values()))


def main() -> int:
    """Read the options, run, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--kills", type=int, help="default: one per 5.5 s")
    parser.add_argument("--restarts", type=int, help="default: one per 27 s")
    parser.add_argument("--cuts", type=int, help="default: one per 2.5 s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dsn", default="", help="use this database and do not restart it")
    options = parser.parse_args()
    plan = SoakPlan(
        messages=options.messages,
        seconds=options.seconds,
        kills=max(4, int(options.seconds / 5.5)) if options.kills is None else options.kills,
        restarts=max(2, int(options.seconds / 27))
        if options.restarts is None
        else options.restarts,
        cuts=max(10, int(options.seconds / 2.5)) if options.cuts is None else options.cuts,
        seed=options.seed,
        dsn=options.dsn,
    )
    tally, well = soak(plan)
    print(json.dumps(dataclasses.asdict(tally)))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
