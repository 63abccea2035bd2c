#!/usr/bin/env bash
# avro 1.12.2 (Apache's own Python package): a field with a logical type gives the schema a fingerprint of its
# own.
#
# Expected: the fingerprint is the hash of the Parsing Canonical Form. It keeps no attribute but those
#   needed to read data ([STRIP]; logicalType is not among them) and writes primitive types in their
#   simple form ([PRIMITIVES]): {"type":"long","logicalType":"timestamp-millis"} becomes "long".
#   Source: Apache Avro specification 1.12, "Transforming into Parsing Canonical Form".
# Seen: the attribute is stripped, but {"type":"long"} stays an object. Its fingerprint (CRC-64-AVRO, the one
#   of the single-object encoding) differs from that of fastavro 1.13.1, and the MD5 from that of avsc 5.7.9
#   (Node.js). A registry that looks schemas up by fingerprint does not find it. Without a logicalType,
#   {"type":"long"} is written as "long", and all agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check avro==1.12.2 fastavro==1.13.1
npm install --prefix "$folder/node" --silent --no-audit --no-fund avsc@5.7.9 >"$folder/npm.log"
cat >"$folder/node/md5.js" <<'JS'
const avro = require("avsc");
console.log(avro.Type.forSchema(JSON.parse(process.argv[2])).fingerprint("md5").toString("hex"));
JS
"$folder/env/bin/python" - "$folder/node/md5.js" <<'PY'
import json
import subprocess
import sys

import avro.schema
from fastavro.schema import fingerprint, to_parsing_canonical_form


def compare(type_):
    schema = {"type": "record", "name": "Event", "fields": [{"name": "at", "type": type_}]}
    text = json.dumps(schema)
    apache = avro.schema.parse(text)
    fast = to_parsing_canonical_form(schema)
    command = ["node", sys.argv[1], text]
    node = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    print("avro    ", apache.canonical_form)
    print("fastavro", fast)
    rows = [
        ("CRC-64-AVRO", apache.fingerprint("CRC-64-AVRO").hex(), fingerprint(fast, "CRC-64-AVRO")),
        ("MD5", apache.fingerprint("md5").hex(), fingerprint(fast, "MD5"), node),
    ]
    for row in rows:
        print("  ", *row)
    return len({fingerprint(fast, "MD5"), node}) == 1, [row[1] == row[2] for row in rows]


plain = compare({"type": "long"})
logical = compare({"type": "long", "logicalType": "timestamp-millis"})
sys.exit(0 if plain == (True, [True, True]) and logical == (True, [False, False]) else 1)
PY
