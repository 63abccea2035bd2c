#!/usr/bin/env bash
# isoduration 20.11.0 (PyPI): a duration with a fraction of a second is rounded when it is added to a time, and
# a short one cannot be subtracted.
#
# Expected: 12:00:00 plus PT1.5S is 12:00:01.500000.
#   Sources: the package's README ("Durations can be added to, or subtracted from, Python datetimes"), whose
#   code names W3C XML Schema Part 2, appendix E "Adding durations to dateTimes" (seconds are decimals there).
# Seen: 12:00:02. The seconds of the result are rounded to a whole number: PT0.4S adds nothing. If that gives
#   60, as for 12:00:00 minus PT0.4S, which is 59.6, ValueError comes ("second must be in 0..59"), so it depends
#   on the time whether an addition works. The parsed duration itself has its fraction: it compares and prints
#   with it. Retry delays below half a second are no delays. isodate 0.7.2 adds the fraction.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check isoduration==20.11.0 isodate==0.7.2
"$folder/env/bin/python" - <<'PY'
import datetime
import sys

import isodate
from isoduration import parse_duration

NOON = datetime.datetime(2024, 1, 1, 12)
DESCRIBED = {
    "PT1S": ("12:00:01", "11:59:59"),
    "PT0.4S": ("12:00:00", "ValueError"),
    "PT1.5S": ("12:00:02", "11:59:59"),
    "PT2.5S": ("12:00:03", "11:59:58"),
}


def moved(move):
    try:
        return str(move().time())
    except ValueError:
        return "ValueError"


as_described = True
for text, described in DESCRIBED.items():
    duration, right = parse_duration(text), isodate.parse_duration(text)
    seen = moved(lambda: NOON + duration), moved(lambda: NOON - duration)
    print(f"12:00:00 + {text}: {seen[0]} (expected {(NOON + right).time()})")
    print(f"12:00:00 - {text}: {seen[1]} (expected {(NOON - right).time()})")
    as_described &= seen == described and str(duration) == text
sys.exit(0 if as_described else 1)
PY
