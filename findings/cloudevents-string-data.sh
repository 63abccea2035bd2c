#!/usr/bin/env bash
# cloudevents 2.2.0 (Python SDK): whether a string is JSON text or a JSON string depends on the HTTP mode.
#
# Expected: both modes carry the same data. With datacontenttype application/json, binary mode's body is
#   the data as JSON text, and structured mode's `data` is the JSON value of that text.
#   Sources: CloudEvents HTTP protocol binding 1.0.2, sections 3.1.2 and 3.2.2; JSON event format 1.0.2,
#   section 3.1 "Handling of Data".
# Seen: for str data, binary mode takes the string as JSON text and structured mode as a JSON string. The
#   string {"a": 1} arrives as an object or as text. The string `hi` is a correct body in structured mode and
#   no JSON at all in binary mode. Neither reading of str is right in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check cloudevents==2.2.0
"$folder/env/bin/python" - <<'PY'
import sys

from cloudevents.core.bindings.http import from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

ATTRIBUTES = {
    "specversion": "1.0",
    "id": "1",
    "source": "/orders",
    "type": "placed",
    "datacontenttype": "application/json",
}
seen = []
for data in ('{"a": 1}', "hi"):
    event = CloudEvent(attributes=dict(ATTRIBUTES), data=data)
    binary, structured = to_binary(event, JSONFormat()), to_structured(event, JSONFormat())
    there = from_binary(binary, JSONFormat(), CloudEvent).get_data()
    here = from_structured(structured, JSONFormat(), CloudEvent).get_data()
    print("sent", repr(data))
    print("  binary:     body", binary.body, "received", repr(there))
    print("  structured: received", repr(here), "(expected the same as by binary)")
    seen.append((binary.body, there, here))
expected = [(b'{"a": 1}', {"a": 1}, '{"a": 1}'), (b"hi", "hi", "hi")]
sys.exit(0 if seen == expected else 1)
PY
