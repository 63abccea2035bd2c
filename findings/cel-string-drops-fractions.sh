#!/usr/bin/env bash
# cel-python 0.5.0 (PyPI): string() of a timestamp or a duration drops the fraction of a second.
#
# Expected: string(timestamp("9999-12-31T23:59:59.999999999Z")) is that same text, and in JSON a timestamp and a
#   duration are as in Protocol Buffers' JSON, with 3, 6 or 9 digits if there is a fraction.
#   Sources: CEL conformance tests, timestamps, "toString_timestamp_nanos"; CEL language definition, "JSON Data
#   Conversion"; ProtoJSON format, Timestamp and Duration.
# Seen: values have their fraction: they compare and add with it, and getMilliseconds() gives it. string() and
#   CELJSONEncoder cut it off: "2024-01-01T00:00:00Z" for half a second later, "0s" for 100 ms. So a value that
#   went through a string, a key made of a timestamp or a timeout from a rule, is another one. Durations below
#   a second vanish.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check cel-python==0.5.0 tzdata==2026.6
"$folder/env/bin/python" - <<'PY'
import json
import sys

import celpy

EXPECTED = {
    'string(timestamp("2024-01-01T00:00:00.5Z"))': "2024-01-01T00:00:00.500Z",
    'string(duration("1.5s"))': "1.500s",
    'string(duration("100ms"))': "0.100s",
    'timestamp("2024-01-01T00:00:00.5Z").getMilliseconds()': 500,
    'duration(string(duration("100ms"))) == duration("100ms")': True,
}
environment = celpy.Environment()


def evaluate(text):
    return environment.program(environment.compile(text)).evaluate({})


seen = []
for text, expected in EXPECTED.items():
    value = evaluate(text)
    seen.append(json.loads(json.dumps(value, cls=celpy.CELJSONEncoder)))
    print(f"{text:57} {value} (expected {expected})")
in_json = json.dumps(evaluate('[duration("1.5s")]'), cls=celpy.CELJSONEncoder)
print("in JSON:", in_json, '(expected ["1.500s"])')
as_described = ["2024-01-01T00:00:00Z", "1s", "0s", 500, False]
sys.exit(0 if (seen, in_json) == (as_described, '["1s"]') else 1)
PY
