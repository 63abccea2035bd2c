#!/usr/bin/env bash
# jmespath 1.1.0 (PyPI): contains() takes true for 1 and false for 0, although == does not.
#
# Expected: contains([true], 1) is false: the function says whether the array has a value equal to the
#   search, and in JMESPath true == 1 is false.
#   Source: JMESPath specification, "Built-in Functions", contains, and "Equality Operators".
# Seen: true. The comparison operator guards against Python's True == 1, the function does not, so a filter
#   by contains() and one by == choose different records. jmespath 0.16.0 for JavaScript says false.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jmespath==1.1.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund jmespath@0.16.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const [data, ...expressions] = process.argv.slice(2);
const { search } = require("jmespath");
console.log(JSON.stringify(expressions.map((text) => search(JSON.parse(data), text))));
JS
"$folder/env/bin/python" - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

import jmespath

DATA = '{"flags": [true], "counts": [0]}'
EXPRESSIONS = [
    "contains(flags, `1`)",
    "flags[0] == `1`",
    "contains(counts, `false`)",
    "counts[0] == `false`",
]
python = [jmespath.search(text, json.loads(DATA)) for text in EXPRESSIONS]
command = ["node", sys.argv[1], DATA, *EXPRESSIONS]
node = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
for text, here, there in zip(EXPRESSIONS, python, node, strict=True):
    print(f"{text:28} Python {here!s:6} JavaScript {there} (expected False)")
sys.exit(0 if python == [True, False, True, False] and not any(node) else 1)
PY
