#!/usr/bin/env bash
# aws-lambda-powertools 3.37.0 (Python): a binary attribute of a DynamoDB stream record is its base64 text, and
# written back it is a string.
#
# Expected: bytes. The deserializer's comment lists {'B': bytes} -> bytes and says that B and BS come as Python
#   bytes; new_image is said to hold "native types".
#   Sources: the package, TypeDeserializer and StreamRecord; Amazon DynamoDB API Reference, AttributeValue, B
#   and BS (in JSON, base64 text).
# Seen: the value is handed on as it came: str, and a set of str for BS. boto3 1.44.8's serializer makes S and
#   SS of it, so a function that copies items from a stream to another table changes their types, and a key of
#   type B is refused or not found. Numbers, sets and maps of the same image are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  aws-lambda-powertools==3.37.0 boto3==1.44.8
"$folder/env/bin/python" - <<'PY'
import base64
import sys

from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent
from boto3.dynamodb.types import TypeSerializer

CONTENT = b"\x00\x01\xff"
TEXT = base64.b64encode(CONTENT).decode()
image = {"digest": {"B": TEXT}, "parts": {"BS": [TEXT]}, "count": {"N": "3"}}
record = {"eventName": "INSERT", "dynamodb": {"NewImage": image}}
[record] = DynamoDBStreamEvent({"Records": [record]}).records
item = record.dynamodb.new_image
written = {name: TypeSerializer().serialize(value) for name, value in item.items()}
print("stored:      ", repr(CONTENT))
print("read:        ", item["digest"], item["parts"], "(expected the bytes)")
print("written back:", written["digest"], written["parts"], "(expected B and BS)")
seen = (item["digest"], item["parts"], written["digest"], written["parts"])
sys.exit(0 if seen == (TEXT, {TEXT}, {"S": TEXT}, {"SS": [TEXT]}) else 1)
PY
