#!/usr/bin/env bash
# jmespath (PyPI 1.1.0, npm 0.16.0): comparing a string with a number, Python raises a bare TypeError and
# JavaScript converts.
#
# Expected: null, so that the filter leaves the record out: ids [4]. The ordering operators are for numbers;
#   any other operand yields null.
#   Source: JMESPath specification, "Ordering Operators".
# Seen: for a string beside a number, Python's own TypeError comes out of search(). It is no
#   jmespath.exceptions.JMESPathError, so code that catches the library's errors misses it. Null, an array
#   or an object in the same place is left out quietly, as specified. The JavaScript library takes the string
#   "11" and even the array [11] for greater than 10. So for one record out of four the same filter gives
#   three answers: the specification's, Python's and JavaScript's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jmespath==1.1.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund jmespath@0.16.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { search } = require("jmespath");
console.log(JSON.stringify(search(JSON.parse(process.argv[2]), process.argv[3])));
JS
"$folder/env/bin/python" - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

import jmespath
from jmespath.exceptions import JMESPathError

EXPRESSION = "orders[?total > `10`].id"
REST = [{"id": 2, "total": None}, {"id": 3, "total": [11]}, {"id": 4, "total": 12}]
mixed = {"orders": [{"id": 1, "total": "11"}, *REST]}

without_string = jmespath.search(EXPRESSION, {"orders": REST})
try:
    python = jmespath.search(EXPRESSION, mixed)
except JMESPathError as error:
    python = f"the library's {type(error).__name__}"
except TypeError:
    python = "a bare TypeError"
command = ["node", sys.argv[1], json.dumps(mixed), EXPRESSION]
node = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
print("null, array, number: Python", without_string)
print("and a string:        Python", python, "(expected [4])")
print("and a string:        JavaScript", node, "(expected [4])")
sys.exit(0 if (without_string, python, node) == ([4], "a bare TypeError", [1, 3, 4]) else 1)
PY
