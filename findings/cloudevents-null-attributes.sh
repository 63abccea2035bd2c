#!/usr/bin/env bash
# cloudevents 2.2.0 (Python SDK) and cloudevents 10.0.0 (JavaScript SDK): an attribute that is null in JSON is
# an error in one and stays null in the other.
#
# Expected: the event without that attribute. When decoding, null must be treated as unset or omitted.
#   Source: CloudEvents JSON event format 1.0.2, section 2.2 "Type System Mapping" (unset attributes may be
#   encoded as null, and the rule above).
# Seen: the Python SDK refuses the event for a null subject, datacontenttype or dataschema, with its validation
#   error, and for a null time with a bare TypeError ("object of type 'NoneType' has no len()"), which code that
#   catches the SDK's errors misses. A null extension becomes an attribute with the value None. The JavaScript
#   SDK drops null for the attributes that it knows, and keeps a null extension: in HTTP headers it has the
#   value null, and in structured mode it is sent on. Serializers that write all fields of a class, as many do
#   by default, make such events.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check cloudevents==2.2.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund cloudevents@10.0.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { HTTP } = require("cloudevents");
const headers = { "content-type": "application/cloudevents+json" };
const answers = process.argv.slice(2).map((body) => {
  const name = Object.entries(JSON.parse(body)).find(([, value]) => value === null)[0];
  const event = HTTP.toEvent({ headers, body });
  return [event[name] === null, `ce-${name}` in HTTP.binary(event).headers];
});
console.log(JSON.stringify(answers));
JS
"$folder/env/bin/python" - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

DESCRIBED = {  # in Python; in JavaScript: is it null, and is it among the HTTP headers
    "subject": ("CloudEventValidationError", [False, False]),
    "datacontenttype": ("CloudEventValidationError", [False, False]),
    "dataschema": ("CloudEventValidationError", [False, False]),
    "time": ("TypeError", None),  # JavaScript fills in the present time
    "tenant": ("None", [True, True]),
}


def read(body, name):
    try:
        attributes = JSONFormat().read(CloudEvent, body.encode()).get_attributes()
    except Exception as error:
        return type(error).__name__
    return str(attributes.get(name, "absent"))


event = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "placed", "data": {"total": 1}}
bodies = {name: json.dumps(event | {name: None}) for name in DESCRIBED}
command = ["node", sys.argv[1], *bodies.values()]
answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
as_described = True
for (name, body), (null, header) in zip(bodies.items(), json.loads(answer), strict=True):
    seen = read(body, name)
    print(f"{name}: null. Python: {seen}. JavaScript: null {null}, as a header {header}. (expected: absent)")
    python, javascript = DESCRIBED[name]
    as_described &= seen == python and javascript in ([null, header], None)
sys.exit(0 if as_described else 1)
PY
