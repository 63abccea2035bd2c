#!/usr/bin/env bash
# uuid7 0.1.0 (PyPI): its UUIDs say version 7, but their time is in the year 2203 and sorts after all others.
#
# Expected: the first 48 bits of a version 7 UUID are milliseconds since 1970.
#   Source: RFC 9562, section 5.7.
# Seen: the layout of draft-peabody-dispatch-new-uuid-format-02 (36 bits of seconds, then fractions), which
#   the RFC dropped but whose version number it kept. Nothing marks the difference: any reader of RFC 9562,
#   such as uuid6 2025.0.1's `time` or PostgreSQL 18's uuid_extract_timestamp, takes such a UUID without
#   complaint for one of about 2203. Rows of a second producer that follows the RFC sort before them all,
#   and ranges by time over the key find nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check uuid7==0.1.0 uuid6==2025.0.1
"$folder/env/bin/python" - <<'PY'
import sys
import time
import uuid
from datetime import UTC, datetime

import uuid6
from uuid_extensions import uuid7 as draft_uuid7


def year(value):
    assert value.version == 7 and value.variant == uuid.RFC_4122
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC).year


draft = draft_uuid7()
time.sleep(0.01)
later = uuid6.uuid7()
now = datetime.now(UTC).year
read = datetime.fromtimestamp(uuid6.UUID(str(draft)).time / 1000, UTC).year
print("uuid7:", draft, "version", draft.version, "year", year(draft), "as uuid6 reads it", read)
print("uuid6:", later, "version", later.version, "year", year(later))
print("made later, sorts later:", draft < later, "(expected True)")
sys.exit(0 if year(draft) == read > now + 100 and year(later) == now and later < draft else 1)
PY
