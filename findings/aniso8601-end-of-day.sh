#!/usr/bin/env bash
# aniso8601 10.0.1 (PyPI): the end of a day is read as its beginning.
#
# Expected: 24:00 is midnight at the end of the day that is named. 2024-02-29T24:00:00Z is the same instant as
#   2024-03-01T00:00:00Z.
#   Sources: ISO 8601:2004, section 4.2.3 "Midnight"; ISO 8601-1:2019 took 24:00 out, its Amendment 1 of 2022
#   put it back. The library has an error of its own for any other time in hour 24, so it means to follow it.
# Seen: 2024-02-29T00:00:00, a day too early. A whole day as an interval,
#   2024-02-29T00:00Z/2024-02-29T24:00Z, ends where it begins. ciso8601 2.4.1 reads the next day. Whoever
#   writes the end of a period or of opening hours as 24:00 gets a shorter or a negative one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check aniso8601==10.0.1 ciso8601==2.4.1
"$folder/env/bin/python" - <<'PY'
import sys

import aniso8601
import ciso8601

TEXT = "2024-02-29T24:00:00Z"
aniso = aniso8601.parse_datetime(TEXT).isoformat()
ciso = ciso8601.parse_datetime(TEXT).isoformat()
start, end = aniso8601.parse_interval("2024-02-29T00:00Z/2024-02-29T24:00Z")
try:
    aniso8601.parse_datetime("2024-02-29T24:00:01Z")
    second_past = "no error"
except aniso8601.exceptions.MidnightBoundsError as error:
    second_past = str(error)
print(TEXT)
print("  aniso8601:", aniso, "(expected 2024-03-01T00:00:00+00:00)")
print("  ciso8601: ", ciso)
print("length of the whole day as an interval:", end - start, "(expected 1 day)")
print("24:00:01:", second_past)
seen = (aniso, ciso, start == end)
sys.exit(0 if seen == ("2024-02-29T00:00:00+00:00", "2024-03-01T00:00:00+00:00", True) else 1)
PY
