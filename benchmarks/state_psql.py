"""State tables without a pipeline: COPY to a staging table and the same INSERT, by psql.

The lines are those that a pipeline has written to a log, in batches of the size that it has by
default. Nothing is received, masked, entered in books or deleted.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psycopg

from sqs2pg.cli.embedded.postgres_binaries import find_binaries
from sqs2pg.postgres.state_table import Merge

from .rig import BenchmarkError, Stand

BATCH_ROWS = 2_000
_TYPES = """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = 'state'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""


def write_script(stand: Stand, key: tuple[str, ...], newer: str, *, ignore: bool) -> Path:
    """Write a psql script that merges what the table `state` has now; return its path."""
    pairs = stand.query(_TYPES)
    columns, types = zip(*pairs, strict=True)
    update = () if ignore else tuple(name for name in columns if name not in key)
    merge = Merge('"state"', columns, types, key, update, "" if ignore else newer)
    script = stand.target.folder / "state.sql"
    with psycopg.connect(stand.database_url) as connection, script.open("wb") as file:
        file.write(b"\\set ON_ERROR_STOP on\n\\o /dev/null\n")
        batch: list[bytes] = []
        cursor = connection.cursor()
        with cursor.copy("COPY state TO STDOUT") as copy:
            for line in copy:
                batch.append(bytes(line))
                if len(batch) == BATCH_ROWS:
                    file.write(_transaction(merge, batch))
                    batch.clear()
        if batch:
            file.write(_transaction(merge, batch))
    return script


def _transaction(merge: Merge, lines: list[bytes]) -> bytes:
    before = f"BEGIN;\n{merge.stage_ddl()};\n{merge.copy_statement()};\n"
    return before.encode() + b"".join(lines) + f"\\.\n{merge.apply()};\nCOMMIT;\n".encode()


def run_script(stand: Stand, script: Path) -> float:
    """Run a script; return how long it took, seconds. Raises BenchmarkError."""
    began = time.perf_counter()
    done = subprocess.run(
        [find_binaries() / "psql", "-X", "-q", "-d", stand.database_url, "-f", script],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"psql: {done.stderr[:500]}")
    return time.perf_counter() - began
