#!/usr/bin/env bash
# csv-parse 7.0.3 (npm): with `cast: true`, a hexadecimal, octal or binary literal becomes the number 0.
#
# Expected: "0x1A" stays the text "0x1A", as "12abc" and "1_000" do, or becomes 26.
#   Source: csv.js.org, csv-parse, option "cast": it converts input strings to native types.
# Seen: "0x1A", "0XFF", "0b101", "0o17" are 0. The test for a number uses JavaScript's conversion, which knows
#   these prefixes, and the conversion uses parseFloat, which stops at the letter. A signed one, "-0x1A",
#   stays text, because the conversion refuses it. So a column of device addresses or colours in hexadecimal
#   becomes a column of zeros, and rows that differed are equal.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder/node" --silent --no-audit --no-fund csv-parse@7.0.3 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { parse } = require("csv-parse/sync");

const EXPECTED = [["0x1A", 0], ["0XFF", 0], ["0b101", 0], ["0o17", 0], ["-0x1A", "-0x1A"], ["12abc", "12abc"],
  ["1_000", "1_000"], ["26", 26]];
let asDescribed = true;
for (const [cell, described] of EXPECTED) {
  const [[plain]] = parse(cell);
  const [[seen]] = parse(cell, { cast: true });
  console.log(JSON.stringify(cell).padEnd(8), "as text:", plain.padEnd(6), "cast:", JSON.stringify(seen));
  asDescribed &&= seen === described && plain === cell;
}
process.exit(asDescribed ? 0 : 1);
JS
code=0
node "$folder/node/run.js" || code=$?
exit "$code"
