#!/usr/bin/env bash
# durationpy 0.11 (PyPI): to_str() writes seconds with six significant digits, and hours too.
#
# Expected: a string for the same duration, which Go and from_str() read back: 12.345678 s is "12.345678s".
#   Sources: the package's README (converts between timedelta and Go's duration strings; only nanoseconds are
#   lost, since timedelta has microseconds); Go, package time, Duration.String.
# Seen: "12.3457s", "59.999999s" is "60s", and from a second on no time with microseconds survives: from_str()
#   gives another duration than went in. Below a second all digits are written. A million hours and an hour
#   are "1e+06h", which from_str() and Go refuse. So a measured latency, or a timeout written to a
#   configuration, is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check durationpy==0.11
"$folder/env/bin/python" - <<'PY'
import sys
from datetime import timedelta

import durationpy

DESCRIBED = {
    timedelta(microseconds=345678): ("345ms678us", "the same"),
    timedelta(seconds=12.5): ("12.5s", "the same"),
    timedelta(seconds=12, microseconds=345678): ("12.3457s", "another"),
    timedelta(seconds=59, microseconds=999999): ("60s", "another"),
    timedelta(hours=1000001): ("1e+06h", "DurationError"),
}
as_described = True
for duration, described in DESCRIBED.items():
    text = durationpy.to_str(duration)
    try:
        again = "the same" if durationpy.from_str(text) == duration else "another"
    except durationpy.DurationError as error:
        again = type(error).__name__
    print(f"{str(duration):24} is written as {text:11} and read as {again} (expected the same)")
    as_described &= (text, again) == described
sys.exit(0 if as_described else 1)
PY
