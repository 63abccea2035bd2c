#!/usr/bin/env bash
# ormsgpack 1.13.1 (PyPI): as MessagePack timestamps, times lose their fraction if it is more than 0.536870 s.
#
# Expected: 12:00:00.999999 is read back as it was. MessagePack's timestamp 64 has 30 bits for nanoseconds,
#   and all up to 999999999 fit.
#   Source: MessagePack specification, "Timestamp extension type" (timestamp 32 is for times without
#   nanoseconds).
# Seen: from 2^29 nanoseconds on the time is written as timestamp 32, in whole seconds: 12:00:00.536870 is
#   kept and 12:00:00.536871 becomes 12:00:00. That is nearly half of all times, and the last microsecond of a
#   day. After February 2106 the seconds of such a time do not fit either and wrap around to 1970. Before 1970
#   all is right. The bytes are wrong, so every reader sees it; u-msgpack-python 2.8.0 writes the same times
#   right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check ormsgpack==1.13.1 u-msgpack-python==2.8.0
"$folder/env/bin/python" - <<'PY'
import sys
from datetime import datetime, timezone

import ormsgpack
import umsgpack

DESCRIBED = {
    datetime(2024, 1, 1, 12, 0, 0, 536870): datetime(2024, 1, 1, 12, 0, 0, 536870),
    datetime(2024, 1, 1, 12, 0, 0, 536871): datetime(2024, 1, 1, 12),
    datetime(2024, 12, 31, 23, 59, 59, 999999): datetime(2024, 12, 31, 23, 59, 59),
    datetime(2107, 1, 1, 0, 0, 0, 750000): datetime(1970, 11, 24, 17, 31, 44),
    datetime(1960, 1, 1, 12, 0, 0, 999999): datetime(1960, 1, 1, 12, 0, 0, 999999),
}
as_described = True
for time, described in DESCRIBED.items():
    time, described = (each.replace(tzinfo=timezone.utc) for each in (time, described))
    seen = umsgpack.unpackb(
        ormsgpack.packb(time, option=ormsgpack.OPT_DATETIME_AS_TIMESTAMP_EXT)
    )
    right = umsgpack.unpackb(umsgpack.packb(time)) == time
    print(f"{time} is read as {seen} (expected the same)")
    as_described &= seen == described and right
sys.exit(0 if as_described else 1)
PY
