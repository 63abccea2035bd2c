#!/usr/bin/env bash
# csvkit 2.2.0 with agate 1.14.2 (PyPI): the fraction of a second is dropped if a space stands between date
# and time.
#
# Expected: 2024-01-01 12:34:56.789 keeps its milliseconds, as 2024-01-01T12:34:56.789 does.
#   Source: csvkit documentation, "csvjson" and "csvsql" (types are inferred, values kept; --no-inference
#   keeps text); agate's DateTime, which holds microseconds.
# Seen: the value counts as a timestamp and comes out as 2024-01-01T12:34:56, without a warning, and two
#   events of one second become equal. PostgreSQL writes timestamps this way, in COPY to CSV too, and so do
#   many exports. With a "T", or with --no-inference, the fraction stays. csvsql makes the same values for its
#   inserts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check csvkit==2.2.0 agate==1.14.2
cat >"$folder/in.csv" <<'CSV'
id,space,letter
1,2024-01-01 12:34:56.789,2024-01-01T12:34:56.789
2,2024-01-01 12:34:56.012,2024-01-01T12:34:56.012
CSV
cd "$folder"
env/bin/csvjson --snifflimit 0 in.csv >inferred.json
env/bin/csvjson --snifflimit 0 --no-inference in.csv >text.json
env/bin/csvsql --snifflimit 0 --db "sqlite:///$folder/out.db" --insert in.csv
env/bin/python - <<'PY'
import json
import sqlite3
import sys

inferred = json.load(open("inferred.json"))
plain = json.load(open("text.json"))
stored = sqlite3.connect("out.db").execute('select space, letter from "in"').fetchall()
print("inferred:", [row["space"] for row in inferred], "with T:", [row["letter"] for row in inferred])
print("text:    ", [row["space"] for row in plain])
print("csvsql:  ", stored)
as_described = [row["space"] for row in inferred] == ["2024-01-01T12:34:56"] * 2
as_described &= [row["letter"] for row in inferred] == ["2024-01-01T12:34:56.789000", "2024-01-01T12:34:56.012000"]
as_described &= [row["space"] for row in plain] == ["2024-01-01 12:34:56.789", "2024-01-01 12:34:56.012"]
as_described &= [letter.rstrip("0") for _, letter in stored] == ["2024-01-01 12:34:56.789", "2024-01-01 12:34:56.012"]
as_described &= len({space for space, _ in stored}) == 1
sys.exit(0 if as_described else 1)
PY
