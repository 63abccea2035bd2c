#!/usr/bin/env bash
# fastparquet 2026.9.0 (PyPI): dates before 1677 and after 2262 are read as other dates.
#
# Expected: 9999-12-31, or an error. A Parquet DATE is a number of days since 1970 in 32 bits and holds it.
#   Source: Apache Parquet format, "Logical Types", DATE.
# Seen: days are multiplied to nanoseconds in 64 bits and wrap around: 9999-12-31 is read as 1816-03-29 at
#   05:56:08, 1600-01-01 as 2184. Nothing warns. Timestamps in milli- and microseconds are right, as the package
#   keeps their unit. 9999-12-31 is the usual "no end", so a record that never expires is read as one that
#   expired two centuries ago. The file is pyarrow 26.0.1's, which reads it right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  fastparquet==2026.9.0 pyarrow==26.0.1 pandas==3.1.1
"$folder/env/bin/python" - "$folder/dates.parquet" <<'PY'
import sys
from datetime import date, datetime

import pyarrow
import pyarrow.parquet
from fastparquet import ParquetFile

DATES = [date(2024, 2, 29), date(9999, 12, 31), date(1600, 1, 1)]
times = [datetime(day.year, day.month, day.day) for day in DATES]
table = pyarrow.table({"day": DATES, "time": pyarrow.array(times, pyarrow.timestamp("us"))})
pyarrow.parquet.write_table(table, sys.argv[1])
by_pyarrow = pyarrow.parquet.read_table(sys.argv[1]).column("day").to_pylist()
frame = ParquetFile(sys.argv[1]).to_pandas()
days = [str(value) for value in frame["day"]]
kept = [str(value)[:10] for value in frame["time"]] == [str(day) for day in DATES]
for written, read in zip(DATES, days, strict=True):
    print(f"written {written} read {read}")
print("the same as timestamps in microseconds, all right:", kept)
as_described = ["2024-02-29 00:00:00", "1816-03-29 05:56:08.066277376"]
as_described.append("2184-07-20 23:34:33.709551616")
sys.exit(0 if (by_pyarrow, days, kept) == (DATES, as_described, True) else 1)
PY
