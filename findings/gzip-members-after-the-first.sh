#!/usr/bin/env bash
# fflate 0.8.3 (npm) and deflate 0.9.0 (PyPI): of a gzip file with several members they return the first.
#
# Expected: the data of all members, one after another. A gzip file is a series of members.
#   Source: RFC 1952, section 2.2 "File format". Node's zlib, Python's gzip and fflate's own streaming Gunzip,
#   which its comment says is for one member or several, do so.
# Seen: gunzipSync(), decompressSync(), gunzip() and deflate.gzip_decompress() return the first member's data,
#   with no error and no word about the rest. A writer that appends to a log, or joins records that were
#   compressed one by one, makes such files: CloudWatch Logs gives Firehose gzipped records, and Firehose writes
#   them one after another. From such a file one gets the first record and takes it for all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check deflate==0.9.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund fflate@0.8.3 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { readFileSync } = require("fs");
const zlib = require("zlib");
const { Gunzip, decompressSync, gunzip, gunzipSync, strFromU8 } = require("fflate");

const file = readFileSync(process.argv[2]);
let streamed = "";
new Gunzip((chunk) => (streamed += strFromU8(chunk))).push(file, true);
gunzip(file, (error, data) => {
  const seen = {
    "node zlib": zlib.gunzipSync(file).toString(),
    "fflate Gunzip": streamed,
    "fflate gunzipSync": strFromU8(gunzipSync(file)),
    "fflate decompressSync": strFromU8(decompressSync(file)),
    "fflate gunzip": error ? error.message : strFromU8(data),
  };
  console.log(JSON.stringify(seen));
});
JS
"$folder/env/bin/python" - "$folder" <<'PY'
import gzip
import json
import subprocess
import sys
from pathlib import Path

import deflate

path = Path(sys.argv[1], "two.json.gz")
path.write_bytes(gzip.compress(b'{"i":1}\n') + gzip.compress(b'{"i":2}\n'))
command = ["node", sys.argv[1] + "/node/run.js", str(path)]
seen = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
seen["Python gzip"] = gzip.decompress(path.read_bytes()).decode()
seen["deflate"] = bytes(deflate.gzip_decompress(path.read_bytes())).decode()
rows = {name: text.count("\n") for name, text in seen.items()}
for name, count in rows.items():
    print(f"{name:22} rows {count} (expected 2)")
short = {name for name, count in rows.items() if count == 1}
first_only = {"fflate gunzipSync", "fflate decompressSync", "fflate gunzip", "deflate"}
sys.exit(0 if short == first_only and set(rows.values()) == {1, 2} else 1)
PY
