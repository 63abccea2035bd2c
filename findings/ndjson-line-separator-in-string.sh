#!/usr/bin/env bash
# ndjson 0.3.1 (PyPI): a line separator inside a string is read as a comma.
#
# Expected: U+2028, U+2029 and U+0085 may stand in a JSON string as they are; lines of NDJSON end at \n or
#   \r\n only. So {"note": "a<U+2028>b"} is one line with one string of three characters.
#   Sources: RFC 8259, section 7 (only U+0000 to U+001F, the quote and the backslash need an escape); NDJSON
#   specification 1.0.0, section 3.1 "Serialization".
# Seen: loads() splits with str.splitlines(), which knows more line ends than these, and joins the pieces with
#   commas to make one JSON array. Inside a string the comma is just another character: nothing fails, and the
#   value is "a,b". dumps(..., ensure_ascii=False) writes what loads() then changes. The same text read by
#   ndjson.reader() from a file is right. JavaScript's JSON.stringify escapes none of the three, so its
#   output changes without a trace.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check ndjson==0.3.1
"$folder/env/bin/python" - <<'PY'
import io
import sys

import ndjson

SEPARATORS = ("\u2028", "\u2029", "\x85")
seen = []
for separator in SEPARATORS:
    rows = [{"note": f"a{separator}b"}, {"note": "next"}]
    text = ndjson.dumps(rows, ensure_ascii=False)
    whole, by_line = ndjson.loads(text), list(ndjson.reader(io.StringIO(text)))
    print(f"U+{ord(separator):04X} loads {whole[0]} reader {by_line[0]} (expected {rows[0]})")
    seen.append((whole, by_line == rows))
as_described = ([{"note": "a,b"}, {"note": "next"}], True)
sys.exit(0 if seen == [as_described] * len(SEPARATORS) else 1)
PY
