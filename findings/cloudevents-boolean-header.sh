#!/usr/bin/env bash
# cloudevents 2.2.0 (Python SDK): a Boolean extension goes over HTTP as `True`, which is no CloudEvents
# Boolean.
#
# Expected: "true". A Boolean's string encoding is a case-sensitive "true" or "false", and HTTP headers carry
#   that encoding.
#   Sources: CloudEvents specification 1.0.2, "Type System", Boolean; HTTP protocol binding 1.0.2, section
#   3.1.3.2 "HTTP Header Values".
# Seen: `ce-sampled: True`, Python's str(). A receiver in another language that compares with "true" takes
#   it for false or for a plain string. The same event in structured mode has true.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check cloudevents==2.2.0
"$folder/env/bin/python" - <<'PY'
import json
import sys

from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

event = CloudEvent(
    attributes={
        "specversion": "1.0",
        "id": "1",
        "source": "/orders",
        "type": "placed",
        "sampled": True,
        "replayed": False,
    }
)
headers = to_binary(event, JSONFormat()).headers
body = json.loads(to_structured(event, JSONFormat()).body)
seen = (headers["ce-sampled"], headers["ce-replayed"])
print("binary:    ", *seen, "(expected true false)")
print("structured:", json.dumps(body["sampled"]), json.dumps(body["replayed"]))
sys.exit(0 if seen == ("True", "False") and body["sampled"] is True else 1)
PY
