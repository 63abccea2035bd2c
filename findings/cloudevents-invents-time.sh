#!/usr/bin/env bash
# cloudevents 2.2.0 (Python SDK): reading an event that has no time gives it one, the time of reading.
#
# Expected: `time` is optional and says when the occurrence happened; an event read without it has none.
#   Source: CloudEvents specification 1.0.2, "Optional Attributes", time. If the time of the occurrence
#   cannot be determined, a producer may set another time, but all producers of a source must agree.
# Seen: the JSON format and the HTTP binding both add the reader's clock. The same bytes read twice are two
#   different events, a redelivered message gets a new time, and a consumer cannot tell an event's own time
#   from an invented one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check cloudevents==2.2.0
"$folder/env/bin/python" - <<'PY'
import sys
import time

from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

BODY = b'{"specversion":"1.0","id":"1","source":"/orders","type":"placed"}'
HEADERS = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/orders", "ce-type": "placed"}


def read():
    time.sleep(0.01)
    return JSONFormat().read(CloudEvent, BODY).get_attributes()


first, second = read(), read()
by_http = from_binary(HTTPMessage(HEADERS, b""), JSONFormat(), CloudEvent).get_attributes()
print("sent:       ", BODY.decode())
print("read:       ", first.get("time"))
print("read again: ", second.get("time"))
print("HTTP, binary:", by_http.get("time"), "(expected None, three times)")
sys.exit(0 if "time" in first and "time" in by_http and first != second else 1)
PY
