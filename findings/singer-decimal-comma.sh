#!/usr/bin/env bash
# singer-python 6.8.0 (PyPI): a text with a decimal comma becomes a number a hundred times as large, and a
# fraction is cut if "integer" stands first among a field's types.
#
# Expected: "3,99" under {"type": ["null", "number"]} is 3.99 or a SchemaMismatch. 1.9 under ["integer",
#   "number"] is 1.9: it is no integer, but it is a number.
#   Sources: singer-python, docstring of singer.transform ("If no type matches a data field, this throws an
#   Exception"); JSON Schema, "type" (an array of types: the instance matches any of them; an integer is a
#   number with a zero fractional part).
# Seen: the transformer drops commas from texts before it converts them, wherever they stand: "3,99" is 399,
#   "1,5" is 15. With "integer" first int() takes a float too, so 1.9 is 1; with "number" first it stays.
#   Prices of a European export arrive a hundred times too high in every tap that transforms its records, and
#   nothing is logged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check singer-python==6.8.0
"$folder/env/bin/python" -W ignore - <<'PY'
import sys

from singer import Transformer
from singer.transform import SchemaMismatch

CASES = [  # value, types, what comes, what one would expect
    ("3.99", ["null", "number"], 3.99, 3.99),
    ("3,99", ["null", "number"], 399.0, "3.99 or SchemaMismatch"),
    ("1,5", ["null", "integer"], 15, "SchemaMismatch"),
    ("n/a", ["null", "number"], "SchemaMismatch", "SchemaMismatch"),
    (1.9, ["number", "integer"], 1.9, 1.9),
    (1.9, ["integer", "number"], 1, 1.9),
]
as_described = True
for value, types, described, expected in CASES:
    schema = {"type": "object", "properties": {"field": {"type": list(types)}}}
    try:
        seen = Transformer().transform({"field": value}, schema)["field"]
    except SchemaMismatch:
        seen = "SchemaMismatch"
    print(f"{value!r:7} as {types} gives {seen!r} (expected {expected})")
    as_described &= (type(seen), seen) == (type(described), described)
sys.exit(0 if as_described else 1)
PY
