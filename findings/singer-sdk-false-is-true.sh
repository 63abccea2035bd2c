#!/usr/bin/env bash
# singer-sdk 0.54.9 (PyPI, Meltano): under the type boolean the text "false" becomes true.
#
# Expected: "false" stays text, so that the target's validation refuses it, or it becomes false.
#   Sources: Singer specification, "RECORD Message" and "SCHEMA Message" (records fit the JSON Schema);
#   docstring of conform_record_data_types ("Translate values in record dictionary to singer-compatible data
#   types"); JSON Schema, "type": a string is no boolean.
# Seen: whatever does not equal 0 is true: "false", "0", "no" and the empty string too. A
#   tap whose source writes booleans as text, as CSV files and many APIs do, turns every false into true, and
#   the record then passes the schema. Nothing is logged. With ["boolean", "string"] the text stays, and under
#   "integer" and "number" a text stays as it is. The number 0 and false are right, and so is an absent value.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check singer-sdk==0.54.9
"$folder/env/bin/python" -W ignore - <<'PY'
import json
import logging
import sys

from singer_sdk.helpers._typing import TypeConformanceLevel, conform_record_data_types


def conformed(value, *types):
    schema = {"type": "object", "properties": {"flag": {"type": [*types, "null"]}}}
    level = TypeConformanceLevel.RECURSIVE
    return conform_record_data_types("stream", {"flag": value}, schema, level, logging.getLogger())["flag"]


BOOLEAN = [
    ("false", True), ("0", True), ("no", True), ("", True), (2, True), (0, False), (False, False), (None, None),
]
as_described = True
for value, described in BOOLEAN:
    seen = conformed(value, "boolean")
    print(f"boolean: {json.dumps(value)} becomes {json.dumps(seen)}")
    as_described &= seen is described
for types in (("boolean", "string"), ("integer",), ("number",)):
    seen = conformed("false", *types)
    print(f'{" or ".join(types)}: "false" becomes {json.dumps(seen)}')
    as_described &= seen == "false"
sys.exit(0 if as_described else 1)
PY
