#!/usr/bin/env bash
# amazon.ion 0.15.0 (PyPI): Ion's true and false become 1 and 0 in JSON.
#
# Expected: down-conversion to JSON keeps booleans: Ion's bool is JSON's boolean.
#   Source: Amazon Ion Cookbook, "Down-converting to JSON"; the package's README (values behave as native
#   Python ones).
# Seen: a bool is read as IonPyBool, a subclass of int, because Python's bool cannot be subclassed. It equals
#   True and prints as True, but json.dumps writes 1 or 0, isinstance(value, bool) is false and `value is
#   True` too. The bare value model gives Python's own bool, and JSON is right. Struct, null and timestamp
#   raise TypeError in json.dumps, so people convert those by `default=`; booleans never get there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check amazon.ion==0.15.0
"$folder/env/bin/python" -W ignore - <<'PY'
import json
import sys

from amazon.ion import simpleion
from amazon.ion.simpleion import IonPyValueModel

TEXT = '{active: true, deleted: false, count: 1, name: "n"}'
record = simpleion.loads(TEXT)
seen = json.dumps(record, default=dict)
bare = json.dumps(simpleion.loads(TEXT, value_model=IonPyValueModel.MAY_BE_BARE), default=dict)
print("default value model:", seen)
print("bare value model:   ", bare)
print("equal to True:", record["active"] == True, "is a bool:", isinstance(record["active"], bool))  # noqa: E712
as_described = json.loads(seen) == {"active": 1, "deleted": 0, "count": 1, "name": "n"}
as_described &= "true" not in seen and "true" in bare and not isinstance(record["active"], bool)
sys.exit(0 if as_described else 1)
PY
