#!/usr/bin/env bash
# amazon.ion 0.15.0 (PyPI): a timestamp with more than nine digits of a second is read as another time.
#
# Expected: the time as written, or an error if the reader cannot hold it. Ion's timestamps have no limit of
#   precision.
#   Source: Amazon Ion specification, "Timestamp" (fractional seconds of arbitrary precision).
# Seen: with the C extension, which is the default, twelve digits give the fraction 0: 00.123456789012 and
#   00.999999999999 both become 00.000000000. Twelve digits that begin with zeros are taken as nanoseconds:
#   00.000000001234, a nanosecond and a bit, becomes 00.000001234. Some other values, such as ten digits
#   without a leading zero, raise an error. Written again, the wrong time is what is stored. Nine digits are
#   safe.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check amazon.ion==0.15.0
"$folder/env/bin/python" -W ignore - <<'PY'
import sys

from amazon.ion import simpleion

DESCRIBED = {
    "123456789": "123456789",
    "123456789012": "000000000",
    "999999999999": "000000000",
    "000000001234": "000001234",
}
assert simpleion.c_ext
as_described = True
for fraction, described in DESCRIBED.items():
    written = f"2024-01-01T00:00:00.{fraction}Z"
    again = simpleion.dumps(simpleion.loads(written), binary=False).split()[-1]
    print(f"{written} is written back as {again}")
    as_described &= again == f"2024-01-01T00:00:00.{described}Z"
sys.exit(0 if as_described else 1)
PY
