#!/usr/bin/env bash
# cbor-sync 1.0.4 (npm): a time as seconds since 1970 is read as milliseconds, so every date is in January
# 1970.
#
# Expected: tag 1 with 1363896240 is 2013-03-21T20:04:00Z. The number counts seconds.
#   Source: RFC 8949, section 3.4.2 "Epoch-Based Date/Time" and appendix A, whose example this is (RFC 7049,
#   section 2.4.1, said the same).
# Seen: 1970-01-16T18:51:36.240Z: the number is given to JavaScript's Date, which counts milliseconds. The
#   library itself writes dates as text (tag 0), so what it writes it reads. But cbor and cbor-x (npm) write
#   tag 1 for a date, and others by an option, and from those every time is wrong by a factor of a thousand.
#   cbor-x 1.6.8 reads the example right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder/node" --silent --no-audit --no-fund --omit=optional \
  cbor-sync@1.0.4 cbor-x@1.6.8 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const sync = require("cbor-sync");
const other = require("cbor-x");

const cases = [ // bytes, cbor-sync's time, the right one
  ["c11a514b67b0", "1970-01-16T18:51:36.240Z", "2013-03-21T20:04:00.000Z"], // 1363896240
  ["c1fb41d452d9ec200000", "1970-01-16T18:51:36.240Z", "2013-03-21T20:04:00.500Z"], // 1363896240.5
  ["c13901f3", "1969-12-31T23:59:59.500Z", "1969-12-31T23:51:40.000Z"], // -500
  ["c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00.000Z", "2013-03-21T20:04:00.000Z"],
];
let asDescribed = true;
for (const [hex, described, right] of cases) {
  const bytes = Buffer.from(hex, "hex");
  const seen = sync.decode(bytes).toISOString();
  const expected = other.decode(bytes).toISOString();
  console.log(`tag ${bytes[0] - 0xc0}: cbor-sync ${seen}, cbor-x ${expected} (expected ${right})`);
  asDescribed &&= seen === described && expected === right;
}
process.exit(asDescribed ? 0 : 1);
JS
node "$folder/node/run.js"
