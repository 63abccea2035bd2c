#!/usr/bin/env bash
# avro 1.12.2 and fastavro 1.13.1 (PyPI): in a union of long and double, an integer is written as a double, by
# one of them always if long stands first, by the other always if double stands first.
#
# Expected: an integer is written as the long branch, in whatever order the branches stand, since a double
#   cannot hold every long.
#   Source: Apache Avro 1.12.0 specification, "Unions" and "Schema Resolution" (promotion of a long to a
#   double is the reader's; nothing says that a writer promotes).
# Seen: avro takes the last branch that matches and fastavro the first, and for both an int matches double. So
#   with ["null", "long", "double"] avro stores 9007199254740993 as 9007199254740992.0, with ["null",
#   "double", "long"] fastavro does, each without an error. Identifiers lose their last digit, and no order is
#   right for both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check avro==1.12.2 fastavro==1.13.1
"$folder/env/bin/python" -W ignore - <<'PY'
import io
import json
import sys

import avro.io
import avro.schema
import fastavro

BIG = 9007199254740993
CASES = [
    (["null", "long", "double"], 1),
    (["null", "long", "double"], BIG),
    (["null", "double", "long"], BIG),
]


def by_avro(schema, number):
    parsed, stream = avro.schema.parse(json.dumps(schema)), io.BytesIO()
    avro.io.DatumWriter(parsed).write(number, avro.io.BinaryEncoder(stream))
    return stream.getvalue()


def by_fastavro(schema, number):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, number)
    return stream.getvalue()


seen = []
for schema, number in CASES:
    row = [fastavro.schemaless_reader(io.BytesIO(write(schema, number)), schema) for write in (by_avro, by_fastavro)]
    print(f"{json.dumps(schema)} {number}: avro {row[0]!r}, fastavro {row[1]!r}")
    seen.append([repr(value) for value in row])
as_described = seen == [["1.0", "1"], ["9007199254740992.0", repr(BIG)], [repr(BIG), "9007199254740992.0"]]
sys.exit(0 if as_described else 1)
PY
