"""Memory of a pipeline whose messages become far larger than they are on the queue.

    python -m benchmarks.memory [--only document,lines] [--bodies 60] [--mb 60] [--records 100000]

Each case fills a queue, drains it with one `sqs2pg run --drain` under each executor, and prints the
peak resident memory of that process (VmHWM), beside that of a drain of ordinary logins. The wire
holds little: the bodies are gzip and base64, or JSON of many tiny records. The rows are counted; a
run with one row too many or too few is an error. Takes some minutes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import gzip
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqs2pg.cli.embedded.sample_logins import logins

from . import processes
from .contenders import Launch
from .contenders import pipeline as ours
from .measure import running, wait
from .rig import BenchmarkError, Rig, open_rig, run_command

LIMIT_S = 600.0
EXECUTORS = {"native": "1", "python": "0"}
_TINY = """
[sink]
table = "tiny"
[[field]]
source = "u"
column = "u"
required = true
"""
_NOTES = """
[sink]
table = "notes"
[[field]]
source = "user_id"
column = "user_id"
[[field]]
source = "note"
column = "note"
"""
_SNS = (
    '{"Type":"Notification","MessageId":"m","TopicArn":"arn:aws:sns:eu-west-1:1:t",'
    '"Timestamp":"2026-01-01T00:00:00.000Z","Message":%s}'
)
_ITEMS = """
explode = "items"
[sink]
table = "items"
[[field]]
source = "user_id"
column = "user_id"
[[field]]
source = "items[].n"
column = "n"
type = "integer"
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """Bodies, and the settings that read them."""

    title: str
    settings: str
    body: Callable[[int, int], str]
    """From the bytes and the records that a body is to expand to."""
    rows: Callable[[int], int]
    """Rows of one body, from its records."""
    table: str = "user_logins"


def _packed(content: str) -> str:
    return base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode()


def _login_of(size: int) -> str:
    [login] = logins(1, seed=1, bad_share=0)
    return login.removesuffix("}") + ', "note": "' + "x" * size + '"}'


def _document(size: int, _records: int) -> str:
    return _packed(_login_of(size))


def _many(records: int) -> list[str]:
    # A hundred again and again: packed they must fit in a message of SQS.
    some = list(logins(100, seed=1, bad_share=0))
    return list(itertools.islice(itertools.cycle(some), records))


CASES = {
    "document": Case(
        "gzip, one document",
        '[envelope]\nlayers = ["gzip"]\n',
        _document,
        lambda _: 1,
    ),
    "found": Case(
        "gzip found by `auto`, one document",
        '[envelope]\nlayers = ["auto"]\nrecords = "auto"\n',
        _document,
        lambda _: 1,
    ),
    "wrapped": Case(
        "gzip of an SNS notification, one document",
        '[envelope]\nlayers = ["gzip", "sns"]\n',
        lambda size, _: _packed(_SNS % json.dumps(_login_of(size))),
        lambda _: 1,
    ),
    "kept": Case(
        "gzip, one document whose long text goes to a column",
        '[envelope]\nlayers = ["gzip"]\n' + _NOTES,
        _document,
        lambda _: 1,
        "notes",
    ),
    "lines": Case(
        "gzip, one login per line",
        '[envelope]\nlayers = ["gzip"]\nrecords = "lines"\n',
        lambda _, records: _packed("\n".join(_many(records))),
        lambda records: records,
    ),
    "array": Case(
        "gzip, an array of logins",
        '[envelope]\nlayers = ["gzip"]\nrecords = "array"\n',
        lambda _, records: _packed("[" + ",".join(_many(records)) + "]"),
        lambda records: records,
    ),
    "tiny": Case(
        "plain, an array of tiny objects",
        '[envelope]\nrecords = "array"\n' + _TINY,
        lambda _, records: "[" + ",".join(['{"u":"1"}'] * records) + "]",
        lambda records: records,
        "tiny",
    ),
    "items": Case(
        "plain, one document exploded by its array",
        _ITEMS,
        lambda _, records: (
            '{"user_id":"someone","items":[' + ",".join(['{"n":1}'] * records) + "]}"
        ),
        lambda records: records,
        "items",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run and print the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--executors", default=",".join(EXECUTORS))
    parser.add_argument("--bodies", type=int, default=60)
    parser.add_argument("--mb", type=int, default=60, help="of one body, decompressed")
    parser.add_argument("--records", type=int, default=100_000, help="of one body")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    with open_rig(settings={}, fsync=False) as rig:
        for name in options.only.split(","):
            case = CASES[name]
            body = case.body(options.mb * 10**6, options.records)
            for executor in options.executors.split(","):
                run = _drain(rig, case, body, options.bodies, options.records, executor)
                found.setdefault(name, {"body_bytes": len(body)})[executor] = run
                print(
                    f"{case.title}, {options.bodies} bodies of {len(body) / 1e3:,.0f} kB, "
                    f"{executor}: peak {run['peak_mb']} MB, {run['seconds']} s",
                    file=sys.stderr,
                    flush=True,
                )
    print(json.dumps(found))
    return 0


def _drain(
    rig: Rig, case: Case, body: str, bodies: int, records: int, executor: str
) -> dict[str, float]:
    settings = rig.folder / "sqs2pg.toml"  # whose pipeline has the table's name
    Path(settings).write_text(case.settings)
    with rig.stand() as stand:
        if case.table != "user_logins":
            run_command(stand.target, "migrate", settings=settings)
        url = stand.target.queue_url
        for _ in range(bodies):
            stand.server.call("SendMessage", {"QueueUrl": url, "MessageBody": body})
        launch = Launch(
            ours.command("run", "--drain", settings=settings),
            ours.environment(stand.target) | {"SQS2PG_NATIVE": EXECUTORS[executor]},
        )
        began = time.perf_counter()
        with running(launch, stand.target.folder) as process:
            if not wait(stand, process, "deleted", bodies, LIMIT_S):
                raise BenchmarkError(f"not done after {LIMIT_S:.0f} s")
            seconds = time.perf_counter() - began
            peak = processes.peak_bytes(process.pid)
            process.wait(LIMIT_S)
        [(rows,)] = stand.query(f"SELECT count(*) FROM {case.table}")
        if rows != bodies * case.rows(records):
            raise BenchmarkError(f"{rows:,} rows of {bodies * case.rows(records):,}")
    return {"peak_mb": round((peak or 0) / 2**20), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
