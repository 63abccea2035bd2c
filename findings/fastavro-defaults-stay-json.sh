#!/usr/bin/env bash
# fastavro 1.13.1: a field filled from the reader's default has another type than the same field when read.
#
# Expected: a missing field gets the reader schema's default as a value of the field's type: bytes for
#   bytes (the JSON string's code points 0-255 are the bytes), a record with its own defaults for a record.
#   Source: Apache Avro specification 1.12, "Complex Types, Records" (default, with its table of JSON
#   types) and "Schema Resolution". fastavro's documentation reads timestamp-millis as datetime.
# Seen: the JSON value itself. bytes come as str, timestamp-millis as int, and a nested record lacks the
#   fields that have defaults of their own. Only rows written before the schema grew are affected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check fastavro==1.13.1
"$folder/env/bin/python" - <<'PY'
import io
import sys
from datetime import UTC, datetime

from fastavro import parse_schema, schemaless_reader, schemaless_writer

NESTED = {
    "type": "record",
    "name": "Place",
    "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int", "default": 0}],
}
FIELDS = [
    {"name": "digest", "type": "bytes", "default": "\u00ff"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
    {"name": "place", "type": NESTED, "default": {"x": 1}},
]
old = parse_schema({"type": "record", "name": "Event", "fields": []})
new = parse_schema({"type": "record", "name": "Event", "fields": FIELDS})


def read(writer, value):
    stream = io.BytesIO()
    schemaless_writer(stream, writer, value)
    stream.seek(0)
    return schemaless_reader(stream, writer, new)


written = {"digest": b"\xff", "at": datetime(1970, 1, 1, tzinfo=UTC), "place": {"x": 1, "y": 0}}
read_back, defaulted = read(new, written), read(old, {})
print("as written:   ", read_back)
print("from defaults:", defaulted, "(expected the same)")
as_described = {"digest": "\u00ff", "at": 0, "place": {"x": 1}}
sys.exit(0 if (read_back, defaulted) == (written, as_described) else 1)
PY
