#!/usr/bin/env bash
# iso8601 2.1.0 (PyPI): a time with a decimal fraction of a minute loses its minutes.
#
# Expected: 12:30.5 is half past twelve and half a minute: 12:30:30. The lowest unit of a time, hour, minute or
#   second, may have a decimal fraction.
#   Source: ISO 8601:2004, section 4.2.2.4 "Representations with decimal fraction".
# Seen: 12:00:30.5. In the library's pattern the minutes are optional also when something follows them, so it
#   takes 30 for the seconds. Basic format is no better: T1230.5. Nothing fails, and without the fraction the
#   same text is 12:30. isodate 0.7.2 and aniso8601 10.0.1 read 12:30:30. A fraction of an hour, 12.5, is an
#   error in iso8601, so one would expect the same for what it does not know of minutes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  iso8601==2.1.0 isodate==0.7.2 aniso8601==10.0.1
"$folder/env/bin/python" - <<'PY'
import sys

import aniso8601
import iso8601
import isodate

READERS = {
    "iso8601": iso8601.parse_date,
    "isodate": isodate.parse_datetime,
    "aniso8601": aniso8601.parse_datetime,
}
TEXTS = ("2024-02-29T12:30Z", "2024-02-29T12:30.5Z", "20240229T1230.5Z")
seen = {}
for text in TEXTS:
    seen[text] = [str(read(text).time()) for read in READERS.values()]
    print(f"{text:20}", *(f"{name} {time}" for name, time in zip(READERS, seen[text], strict=True)))
print("(expected 12:30:00 in the first line, 12:30:30 in the others)")
as_described = [["12:30:00"] * 3] + [["12:00:30.500000", "12:30:30", "12:30:30"]] * 2
sys.exit(0 if list(seen.values()) == as_described else 1)
PY
