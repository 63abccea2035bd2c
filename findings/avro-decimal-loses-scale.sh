#!/usr/bin/env bash
# avro 1.12.2 (PyPI, Apache Avro): a decimal with fewer digits after the point than the schema's scale is
# stored as another number.
#
# Expected: 1.5 under scale 2 is stored as the unscaled integer 150 and read back as 1.50.
#   Source: Apache Avro 1.12.0 specification, "Decimal": the unscaled value of a number of the schema's scale.
# Seen: the digits are stored as they stand, whatever their exponent. Decimal("1.5") is read back as 0.15,
#   Decimal("128") as 1.28 and Decimal("1E+3") as 0.01, without an error, for bytes and for fixed. Only
#   numbers that are already quantized to the scale are right. More digits than the scale are refused.
#   fastavro 1.13.1 writes the expected bytes, and reads the wrong number from what avro wrote.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check avro==1.12.2 fastavro==1.13.1
"$folder/env/bin/python" -W ignore - <<'PY'
import io
import json
import sys
from decimal import Decimal

import avro.io
import avro.schema
import fastavro

BYTES = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}
FIXED = BYTES | {"type": "fixed", "name": "amount", "size": 5}
DESCRIBED = {"1.50": "1.50", "1.5": "0.15", "128": "1.28", "-7": "-0.07", "1E+3": "0.01"}


def by_avro(schema, number):
    parsed, stream = avro.schema.parse(json.dumps(schema)), io.BytesIO()
    avro.io.DatumWriter(parsed).write(number, avro.io.BinaryEncoder(stream))
    return stream.getvalue()


def by_fastavro(schema, number):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, number)
    return stream.getvalue()


def read(schema, data):
    parsed = avro.schema.parse(json.dumps(schema))
    number = avro.io.DatumReader(parsed).read(avro.io.BinaryDecoder(io.BytesIO(data)))
    assert number == fastavro.schemaless_reader(io.BytesIO(data), schema)
    return number


as_described = True
for schema in (BYTES, FIXED):
    for text, described in DESCRIBED.items():
        number = Decimal(text)
        seen, expected = (read(schema, write(schema, number)) for write in (by_avro, by_fastavro))
        print(f"{schema['type']} {text}: avro {seen}, fastavro {expected}")
        as_described &= seen == Decimal(described) and expected == number
sys.exit(0 if as_described else 1)
PY
