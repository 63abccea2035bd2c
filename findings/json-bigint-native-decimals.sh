#!/usr/bin/env bash
# json-bigint 1.0.0 (npm): with `useNativeBigInt: true`, a fraction written with 16 characters or more is an
# error.
#
# Expected: integers beyond 2^53 become BigInt; a fraction is a number, as JSON.parse gives it.
#   Source: the package's README, "options.useNativeBigInt" (native BigInt instead of bignumber.js for what
#   exceeds 15 digits), and RFC 8259, section 6.
# Seen: what is longer than 15 characters, sign, point and exponent counted, is given to BigInt() whatever it
#   is, so 0.30000000000000004, which is what JSON.stringify(0.1 + 0.2) writes, and coordinates of 17 digits
#   end the whole document with SyntaxError. 100000000000000.5 too, but 1e-17 does not. It depends on the
#   value of one reading whether a message can be parsed at all. In the other mode such a fraction is a
#   BigNumber object, no number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder/node" --silent --no-audit --no-fund json-bigint@1.0.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const json = require("json-bigint");
const modes = { native: json({ useNativeBigInt: true }), bignumber: json };

function kind(parse, text) {
  try {
    return typeof parse(text).x;
  } catch (error) {
    return error.name;
  }
}

const DESCRIBED = [
  ["9007199254740993", "bigint", "object"],
  ["13.40495399999", "number", "number"],
  ["1e-17", "number", "number"],
  ["0.30000000000000004", "SyntaxError", "object"],
  ["13.404953999999975", "SyntaxError", "object"],
  ["100000000000000.5", "SyntaxError", "object"],
];
let asDescribed = true;
for (const [number, ...described] of DESCRIBED) {
  const text = `{"x":${number}}`;
  const seen = Object.values(modes).map((mode) => kind(mode.parse, text));
  console.log(number.padEnd(20), "native:", seen[0].padEnd(12), "bignumber:", seen[1].padEnd(8), "JSON.parse:",
    kind(JSON.parse, text));
  asDescribed &&= String(seen) === String(described);
}
process.exit(asDescribed ? 0 : 1);
JS
code=0
node "$folder/node/run.js" || code=$?
exit "$code"
