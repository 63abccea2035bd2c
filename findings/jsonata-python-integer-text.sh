#!/usr/bin/env bash
# jsonata-python 0.7.1 (PyPI): an integer of 16 digits or more loses digits when it becomes text.
#
# Expected: $string() of a number is its JSON text, so 1234567890123456 gives "1234567890123456". The
#   reference implementation does so for every integer that it can hold exactly.
#   Source: docs.jsonata.org, "String functions", $string: other values as by JSON.stringify.
# Seen: integers are rounded to 15 significant digits and written in scientific notation:
#   "1.23456789012346e+15", and 10^15 is "1e+15". The operator & does the same, so "order-" & id gives the
#   same text for different orders. Inside an object or array that is turned into text, the same integer is
#   whole. Identifiers and epochs in microseconds have 16 digits. Fifteen digits are safe.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jsonata-python==0.7.1
npm install --prefix "$folder/node" --silent --no-audit --no-fund jsonata@2.2.2 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const jsonata = require("jsonata");
const [expression, input] = process.argv.slice(2);
jsonata(expression).evaluate(JSON.parse(input)).then((value) => console.log(value));
JS
"$folder/env/bin/python" - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

import jsonata

DESCRIBED = [
    ("$string(id)", 123456789012345, "123456789012345"),
    ("$string(id)", 1234567890123456, "1.23456789012346e+15"),
    ("$string(id)", 1000000000000001, "1e+15"),
    ('"order-" & id', 1234567890123456, "order-1.23456789012346e+15"),
    ('"order-" & id', 1234567890123457, "order-1.23456789012346e+15"),
    ('$string({"id": id})', 1234567890123456, '{"id":1234567890123456}'),
]
as_described = True
for expression, number, described in DESCRIBED:
    document = {"id": number}
    seen = jsonata.Jsonata(expression).evaluate(document)
    command = ["node", sys.argv[1], expression, json.dumps(document)]
    reference = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    print(f"{expression} of {number}: {seen} (reference: {reference})")
    as_described &= seen == described and str(number) in reference
sys.exit(0 if as_described else 1)
PY
