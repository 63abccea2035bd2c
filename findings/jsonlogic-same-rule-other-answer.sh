#!/usr/bin/env bash
# json-logic-engine 5.0.7 (npm) and json-logic-qubit 0.9.1 (PyPI): the same JsonLogic rule gives another
# answer than with json-logic-js 2.0.5.
#
# Expected: one answer. JsonLogic is for rules that several languages share.
#   Sources: jsonlogic.com, "Supported Operations" and "Truthy and Falsy", whose reference is json-logic-js;
#   json-logic-qubit's docstring: a Python implementation of the JsonLogic JS library.
# Seen: null == 0 is true in json-logic-engine and false elsewhere; "missing" does not count null and "" as
#   missing there. In Python the remainder of -5 by 3 is 1 instead of -2, true as text is "True" and null
#   "None". An empty object is falsy in both, and truthy in the reference. So a rule that was tried in the
#   browser selects other records on the server, without an error: the zero that was measured equals the one
#   that is missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check json-logic-qubit==0.9.1
npm install --prefix "$folder/node" --silent --no-audit --no-fund \
  json-logic-js@2.0.5 json-logic-engine@5.0.7 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const reference = require("json-logic-js");
const { LogicEngine } = require("json-logic-engine");
const engine = new LogicEngine();
const answers = JSON.parse(process.argv[2]).map(([rule, data]) =>
  [reference.apply(rule, data), engine.run(rule, data)]);
console.log(JSON.stringify(answers));
JS
"$folder/env/bin/python" -W ignore - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

from json_logic import jsonLogic

CASES = [  # rule, data, the reference's answer, json-logic-engine's, json-logic-qubit's
    ({">": [{"var": "a"}, 1]}, {"a": 2}, True, True, True),
    ({"==": [{"var": "a"}, 0]}, {"a": None}, False, True, False),
    ({"missing": ["a", "b"]}, {"a": "", "b": None}, ["a", "b"], [], ["a", "b"]),
    ({"%": [{"var": "a"}, 3]}, {"a": -5}, -2, -2, 1),
    ({"cat": ["a is ", {"var": "a"}]}, {"a": True}, "a is true", "a is true", "a is True"),
    ({"!!": [{"var": "a"}]}, {"a": {}}, True, False, False),
]
command = ["node", sys.argv[1], json.dumps([[rule, data] for rule, data, *_ in CASES])]
output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
as_described = True
for (rule, data, *described), answers in zip(CASES, json.loads(output), strict=True):
    seen = [*answers, jsonLogic(rule, data)]
    print(json.dumps(rule), json.dumps(data))
    print(f"  json-logic-engine {seen[1]!r}, json-logic-qubit {seen[2]!r} (expected {seen[0]!r})")
    as_described &= json.dumps(seen) == json.dumps(described)
sys.exit(0 if as_described else 1)
PY
