#!/usr/bin/env bash
# cloudevents 2.2.0 (Python SDK) and cloudevents 10.0.0 (JavaScript SDK): a subject with a space or a percent
# sign changes on its way from one to the other, in both directions.
#
# Expected: the subject that was sent. In HTTP headers a space, a double quote, a percent sign and all but
#   printable ASCII are percent-encoded by the sender and decoded by the receiver.
#   Source: CloudEvents HTTP protocol binding 1.0.2, section 3.1.3.2 "HTTP Header Values".
# Seen: the Python SDK does both. The JavaScript SDK does neither: it hands on "in/50%25%20off.csv" as it came,
#   and sends "in/50%20.csv" as it is, of which Python makes "in/50 .csv". The subject of a storage event is the
#   object's key, so the receiver looks for another object. In structured mode, and from each SDK to itself,
#   nothing changes, which is what tests try.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check cloudevents==2.2.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund cloudevents@10.0.0 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const { CloudEvent, HTTP } = require("cloudevents");

const [action, value] = process.argv.slice(2);
if (action === "receive") {
  console.log(JSON.stringify(HTTP.toEvent({ headers: JSON.parse(value), body: "" }).subject));
} else {
  const event = new CloudEvent({ id: "1", source: "/store", type: "created", subject: value });
  console.log(JSON.stringify(HTTP.binary(event).headers));
}
JS
"$folder/env/bin/python" - "$folder/node/run.js" <<'PY'
import json
import subprocess
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_binary, to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent


def javascript(action, value):
    command = ["node", sys.argv[1], action, value]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def sent_by_python(subject):
    attributes = {"specversion": "1.0", "id": "1", "source": "/store", "type": "created"}
    return to_binary(CloudEvent(attributes=attributes | {"subject": subject}), JSONFormat()).headers


def received_by_python(headers):
    message = HTTPMessage(headers, b"")
    return from_binary(message, JSONFormat(), CloudEvent).get_attributes()["subject"]


SUBJECTS = ("in/plain.csv", "in/50% off.csv", "in/50%20.csv")
seen = []
for subject in SUBJECTS:
    to_javascript = javascript("receive", json.dumps(sent_by_python(subject)))
    to_python = received_by_python(javascript("send", subject))
    same = received_by_python(sent_by_python(subject))
    print(f"sent {subject:16} JavaScript gets {to_javascript:22} Python gets {to_python}")
    seen.append((to_javascript, to_python, same == subject))
as_described = [
    ("in/plain.csv", "in/plain.csv", True),
    ("in/50%25%20off.csv", "in/50% off.csv", True),
    ("in/50%2520.csv", "in/50 .csv", True),
]
sys.exit(0 if seen == as_described else 1)
PY
