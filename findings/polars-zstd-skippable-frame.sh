#!/usr/bin/env bash
# polars 2.1.0: reads no NDJSON from a zstd file that begins with a skippable frame.
#
# Expected: a skippable frame may stand anywhere among a file's frames, and a decoder passes over it.
#   Source: RFC 8878, sections 3 and 3.1.2. pzstd writes one before each of its frames.
# Seen: the error that the text is not UTF-8, as if the file were not compressed. With the same frame in the
#   middle or at the end, the file is read. pyarrow
#   26.0.1 and duckdb 2.0.0 read all three files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  polars==2.1.0 pyarrow==26.0.1 duckdb==2.0.0 backports.zstd==1.8.0
"$folder/env/bin/python" - "$folder" <<'PY'
import struct
import sys
from pathlib import Path

import duckdb
import polars
import pyarrow.json
from backports import zstd

SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"note"
one, two = zstd.compress(b'{"i": 1}\n'), zstd.compress(b'{"i": 2}\n')
FILES = {
    "first": SKIPPABLE + one + two,
    "middle": one + SKIPPABLE + two,
    "last": one + two + SKIPPABLE,
}
READERS = {
    "polars": lambda path: polars.read_ndjson(path).height,
    "pyarrow": lambda path: pyarrow.json.read_json(path).num_rows,
    "duckdb": lambda path: duckdb.sql(f"select * from read_json('{path}')").fetchall().__len__(),
}
seen = {}
for place, content in FILES.items():
    path = Path(sys.argv[1], f"{place}.json.zst")
    path.write_bytes(content)
    for name, read in READERS.items():
        try:
            seen[name, place] = read(str(path))
        except Exception as error:
            seen[name, place] = type(error).__name__
        print(f"{name:8} skippable frame {place:7} rows {seen[name, place]} (expected 2)")
as_described = {key: 2 for key in seen} | {("polars", "first"): "ComputeError"}
sys.exit(0 if seen == as_described else 1)
PY
