#!/usr/bin/env bash
# betterproto 1.2.5 (PyPI): negative durations and times before 1970 with a fraction are written as others.
#
# Expected: a Duration's nanos have the sign of its seconds; a Timestamp's nanos count forward from its seconds,
#   also before 1970. -1.5 s is {-1, -500000000}, 1969-12-31T23:59:59.5Z is {-1, 500000000}.
#   Source: Protocol Buffers, comments of google/protobuf/duration.proto and timestamp.proto.
# Seen: the seconds are cut toward zero, the nanos come from Python's microseconds, which are never negative.
#   -1.5 s is written as {-1, +500000000}, which nobody may write and protobuf 7.36.2 for Python reads as
#   -0.5 s; -0.5 s becomes +0.5 s. The time above becomes 1970-01-01T00:00:00.5Z, a second late. betterproto
#   itself reads the same wrong values back, and its JSON is right. Clock differences and old dates are hurt.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check betterproto==1.2.5 protobuf==7.36.2
"$folder/env/bin/python" - <<'PY'
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import betterproto
from google.protobuf import duration_pb2, timestamp_pb2


@dataclass
class Event(betterproto.Message):
    at: datetime = betterproto.message_field(1)
    lag: timedelta = betterproto.message_field(2)


def by_protobuf(event, kind):
    content = bytes(event)[2:]  # one field: its tag, a length below 128, the message
    return kind.FromString(content)


seen = []
for lag in (timedelta(seconds=1.5), timedelta(seconds=-1.5), timedelta(seconds=-0.5)):
    event = Event(lag=lag)
    read = by_protobuf(event, duration_pb2.Duration)
    value = read.seconds + read.nanos / 1e9
    again = Event().parse(bytes(event)).lag.total_seconds()
    print(f"sent {lag.total_seconds()} read {value} by betterproto {again} JSON {event.to_json()}")
    seen.append((value, again))
for text in ("1970-01-01T00:00:00.500000+00:00", "1969-12-31T23:59:59.500000+00:00"):
    event = Event(at=datetime.fromisoformat(text))
    read = by_protobuf(event, timestamp_pb2.Timestamp).ToDatetime(UTC).isoformat()
    print(f"sent {text} read {read} JSON {event.to_json()}")
    seen.append(read)
print("(expected what was sent)")
after = "1970-01-01T00:00:00.500000+00:00"
sys.exit(0 if seen == [(1.5, 1.5), (-0.5, -0.5), (0.5, 0.5), after, after] else 1)
PY
