#!/usr/bin/env bash
# notepack.io 3.0.1 and @ygoe/msgpack 1.0.3 (npm): large numbers are written as other numbers, 2^64 as 0.
#
# Expected: a JavaScript number that MessagePack's integers do not hold is written as float 64, which is the
#   number itself.
#   Source: MessagePack specification, "Formats", int format family (at most uint 64 and int 64) and float
#   format family; notepack.io's README: "the latest MessagePack spec".
# Seen: a number without a fraction counts as an integer, however large, and its low 64 bits are written.
#   notepack.io makes 0 of 2^64 and of 1e300, and 7766279631452242000 of 1e20. @ygoe/msgpack makes a negative
#   number of 2^63 and 18446744073709551615 of 1e20. No error comes. All floating-point numbers from 2^53 on
#   have no fraction, so a sensor's, a physical constant's or a sum's value changes as soon as it is large.
#   msgpackr 2.1.3 writes float 64 for all of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder/node" --silent --no-audit --no-fund --omit=optional \
  notepack.io@3.0.1 @ygoe/msgpack@1.0.3 msgpackr@2.1.3 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const notepack = require("notepack.io");
const ygoe = require("@ygoe/msgpack");
const { unpack } = require("msgpackr"); // reads all three, so that only the writers differ
const { pack } = require("msgpackr");

const cases = [ // value, written by notepack.io, by @ygoe/msgpack
  [2 ** 53, 2 ** 53, 2 ** 53],
  [2 ** 63, 2 ** 63, -(2 ** 63)],
  [2 ** 64, 0, 0],
  [1e20, 7766279631452241920, 2 ** 64],
  [-1e20, -7766279631452241920, -(2 ** 63)],
  [1e300, 0, 2 ** 64],
  [1.5, 1.5, 1.5],
];
let asDescribed = true;
for (const [value, ...described] of cases) {
  const seen = [notepack.encode(value), ygoe.serialize(value), pack(value)].map((bytes) =>
    Number(unpack(Buffer.from(bytes))));
  console.log(String(value).padEnd(20), "notepack.io:", seen[0], " @ygoe/msgpack:", seen[1],
    " msgpackr:", seen[2]);
  asDescribed &&= seen[0] === described[0] && seen[1] === described[1] && seen[2] === value;
}
console.log("(expected the number itself, all three times)");
process.exit(asDescribed ? 0 : 1);
JS
node "$folder/node/run.js"
