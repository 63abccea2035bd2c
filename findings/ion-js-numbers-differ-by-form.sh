#!/usr/bin/env bash
# ion-js 5.2.1 (npm): the same JavaScript number is written as one integer in Ion text and as another in Ion
# binary, or as a float in one and an integer in the other.
#
# Expected: dumpText() and dumpBinary() of one value give the same value. Ion's text and binary forms encode
#   one data model, and one can be turned into the other without loss.
#   Source: Amazon Ion specification, "The Ion Data Model", and "Int" (integers of arbitrary size).
# Seen: beyond 2^53 the text has the shortest digits that JavaScript needs to tell a double from its
#   neighbours, as an Ion int, and an int is exact: 2^63 is 9223372036854776000 in text and
#   9223372036854775808 in binary. From 1e21 on it is a float in text and an int in binary, 1e300 one of 301
#   digits. A record that is hashed, compared or deduplicated by its Ion value therefore depends on how it was
#   written, and readers in other languages get int or float. Numbers up to 2^53 and fractions agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder" --silent --no-audit --no-fund ion-js@5.2.1 >"$folder/npm.log"
cat >"$folder/run.js" <<'JS'
const ion = require("ion-js");
const described = [
  [42, "int 42", "int 42"],
  [0.5, "float 5e-1", "float 5e-1"],
  [2 ** 53, "int 9007199254740992", "int 9007199254740992"],
  [2 ** 60, "int 1152921504606847000", "int 1152921504606846976"],
  [2 ** 63, "int 9223372036854776000", "int 9223372036854775808"],
  [1e21, "float 1e21", "int 1000000000000000000000"],
];
let asDescribed = true;
for (const [number, ...expected] of described) {
  const seen = [ion.dumpText(number), ion.dumpBinary(number)].map((data) => {
    const value = ion.load(data);
    return `${value.getType().name} ${ion.dumpText(value)}`;
  });
  console.log(`${number}: ${seen[0]} in text, ${seen[1]} in binary (expected the same)`);
  asDescribed &&= seen.every((each, index) => each === expected[index]);
}
process.exit(asDescribed ? 0 : 1);
JS
node "$folder/run.js"
