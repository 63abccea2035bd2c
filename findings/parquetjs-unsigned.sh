#!/usr/bin/env bash
# @dsnp/parquetjs 1.8.8 (npm): large values of unsigned columns are read as negative numbers.
#
# Expected: 3000000000 from a UINT_32 column. Unsigned types are stored in INT32 and INT64, and the annotation
#   says how to read them.
#   Sources: Apache Parquet format, "Logical Types", "Unsigned Integers"; the README's table of types lists
#   UINT_8 to UINT_64.
# Seen: -1294967296, and -9223372036854775803 for 9223372036854775813 from UINT_64. The file is pyarrow
#   26.0.1's; pyarrow itself and hyparquet 1.33.0 (npm) read what was written. Hashes, IPv4 addresses as numbers
#   and counters beyond half the range are hurt. Small values are right, so tests pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
npm install --prefix "$folder/node" --silent --no-audit --no-fund @dsnp/parquetjs@1.8.8 hyparquet@1.33.0 \
  >"$folder/npm.log"
cat >"$folder/node/run.mjs" <<'JS'
import { readFileSync } from "fs";
import { parquetReadObjects } from "hyparquet";
import parquet from "@dsnp/parquetjs";

const path = process.argv[2];
const file = new Uint8Array(readFileSync(path)).buffer;
const text = (row) => [String(row.small), String(row.large)];
const reader = await parquet.ParquetReader.openFile(path);
const cursor = reader.getCursor();
const rows = [await cursor.next(), await cursor.next()];
await reader.close();
const other = await parquetReadObjects({ file });
console.log(JSON.stringify({ parquetjs: rows.map(text), hyparquet: other.map(text) }));
JS
"$folder/env/bin/python" - "$folder" <<'PY'
import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet

path = sys.argv[1] + "/unsigned.parquet"
table = pyarrow.table(
    {
        "small": pyarrow.array([7, 3_000_000_000], pyarrow.uint32()),
        "large": pyarrow.array([7, 2**63 + 5], pyarrow.uint64()),
    }
)
pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
written = [[str(value) for value in row.values()] for row in table.to_pylist()]
command = ["node", sys.argv[1] + "/node/run.mjs", path]
seen = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
print("written by pyarrow:", written)
for name, rows in seen.items():
    print(f"read by {name:10} {rows} (expected the same)")
wrong = [["7", "7"], ["-1294967296", "-9223372036854775803"]]
sys.exit(0 if seen == {"parquetjs": wrong, "hyparquet": written} else 1)
PY
