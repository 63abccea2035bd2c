#!/usr/bin/env bash
# iso8601-duration 2.1.4 (npm): a duration is read up to its first sign, and the rest is dropped.
#
# Expected: the value, or an error: the README says that signs are not supported yet, and parse() throws a
#   RangeError for what it cannot read.
#   Sources: ISO 8601-2:2019, 4.4 (signs); PostgreSQL documentation, 8.5.5 "Interval Output", whose iso_8601
#   style writes a sign at each part that is negative.
# Seen: the pattern is anchored at neither end. "P1DT-2H", as PostgreSQL writes 22 hours, is a day. "-P1D" is
#   plus one day, "PT1H-30M" an hour. Only a sign that comes before all numbers fails. Luxon 3.7.2 reads all of
#   them. The README's own example of a fraction, "P0.5D", is a RangeError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder/node" --silent --no-audit --no-fund \
  iso8601-duration@2.1.4 luxon@3.7.2 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { parse, toSeconds } = require("iso8601-duration");
const { Duration } = require("luxon");

function seconds(text) {
  try {
    return toSeconds(parse(text));
  } catch (error) {
    return error.name;
  }
}

const expected = { "P1DT-2H": 79200, "-P1D": -86400, "PT1H-30M": 1800, "P-1D": -86400, "P0.5D": 43200 };
const seen = {};
for (const text in expected) {
  seen[text] = [seconds(text), Duration.fromISO(text).as("seconds")];
  console.log(text.padEnd(9), "iso8601-duration", seen[text][0], "luxon", seen[text][1],
    `(expected ${expected[text]})`);
}
const asDescribed = {
  "P1DT-2H": [86400, 79200],
  "-P1D": [86400, -86400],
  "PT1H-30M": [3600, 1800],
  "P-1D": ["RangeError", -86400],
  "P0.5D": ["RangeError", 43200],
};
process.exit(JSON.stringify(seen) === JSON.stringify(asDescribed) ? 0 : 1);
JS
node "$folder/node/run.js"
