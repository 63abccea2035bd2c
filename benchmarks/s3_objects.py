"""S3 notifications: the rate of one large object and of many small ones, and what kills change.

    python -m benchmarks.s3_objects --lines 1000000 --kills 3 --objects 10000

First a backfill writes a gzip file, and `run --drain` writes the same file as an object that a
notification names. Both rates are of the same lines, from the first commit to the last. Then
two workers write it again into another database: they are killed with SIGKILL several times, and
the notification was sent twice. All three tables must be equal. Last, many small objects are
written, and read by plain GETs of the same server with the same client. Prints one line of JSON at
the end; the exit code is 1 if the tables differ.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import msgspec
import psycopg

from sqs2pg.cli.embedded import servers
from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.pipeline.object_source import FETCHES_MAX
from sqs2pg.sqs.s3 import ObjectStore

from .contenders import pipeline as ours
from .machine import short_stamp
from .rig import BenchmarkError, Stand, open_rig

BUCKET = "archive"
KEY = "2024/05/06/logins.jsonl.gz"
SMALL_LINES = 20
BAD_SHARE = 0.001
# The claim of a killed worker runs out after 20 s, whatever this is.
VISIBILITY_S = 10
ROWS = (
    "SELECT * FROM user_logins ORDER BY user_id, masked_ip, masked_device_id, device_type, locale,"
    " app_version, create_date"
)
REASONS = "SELECT reason, count(*) FROM sqs2pg.quarantine GROUP BY 1 ORDER BY 1"
COMMITS = """SELECT sum(rows), extract(epoch FROM max(at) - min(at)),
    (array_agg(rows ORDER BY at))[1]
FROM (SELECT pg_xact_commit_timestamp(xmin) AS at, count(*) AS rows
      FROM user_logins GROUP BY 1) AS one"""


class CommandRun(msgspec.Struct):
    """One run of a command that was not killed."""

    seconds: float
    peak_mb: float
    result: dict[str, Any]
    """The JSON it printed."""


def main(arguments: list[str] | None = None) -> int:
    """Run and print the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=3, help="evenly spread over the lines")
    parser.add_argument("--objects", type=int, default=10_000, help=f"of {SMALL_LINES} lines each")
    options = parser.parse_args(arguments)
    stamped = short_stamp()
    with (
        tempfile.TemporaryDirectory(prefix="sqs2pg-objects-") as folder,
        servers(postgres=False) as local,
        _aws(local.sqs_endpoint),
        open_rig(settings={}) as rig,
    ):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        file = Path(folder) / "logins-2024-05-06.jsonl.gz"
        with gzip.open(file, "wt", compresslevel=6) as stream:
            stream.writelines(
                f"{line}\n" for line in logins(options.lines, seed=1, bad_share=BAD_SHARE)
            )
        _tell(f"archive: {options.lines:,} lines, {file.stat().st_size / 2**20:.1f} MB gzipped")
        boto3.client("s3").upload_file(str(file), BUCKET, KEY)
        more = _settings(local.sqs_endpoint)
        report: dict[str, Any] = {}
        if options.lines:
            with rig.stand() as plain, rig.stand() as whole, rig.stand() as broken:
                report |= _measure_large(
                    plain, whole, broken, file, options.lines, options.kills, more
                )
        if options.objects:
            with rig.stand() as stand:
                report |= _measure_small(stand, options.objects, more)
    print(json.dumps(report | stamped))
    return 0 if report.get("same", True) else 1


def _settings(s3: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": s3,
        "SQS2PG_ENVELOPE__LAYERS": "s3_event",
        "SQS2PG_ENVELOPE__S3_BUCKETS": BUCKET,
        "SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
    }


