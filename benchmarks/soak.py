"""The soak test: real consumers under faults of every kind that we know.

    make soak SOAK_MESSAGES=300000 SOAK_SECONDS=600

Sends exactly N messages over S seconds. Four `sqs2pg run` processes with the vault on consume them
through fault proxies. For S seconds:

- consumers are killed with SIGKILL at random times;
- PostgreSQL is stopped in immediate mode and started again, and it hangs (SIGSTOP);
- connections on both sides are cut or stalled at random bytes;
- in bursts the queue throttles, fails and loses replies;
- one message in twenty is delivered twice, and one in 500 oddly: without SentTimestamp, with one of
  the year 10000, without a body, and the like;
- one in a hundred is malformed, the table's CHECK refuses one in 200, and a trigger makes one in
  2,500 run out of time or read a missing table;
- a bit of one person's data key is flipped, and flipped back later;
- people are erased while their rows move: first by `partition --convert`, then by `attach_period`.

Then the faults stop and the rest is drained. Finally the database is compared with the sender's
records: every login must be in the target once, every message that is refused for good in the
quarantine once, the dead-letter queue empty, no row of an erased person left, and `sqs2pg verify`
content. No consumer may have ended by itself: each one's log is kept (`--logs`).

No healthy message may be late by more than a minute: that is the time from its sending to its row,
less the time that the database was hung or down meanwhile. Messages that the trigger or a damaged
key holds up are none of these; they are isolated, and come when the queue shows them again.

With `--state` each message is a version of an item, too, in a second route of one transaction:
a state table with deletions (`soak_state.py`), which must end as a model sorting by version says.
Both tables have a digest, and `sqs2pg verify --deep` must be content, too.

The queue's maxReceiveCount and the pipeline's `source.max_receives` are 1,000: here a message is
received again because its worker was killed from outside, which is not the message's fault.

Prints one line of JSON at the end, beginning with messages, kills, restarts, cuts, lost, doubled.
The exit code is 0 only if all of the above holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import soak_state
from benchmarks.environment import isolated
from benchmarks.queue_server import QueueServer
from benchmarks.soak_clients import (
    ERASED_EVERY,
    QUEUE,
    START_MAX_S,
    Consumers,
    Sender,
    erased_person,
    number_of,
)
from benchmarks.soak_database import SoakDatabase
from benchmarks.soak_faults import FaultPlan, Faults
from sqs2pg.cli.embedded import Postgres, servers
from tests.faults.proxy import CUTS, FaultProxy

DEAD = "soak-dead"
DUPLICATE_SHARE = 0.05
ODD_SHARE = 0.002
RECEIVES_MAX = 1_000
LEASE_S = 10
LATE_MAX_S = 60.0
DRAIN_MAX_S = 1_200.0
"""An isolated message is invisible for up to a quarter of an hour."""
LOGS = Path("build/soak")


@dataclasses.dataclass
class SoakPlan:
    """How many messages one soak sends, for how long, and with which faults."""

    messages: int
    seconds: float
    faults: FaultPlan
    seed: int
    dsn: str = ""
    """The URL of a database that the soak did not start, such as a pooler's; empty: start one."""
    logs: Path = LOGS
    """The folder of the consumers' logs."""
    state: bool = False
    """Whether there is a state table beside the log."""


@dataclasses.dataclass
class Result:
    """What the soak did, and what it found."""

    messages: int = 0
    kills: int = 0
    restarts: int = 0
    cuts: int = 0
    lost: int = 0
    doubled: int = 0
    hangs: int = 0
    poisoned: int = 0
    """Rows that the CHECK refuses, or that the trigger makes fail."""
    odd: int = 0
    damaged_keys: int = 0
    erased_people: int = 0
    """Each while rows moved to another partition."""
    left_behind: int = 0
    """Rows of erased people that are still there."""
    late_s: float = 0.0
    """The latest healthy message, seconds."""
    ended: int = 0
    """Consumers that ended by themselves."""
    state_rows: int = 0
    state_deleted: int = 0
    """Items whose newest version deletes."""
    state_differs: int = 0
    """Items that the state table has not as the model says."""


def say(text: str) -> None:
    """Print progress to stderr; stdout is for the result."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def database(plan: SoakPlan, server: Postgres | None) -> Iterator[tuple[str, Postgres | None]]:
    """Yield the database's URL and, if it may be stopped, its server."""
    if plan.dsn:
        yield plan.dsn, server
        return
    # fsync is off: an immediate stop ends the process, but the machine keeps its page cache.
    with servers(sqs=False) as local:
        yield local.database_url, local.postgres


