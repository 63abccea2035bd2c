#!/usr/bin/env bash
# betterproto 1.2.5 (PyPI): a timestamp with an offset is written to JSON as its wall clock time with a Z.
#
# Expected: 2024-01-01T05:30:00+05:30 is written as 2024-01-01T00:00:00Z. In JSON a Timestamp is always
#   normalised to Z; other offsets are accepted when reading.
#   Sources: ProtoJSON format, Timestamp; the package's README: the type is a "timezone-aware datetime".
# Seen: reading keeps the offset, and to_json() drops it and writes Z: "2024-01-01T05:30:00Z", five and a half
#   hours later. JSON that only passes through from_json() and to_json() becomes another time, as does any aware
#   datetime that is not in UTC. The binary form of the same message is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check betterproto==1.2.5 protobuf==7.36.2
"$folder/env/bin/python" - <<'PY'
import json
import sys
from dataclasses import dataclass
from datetime import datetime

import betterproto
from google.protobuf import timestamp_pb2


@dataclass
class Event(betterproto.Message):
    at: datetime = betterproto.message_field(1)


TEXT = "2024-01-01T05:30:00+05:30"
event = Event().from_json(json.dumps({"at": TEXT}))
written = json.loads(event.to_json())["at"]
reference = timestamp_pb2.Timestamp()
reference.FromJsonString(TEXT)
binary = timestamp_pb2.Timestamp.FromString(bytes(event)[2:]).ToJsonString()
print("read:                   ", TEXT)
print("written by protobuf:    ", reference.ToJsonString())
print("written by betterproto: ", written, "(expected the same)")
print("betterproto's binary:   ", binary)
seen = (reference.ToJsonString(), written, binary)
utc = "2024-01-01T00:00:00Z"
sys.exit(0 if seen == (utc, "2024-01-01T05:30:00Z", utc) else 1)
PY