def _measure_large(
    plain: Stand,
    whole: Stand,
    broken: Stand,
    file: Path,
    lines: int,
    kills: int,
    more: Mapping[str, str],
) -> dict[str, Any]:
    backfilled = _run(plain, ("backfill", str(file)), {})
    rate = _rate(plain)
    _tell(f"backfill of the file: {rate:,.0f} lines/s, {backfilled.peak_mb:.0f} MB")
    _notify(whole, [KEY])
    read = _run(whole, ("run", "--drain"), more)
    if read.result["object_lines"] != lines:
        raise BenchmarkError(f"the object has {lines:,} lines, and it read {read.result}")
    own = _rate(whole)
    _tell(f"as an object: {own:,.0f} lines/s, {own / rate:.2f} of it, {read.peak_mb:.0f} MB")
    _notify(broken, [KEY, KEY])
    points = []
    for number in range(1, kills + 1):
        _run_until(broken, lines * number // (kills + 1), more)
        points.append(_line(broken))
        _tell(f"killed with {points[-1]:,} lines committed")
    last = _run(broken, ("run", "--drain", "--workers", "2"), more)
    if last.result["object_lines"] != lines - (points[-1] if points else 0):
        raise BenchmarkError(f"the last run did not go on where the killed one was: {last.result}")
    stands = {"backfill": plain, "object": whole, "killed": broken}
    found = {name: (_digest(one, ROWS), _digest(one, REASONS)) for name, one in stands.items()}
    for name, ((count, digest), _) in found.items():
        _tell(f"{name}: {count:,} rows {digest[:16]}")
    return {
        "lines": lines,
        "backfill_lines_per_second": round(rate),
        "lines_per_second": round(own),
        "ratio_backfill": round(own / rate, 3),
        "peak_mb_backfill": round(backfilled.peak_mb),
        "peak_mb": round(read.peak_mb),
        "killed_at": points,
        "delivered": 2,
        "rows": {name: rows[0] for name, (rows, _) in found.items()},
        "same": len(set(found.values())) == 1,
    }


def _measure_small(stand: Stand, count: int, more: Mapping[str, str]) -> dict[str, Any]:
    store = boto3.client("s3")
    keys = [f"small/{number:06}.jsonl" for number in range(count)]
    made = iter(logins(count * SMALL_LINES, seed=2, bad_share=0))
    bodies = ["".join(f"{next(made)}\n" for _ in range(SMALL_LINES)).encode() for _ in keys]

    def put(key: str, body: bytes) -> None:
        store.put_object(Bucket=BUCKET, Key=key, Body=body)

    with ThreadPoolExecutor(FETCHES_MAX) as pool:
        list(pool.map(put, keys, bodies))
        client = ObjectStore()

        def get(key: str) -> int:
            return sum(map(len, client.open(BUCKET, key).pieces))

        began = time.perf_counter()
        size = sum(pool.map(get, keys))
        gets = count / (time.perf_counter() - began)
    _tell(f"{count:,} objects, {size / 2**20:.1f} MB: plain GETs {gets:,.0f}/s")
    _notify(stand, keys)
    done = _run(stand, ("run", "--drain"), more)
    if done.result["object_lines"] != count * SMALL_LINES:
        raise BenchmarkError(f"{count:,} objects of {SMALL_LINES} lines gave {done.result}")
    rate = float(done.result["messages_per_second"])
    _tell(f"objects written: {rate:,.0f}/s, {rate / gets:.2f} of it, {done.peak_mb:.0f} MB")
    return {
        "objects": count,
        "objects_per_second": round(rate),
        "gets_per_second": round(gets),
        "ratio_gets": round(rate / gets, 3),
        "peak_mb_objects": round(done.peak_mb),
    }


def _notify(stand: Stand, keys: list[str]) -> None:
    """Send the notifications of objects as they are now."""
    store = boto3.client("s3")
    entries = []
    for number, key in enumerate(keys):
        head = store.head_object(Bucket=BUCKET, Key=key)
        stored = {"key": key, "size": head["ContentLength"], "eTag": head["ETag"].strip('"')}
        said = {"bucket": {"name": BUCKET}, "object": stored}
        record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": said}
        entries.append({"Id": str(number % 10), "MessageBody": json.dumps({"Records": [record]})})
    url = stand.target.queue_url
    for start in range(0, len(entries), 10):
        batch = {"QueueUrl": url, "Entries": entries[start : start + 10]}
        stand.server.call("SendMessageBatch", batch)


def _start(
    stand: Stand, arguments: tuple[str, ...], more: Mapping[str, str], out: Any
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ours.command(*arguments, "--json"),
        env=ours.environment(stand.target) | dict(more),
        stdout=out,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _run(stand: Stand, arguments: tuple[str, ...], more: Mapping[str, str]) -> CommandRun:
    """Run a command to its end."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        running = _start(stand, arguments, more, out)
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if running.returncode:
            raise BenchmarkError(f"sqs2pg {arguments[0]} ended with {running.returncode}")
        out.seek(0)
        result = json.loads(out.read().splitlines()[-1])
    return CommandRun(seconds, usage.ru_maxrss / 1024, result)


def _run_until(stand: Stand, lines: int, more: Mapping[str, str]) -> None:
    """Run two workers; kill them once so many lines are committed."""
    running = _start(stand, ("run", "--drain", "--workers", "2"), more, subprocess.DEVNULL)
    while _line(stand) < lines:
        if running.poll() is not None:
            raise BenchmarkError("the run was over before it could be killed")
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    while stand.query(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ):
        time.sleep(0.01)  # one may still be committing


def _line(stand: Stand) -> int:
    [(line,)] = stand.query("SELECT coalesce(max(line), 0) FROM sqs2pg.backfill")
    return int(line)


def _rate(stand: Stand) -> float:
    """Return the rows per second from the first commit to the last."""
    [(rows, seconds, first)] = stand.query(COMMITS)
    return float(rows - first) / float(seconds)


def _digest(stand: Stand, query: str) -> tuple[int, str]:
    """Return how many rows a query returns, and the SHA-256 of these rows in order."""
    digest, count = hashlib.sha256(), 0
    with (
        psycopg.connect(stand.database_url, autocommit=True) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT".encode()) as rows,
    ):
        for row in rows:
            digest.update(row)
            count += 1
    return count, digest.hexdigest()


@contextmanager
def _aws(endpoint: str) -> Iterator[None]:
    """Point this process's S3 at the local server."""
    given = {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
