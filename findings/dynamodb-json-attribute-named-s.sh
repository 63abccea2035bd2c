#!/usr/bin/env bash
# dynamodb-json 1.4.2 (PyPI): an attribute that is named like a type is taken for the type.
#
# Expected: {"M": {"S": {"S": "q"}}} is a map with one attribute, whose name is S: {"S": "q"}. Attribute
#   names may be any text. So says boto3's TypeDeserializer, and dumps() writes just that for {"S": "q"}.
#   Source: Amazon DynamoDB Developer Guide, "Naming rules", and API Reference, AttributeValue.
# Seen: loads() works through json's object_hook from the inside out and cannot tell names from types. The
#   map becomes the text "q", so what dumps() wrote does not come back; an item whose only attribute is S
#   becomes a text altogether. A number with an exponent, as DynamoDB returns 1E-130, stays {"N": "1E-130"}.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check dynamodb-json==1.4.2 boto3==1.44.8
"$folder/env/bin/python" - <<'PY'
import json
import sys

from boto3.dynamodb.types import TypeDeserializer
from dynamodb_json import json_util

ITEMS = {
    "map with S": '{"sizes": {"M": {"S": {"S": "q"}}}}',
    "item with S": '{"S": {"S": "q"}}',
    "map with S and L": '{"sizes": {"M": {"S": {"N": "3"}, "L": {"N": "4"}}}}',
    "exponent": '{"mass": {"N": "1E-130"}}',
}
read = TypeDeserializer().deserialize
seen = {}
for name, text in ITEMS.items():
    boto3 = {key: read(value) for key, value in json.loads(text).items()}
    seen[name] = json_util.loads(text)
    print(f"{name:17} boto3 {boto3!s:40} dynamodb-json {seen[name]!r}")
back = json_util.loads(json_util.dumps({"sizes": {"S": "q"}}))
print("loads(dumps(x)) == x:", back == {"sizes": {"S": "q"}}, "(expected True)")
as_described = (
    seen["map with S"] == {"sizes": "q"}
    and seen["item with S"] == "q"
    and seen["exponent"] == {"mass": {"N": "1E-130"}}
    and back == {"sizes": "q"}
)
sys.exit(0 if as_described else 1)
PY
