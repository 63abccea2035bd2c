#!/usr/bin/env bash
# jmespath (PyPI 1.1.0, npm 0.16.0) and @aws-lambda-powertools/jmespath 2.36.0: to_number() takes whatever the
# host language takes for a number, and an empty string is one.
#
# Expected: a string that conforms to JSON's number becomes a number, any other gives null.
#   Sources: JMESPath specification, "Built-in Functions", to_number; RFC 8259, section 6.
# Seen: in JavaScript "" is 0, so to_number(x) cannot tell an empty field from a zero, and "0x10" is 16. In
#   Python both are null, but "1_0" is 10 and " 2 " is 2. The same expression in a Python and a TypeScript
#   Lambda function gives different values for the same event.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jmespath==1.1.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund \
  jmespath@0.16.0 @aws-lambda-powertools/jmespath@2.36.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const original = require("jmespath").search;
const powertools = require("@aws-lambda-powertools/jmespath").search;
const texts = JSON.parse(process.argv[2]);
const by = (search) => texts.map((text) => search({ a: text }));
console.log(
  JSON.stringify([by((x) => original(x, "to_number(a)")), by((x) => powertools("to_number(a)", x))]),
);
JS
"$folder/env/bin/python" - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

import jmespath

TEXTS = ["", "0x10", "1_0", " 2 "]
python = [jmespath.search("to_number(a)", {"a": text}) for text in TEXTS]
command = ["node", sys.argv[1], json.dumps(TEXTS)]
node, powertools = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
for text, *values in zip(TEXTS, python, node, powertools, strict=True):
    print(f"{text!r:7} Python {values[0]}, npm {values[1]}, Powertools {values[2]} (expected None)")
as_described = [None, None, 10, 2], [0, 16, None, 2], [0, 16, None, 2]
sys.exit(0 if (python, node, powertools) == as_described else 1)
PY
