#!/usr/bin/env bash
# ion-js 5.2.1 (npm): integers with underscores, in binary notation, or hexadecimal and negative are not read.
#
# Expected: 1_000, 0b1010 and -0x1f are integers in Ion text.
#   Source: Amazon Ion specification, "Int" (decimal, hexadecimal and binary notation, an underscore between two
#   digits, an optional minus sign) and "Decimal" (underscores in its digits).
# Seen: an error for each of them: "invalid character after number", and for -0x1f "Cannot convert -0x1f to a
#   BigInt", which is the message of JavaScript's own BigInt(). 0x1f and -31 are read. No writer of the Ion
#   libraries emits these forms, so tests between the libraries pass; configurations and schemas that people
#   write contain them, and the whole document is refused. amazon.ion 0.15.0 for Python reads all of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check amazon.ion==0.15.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund ion-js@5.2.1 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const ion = require("ion-js");
const read = (text) => {
  try {
    return ion.load(text).toString();
  } catch (error) {
    return `error: ${error.message}`;
  }
};
console.log(JSON.stringify(process.argv.slice(2).map(read)));
JS
"$folder/env/bin/python" -W ignore - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

from amazon.ion import simpleion

UNREAD = "error: invalid character after number"
DESCRIBED = {
    "-31": (-31, "-31"),
    "0x1f": (31, "31"),
    "-0x1f": (-31, "error: Cannot convert -0x1f to a BigInt"),
    "0b1010": (10, UNREAD),
    "1_000": (1000, UNREAD),
    "0xdead_beef": (0xDEADBEEF, UNREAD),
    "1_000.5": (1000.5, UNREAD),
}
command = ["node", sys.argv[1], *DESCRIBED]
seen = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
as_described = True
for (text, (number, described)), answer in zip(DESCRIBED.items(), seen, strict=True):
    right = simpleion.loads(text)
    print(f"{text}: {answer} (expected {right}, as amazon.ion reads it)")
    as_described &= answer == described and right == number
sys.exit(0 if as_described else 1)
PY