def soak(plan: SoakPlan, server: Postgres | None = None) -> tuple[Result, bool]:
    """Run the plan; return what was done and found, and whether the soak passed.

    `server` is the one behind `plan.dsn`, if it may be stopped.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sqs2pg-soak-")))
        direct, server = stack.enter_context(database(plan, server))
        queue = stack.enter_context(QueueServer("--manifest", "--seed", str(plan.seed)))
        port = urlsplit(direct).port or 5432
        proxies = [
            stack.enter_context(FaultProxy(("127.0.0.1", target))) for target in (queue.port, port)
        ]
        _make_queues(queue)
        environment = _environment(
            direct.replace(f":{port}/", f":{proxies[1].port}/"), proxies[0].port
        )
        if plan.state:
            settings = folder / "soak.toml"
            settings.write_text(soak_state.SETTINGS, encoding="utf-8")
            environment["SQS2PG_CONFIG"] = str(settings)
        around = SoakDatabase(direct, server, environment | {"DATABASE_URL": direct}, folder)
        around.prepare(soak_state.PREPARE if plan.state else "")
        blocks = plan.faults.erasures + 1
        sender = Sender(queue, plan.messages, plan.seconds, blocks, _is_odd, state=plan.state)
        queue.set_faults("*", duplicate_share=DUPLICATE_SHARE, odd_share=ODD_SHARE, seed=plan.seed)
        consumers = Consumers(environment, folder, plan.logs, say)
        faults = Faults(plan.faults, plan.seconds, plan.seed, queue, proxies, consumers, around)
        stack.callback(around.go_on)
        try:
            sender.start()
            # Faults while the consumers still start up would not affect any message.
            queue.wait("deleted", at_least=1, timeout_s=START_MAX_S)
            faults.run(lambda: say(_progress(sender, queue, faults, proxies)))
            over = time.time()
            sender.join()
            if sender.failure:
                raise sender.failure
            drained = _drain(queue, consumers)
        finally:
            consumers.stop()
        result = Result(
            messages=sender.sent,
            kills=faults.kills,
            restarts=faults.restarts,
            cuts=_cuts(proxies),
            hangs=faults.hangs,
            odd=sender.odd,
            damaged_keys=len(around.damaged),
            erased_people=faults.erased,
            ended=consumers.failed,
        )
        books = _compare(around, sender, result, queue, over)
        if plan.state:
            books &= _compare_state(around, sender, result)
        verified = around.insist("verify", *(["--deep"] if plan.state else []))
        say(
            f"verify: {verified}; isolated {consumers.count('messages are isolated')} times, "
            f"keys named {consumers.count('the data key of a person')} times; "
            f"logs in {plan.logs}"
        )
        well = drained and books and verified["ok"] and not consumers.failed
        return result, well and result.late_s <= LATE_MAX_S and not result.left_behind


def _is_odd(message_id: str) -> bool:
    """Whether the queue server delivers a message oddly (its README says which)."""
    return int(message_id[:4], 16) < 65_536 * ODD_SHARE


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
        "SQS2PG_SINK__STATEMENT_TIMEOUT_S": "5",
        "SQS2PG_KEYS__PROVIDER": "development",
        "SQS2PG_VAULT__ENABLED": "true",
        "SQS2PG_STATUS__BIND": "",
    }


def _cuts(proxies: list[FaultProxy]) -> int:
    return sum(proxy.counts[act] for proxy in proxies for act in CUTS)


def _progress(sender: Sender, queue: QueueServer, faults: Faults, proxies: list[FaultProxy]) -> str:
    return (
        f"sent {sender.sent:,} deleted {queue.stats()['deleted']:,} kills {faults.kills} "
        f"restarts {faults.restarts} hangs {faults.hangs} cuts {_cuts(proxies)} "
        f"erased {faults.erased}"
    )


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


def _compare(
    around: SoakDatabase, sender: Sender, result: Result, queue: QueueServer, over: float
) -> bool:
    """Compare the database with the sender's records; note what it shows in the result.

    `over` is when the faults were over.
    """
    around.forget_rest(result.erased_people)
    rows: dict[str, tuple[int, float, bool]] = {
        name: (count, float(at), bare)
        for name, count, at, bare in around.execute(
            "SELECT device_type, count(*), extract(epoch FROM max(written_at)),"
            " bool_or(masked_ip IS NULL) FROM user_logins GROUP BY 1"
        )
    }
    aside: dict[str, int] = dict(
        around.execute("SELECT message_id, count(*) FROM sqs2pg.quarantine GROUP BY 1")
    )
    [(ledger,)] = around.execute("SELECT count(*) FROM sqs2pg.delivery")
    written = sum(count for count, _, _ in rows.values())
    # An erasure takes the bodies that name the person from the quarantine, if they can be read.
    gone = {
        message_id
        for message_id in sender.refused.keys() - aside.keys()
        if _is_erased(sender, sender.refused[message_id], result.erased_people)
    }
    missing = sender.refused.keys() - aside.keys() - gone
    result.lost = len(sender.logins.keys() - rows.keys()) + len(missing)
    result.doubled = written - len(rows) + sum(aside.values()) - len(aside)
    unknown = len(rows.keys() - sender.logins.keys()) + len(aside.keys() - sender.refused.keys())
    bare = {name for name, (_, _, is_bare) in rows.items() if is_bare}
    erased = {
        name for name in sender.logins if _is_erased(sender, number_of(name), result.erased_people)
    }
    result.left_behind = around.left_behind + len(erased - bare)
    times = {name: at for name, (_, at, _) in rows.items()}
    result.late_s, after = _lateness(around, sender, times, over)
    result.poisoned = sum(bool(sender.poison_of(number)) for number in range(sender.sent))
    dead: dict[str, Any] = queue.stats()["queues"].get(DEAD, {})
    say(
        f"ledger {ledger:,}, rows {written:,}, quarantined {sum(aside.values()):,}, "
        f"unknown {unknown}, delivered twice on purpose {queue.stats()['duplicated']:,}, "
        f"dead letters {dead}; latest healthy row {after:.1f} s after the faults, the last of "
        f"all {max(at for _, at, _ in rows.values()) - over:.1f} s; cleared {len(bare):,}"
    )
    wrong = result.lost or result.doubled or unknown or any(dead.values()) or bare - erased
    return ledger == sender.sent and not wrong


def _compare_state(around: SoakDatabase, sender: Sender, result: Result) -> bool:
    """Compare the state table with the model; note what it shows in the result."""
    rows = around.execute("SELECT item, version, login FROM soak_state")
    found = soak_state.compare(map(number_of, sender.logins), sender.sent, rows)
    result.state_rows, result.state_deleted = found.rows, found.deleted
    result.state_differs = found.differs
    people = [erased_person(block) for block in range(result.erased_people)]
    named = "SELECT count(*) FROM soak_state WHERE user_id = ANY (%s)"
    [(left,)] = around.execute(named, people)
    [(guards,)] = around.execute("SELECT count(*) FROM sqs2pg.key_guard")
    result.left_behind += left
    say(f"state: {found}; rows of erased people {left}; keys that are still guarded {guards}")
    return not (found.differs or guards)


def _is_erased(sender: Sender, number: int, blocks: int) -> bool:
    return number % ERASED_EVERY == 3 and sender.block_of(number) < blocks


def _lateness(
    around: SoakDatabase, sender: Sender, written: dict[str, float], over: float
) -> tuple[float, float]:
    """Return how late the latest healthy row was, and how long after the faults the last came."""
    late, after, latest = 0.0, 0.0, ""
    for name, sent_at in sender.logins.items():
        number = number_of(name)
        at = written.get(name)
        if at is None or sender.poison_of(number) or sender.person_of(number) in around.damaged:
            continue
        away = sum(max(0.0, min(end, at) - max(start, sent_at)) for start, end in around.away)
        after = max(after, at - over)
        if at - sent_at - away > late:
            late, latest = at - sent_at - away, f"{name}, written at {time.ctime(at)}"
    say(f"latest: {latest}, {late:.1f} s")
    return round(late, 1), after


def main() -> int:
    """Read the options, run, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dsn", default="", help="use this database and do not stop it")
    parser.add_argument("--logs", type=Path, default=LOGS, help="folder of the consumers' logs")
    parser.add_argument("--state", action="store_true", help="a state table beside the log")
    for field in dataclasses.fields(FaultPlan):
        parser.add_argument(f"--{field.name}", type=int, help=field.metadata["help"])
    options = parser.parse_args()
    chosen = {field.name: getattr(options, field.name) for field in dataclasses.fields(FaultPlan)}
    faults = FaultPlan.over(
        options.seconds, **{name: n for name, n in chosen.items() if n is not None}
    )
    plan = SoakPlan(
        options.messages,
        options.seconds,
        faults,
        options.seed,
        options.dsn,
        options.logs,
        options.state,
    )
    result, well = soak(plan)
    print(json.dumps(dataclasses.asdict(result)))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
