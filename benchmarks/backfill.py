"""Backfill of a gzip archive: its rate and memory, and that kill -9 in the middle changes nothing.

    python -m benchmarks.backfill --lines 1000000 --kills 3

One run backfills the archive into a first database without interruption. Several runs backfill it
into a second database: each is killed with SIGKILL once a certain number of lines is committed,
except the last. Both databases use the same keys. Then target, ledger and quarantine of both are
compared: their counts, and a SHA-256 of their rows in order. Prints one line of JSON at the end;
the exit code is 1 if the databases differ.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from sqs2pg.cli.embedded.sample_logins import logins

from .contenders import pipeline as ours
from .machine import short_stamp
from .rig import BenchmarkError, Stand, open_rig

BAD_SHARE = 0.001
COMPARED = {
    "user_logins": "SELECT * FROM user_logins ORDER BY user_id, masked_ip, masked_device_id,"
    " device_type, locale, app_version, create_date",
    "delivery": "SELECT key, message_id, outcome FROM sqs2pg.delivery ORDER BY key",
    "quarantine": "SELECT key, message_id, reason, detail FROM sqs2pg.quarantine ORDER BY key",
}


class CommandRun(msgspec.Struct):
    """One run of the command, killed or not."""

    seconds: float
    peak_mb: float
    cpu_s: float
    result: dict[str, Any] | None
    """The JSON it printed; None if it was killed."""


def main(arguments: list[str] | None = None) -> int:
    """Run and print the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=3, help="evenly spread over the lines")
    options = parser.parse_args(arguments)
    stamped = short_stamp()
    with tempfile.TemporaryDirectory(prefix="sqs2pg-backfill-") as folder:
        file = Path(folder) / "logins-2024-05-06.jsonl.gz"
        with gzip.open(file, "wt", compresslevel=6) as stream:
            stream.writelines(
                f"{line}\n" for line in logins(options.lines, seed=1, bad_share=BAD_SHARE)
            )
        _tell(f"archive: {options.lines:,} lines, {file.stat().st_size / 2**20:.1f} MB gzipped")
        with open_rig(settings={}) as rig, rig.stand() as whole, rig.stand() as broken:
            report = _measure(whole, broken, file, options.lines, options.kills)
    print(json.dumps(report | stamped))
    return 0 if report["same"] else 1


def _measure(whole: Stand, broken: Stand, file: Path, lines: int, kills: int) -> dict[str, Any]:
    once = _run(whole, file)
    assert once.result is not None
    rate = lines / once.seconds
    _tell(f"without interruption: {once.seconds:.1f} s, {rate:,.0f} lines/s, {once.peak_mb:.0f} MB")
    points = []
    peaks = [once.peak_mb]
    for number in range(1, kills + 1):
        killed = _run(broken, file, stop_at=lines * number // (kills + 1))
        _wait_alone(broken)
        points.append(_line(broken))
        peaks.append(killed.peak_mb)
        _tell(f"killed with {points[-1]:,} lines committed")
    last = _run(broken, file)
    assert last.result is not None
    if last.result["resumed"] != (points[-1] if points else 0) or last.result["duplicate"]:
        raise BenchmarkError(
            f"the last run did not resume where the killed run stopped: {last.result}"
        )
    peaks.append(last.peak_mb)
    found = {
        name: [_digest(one, query) for one in (whole, broken)] for name, query in COMPARED.items()
    }
    same = all(one == other for one, other in found.values())
    for name, (one, other) in found.items():
        _tell(f"{name}: {one[0]:,} rows {one[1][:16]}, {other[0]:,} rows {other[1][:16]}")
    return {
        "lines": lines,
        "seconds": round(once.seconds, 2),
        "lines_per_second": round(rate),
        "cpu_us_a_line": round(once.cpu_s * 1e6 / lines, 1),
        "peak_mb": round(once.peak_mb),
        "peak_mb_max": round(max(peaks)),
        "written": once.result["written"],
        "quarantined": once.result["quarantined"],
        "killed_at": points,
        "same": same,
        "rows": {name: one[0] for name, (one, _) in found.items()},
        "digests": {name: one[1][:16] for name, (one, _) in found.items()},
    }


def _run(stand: Stand, file: Path, stop_at: int | None = None) -> CommandRun:
    """Run the command; kill it once `stop_at` lines are committed."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        running = subprocess.Popen(
            ours.command("backfill", str(file), "--json"),
            env=ours.environment(stand.target),
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        if stop_at is not None:
            while _line(stand) < stop_at:
                if running.poll() is not None:
                    raise BenchmarkError("the run was over before it could be killed")
                time.sleep(0.002)
            running.kill()
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if running.returncode != (0 if stop_at is None else -9):
            raise BenchmarkError(f"sqs2pg backfill ended with {running.returncode}")
        out.seek(0)
        result = json.loads(out.read().splitlines()[-1]) if stop_at is None else None
    cpu_s = usage.ru_utime + usage.ru_stime
    return CommandRun(seconds, usage.ru_maxrss / 1024, cpu_s, result)


def _wait_alone(stand: Stand) -> None:
    """Wait until the killed run's backends have ended: one may still be committing."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    while stand.query(
        f"{query} AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ) != [(0,)]:
        time.sleep(0.01)


def _line(stand: Stand) -> int:
    with _connected(stand) as connection:
        row = connection.execute("SELECT max(line) FROM sqs2pg.backfill").fetchone()
    return int(row[0] or 0) if row else 0


def _digest(stand: Stand, query: str) -> tuple[int, str]:
    """Return how many rows a query returns, and the SHA-256 of these rows in order."""
    digest, count = hashlib.sha256(), 0
    with _connected(stand) as connection:
        statement = f"COPY ({query}) TO STDOUT".encode()
        with connection.cursor() as cursor, cursor.copy(statement) as rows:
            for row in rows:
                digest.update(row)
                count += 1
    return count, digest.hexdigest()


@contextmanager
def _connected(stand: Stand) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(stand.database_url, autocommit=True) as connection:
        yield connection


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
