#!/usr/bin/env bash
# cloudevents 10.0.0 (JavaScript SDK): an event whose data is 0, false or "" arrives without data.
#
# Expected: the data member's JSON value, whatever it is. Data of 0 is not absent data.
#   Source: CloudEvents JSON event format 1.0.2, section 3.1 "Handling of Data".
# Seen: HTTP.toEvent() for structured mode gives undefined for 0, false and "", and HTTP.structured() of that
#   event writes no data member, so a relay destroys the value for all that follow. In binary mode the same
#   JSON documents come as strings: 0 as "0", true as "true"; sent on in structured mode they are JSON strings.
#   A counter at zero and a flag that is off are the cases that fail.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder/node" --silent --no-audit --no-fund cloudevents@10.0.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { HTTP } = require("cloudevents");

const attributes = { specversion: "1.0", id: "1", source: "/meters", type: "reading" };

function structured(data) {
  const body = JSON.stringify({ ...attributes, datacontenttype: "application/json", data });
  return HTTP.toEvent({ headers: { "content-type": "application/cloudevents+json" }, body });
}

function binary(data) {
  const headers = { "content-type": "application/json" };
  for (const name in attributes) headers[`ce-${name}`] = attributes[name];
  return HTTP.toEvent({ headers, body: JSON.stringify(data) });
}

function relayed(event) {
  return JSON.parse(HTTP.structured(event).body).data;
}

const seen = [];
for (const data of [7, 0, true, false, "", "a"]) {
  const row = [relayed(structured(data)), relayed(binary(data))].map((value) =>
    value === undefined ? "no data" : JSON.stringify(value));
  console.log("sent", JSON.stringify(data).padEnd(6), "structured:", row[0].padEnd(8), "binary:", row[1]);
  seen.push(row.join(" "));
}
console.log("(expected what was sent, both times)");
const asDescribed = [
  '7 "7"', 'no data "0"', 'true "true"', 'no data "false"', 'no data ""', '"a" "a"',
];
process.exit(JSON.stringify(seen) === JSON.stringify(asDescribed) ? 0 : 1);
JS
node "$folder/node/run.js"
