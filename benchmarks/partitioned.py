"""Compares the insert rates of a partitioned and a plain target, in turns on one server.

    python -m benchmarks.partitioned --rows 10000000

Copies batches of 2,000 logins from the last three months to both tables in turn. Both tables have
the indexes that the documentation recommends. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import secrets
import time
from datetime import date, timedelta

import psycopg

from sqs2pg.cli.embedded import servers

BATCH = 2_000
COLUMNS = """user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date"""
TABLES = {"plain": "", "partitioned": " PARTITION BY RANGE (create_date)"}
QUERY = """EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)
SELECT count(*) FROM {table} WHERE masked_device_id = %s"""


def run(rows: int, every: str) -> dict[str, object]:
    """Return the rates, in rows per second, and their ratio."""
    with servers() as local, psycopg.connect(local.database_url, autocommit=True) as connection:
        for table, how in TABLES.items():
            connection.execute(f"CREATE TABLE {table} ({COLUMNS}){how}")
        for first, after in _periods(every):
            connection.execute(
                f"CREATE TABLE partitioned_{first:%Y%m%d} PARTITION OF partitioned"
                f" FOR VALUES FROM ('{first}') TO ('{after}')"
            )
        connection.execute("CREATE TABLE partitioned_default PARTITION OF partitioned DEFAULT")
        for table in TABLES:
            connection.execute(f"CREATE INDEX ON {table} (masked_device_id)")
            connection.execute(f"CREATE INDEX ON {table} USING brin (create_date)")
        seconds = dict.fromkeys(TABLES, 0.0)
        for number in range(rows // BATCH):
            text = _batch(number, rows // BATCH)
            for table in (*TABLES,)[:: 1 if number % 2 else -1]:
                began = time.perf_counter()
                with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(text)
                seconds[table] += time.perf_counter() - began
        [token] = connection.execute("SELECT masked_device_id FROM plain LIMIT 1").fetchone() or []
        for table in TABLES:
            connection.execute(f"ANALYZE {table}")
            print(table)
            for (line,) in connection.execute(QUERY.format(table=table), [token]):
                print(f"    {line}")
    rates = {table: round(rows / spent) for table, spent in seconds.items()}
    ratio = round(rates["partitioned"] / rates["plain"], 3)
    return {"rows": rows, "every": every, **rates, "ratio": ratio}


def _periods(every: str) -> list[tuple[date, date]]:
    today = date.today()  # noqa: DTZ011  any day will do
    if every == "day":
        days = [today - timedelta(days=n) for n in range(95, -2, -1)]
        return [(day, day + timedelta(days=1)) for day in days]
    months = [today.year * 12 + today.month - 1 - n for n in range(4, -2, -1)]
    return [
        (date(m // 12, m % 12 + 1, 1), date((m + 1) // 12, (m + 1) % 12 + 1, 1)) for m in months
    ]


def _batch(number: int, batches: int) -> str:
    # As from a queue: a batch contains one day, or two around midnight.
    day = date.today() - timedelta(days=90 - 90 * number // batches)  # noqa: DTZ011
    lines = [
        f"{secrets.token_hex(16)}\tandroid\tv1_{secrets.token_hex(16)}"
        f"\tv1_{secrets.randbelow(300_000):032x}\tRU\t2003000\t{day}\n"
        for _ in range(BATCH)
    ]
    return "".join(lines)


def main() -> None:
    """Read the options, run, and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--every", choices=["month", "day"], default="month")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.rows, arguments.every)))


if __name__ == "__main__":
    main()
