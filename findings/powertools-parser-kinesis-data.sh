#!/usr/bin/env bash
# @aws-lambda-powertools/parser 2.35.0 (npm): the Kinesis schemas turn data into text or JSON, and what is
# neither is lost.
#
# Expected: the data that was put. A record's data is an opaque blob, base64 in the event.
#   Sources: Amazon Kinesis Data Streams API Reference, Record, Data; Amazon Data Firehose API Reference,
#   Record, Data. Powertools for Python 3.37.0 gives bytes for the same events.
# Seen: bytes are decoded as UTF-8, and every byte that does not fit becomes U+FFFD: a Protocol Buffers or Avro
#   record passes validation and cannot be restored, since the event's own base64 is replaced.
#   KinesisDataStreamSchema then reads the text as JSON if it can, so the id "12345678901234567890" becomes the
#   number 12345678901234567000, and "1.10" becomes 1.1. Whether data is a string depends on what is in it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  aws-lambda-powertools==3.37.0 pydantic==2.14.4
npm install --prefix "$folder/node" --silent --no-audit --no-fund \
  @aws-lambda-powertools/parser@2.35.0 zod@4.6.7 >"$folder/npm.log"
cat >"$folder/node/run.mjs" <<'JS'
import { KinesisDataStreamSchema, KinesisFirehoseSchema } from "@aws-lambda-powertools/parser/schemas";

const { kinesis, firehose } = JSON.parse(process.argv[2]);
console.log(JSON.stringify({
  kinesis: KinesisDataStreamSchema.parse(kinesis).Records.map((record) => record.kinesis.data),
  firehose: KinesisFirehoseSchema.parse(firehose).records.map((record) => record.data),
}));
JS
"$folder/env/bin/python" - "$folder/node/run.mjs" <<'PY'
import base64
import json
import subprocess
import sys

from aws_lambda_powertools.utilities.parser.models import (
    KinesisDataStreamModel,
    KinesisFirehoseModel,
)

DATA = [b"\x08\x96\x01\xff\x00", b"12345678901234567890", b"1.10", b"plain"]
encoded = [base64.b64encode(data).decode() for data in DATA]
account = "us-east-1:123456789012"
record = {
    "eventSource": "aws:kinesis",
    "eventVersion": "1.0",
    "eventID": "shardId-000000000006:1",
    "eventName": "aws:kinesis:record",
    "invokeIdentityArn": "arn:aws:iam::123456789012:role/reader",
    "awsRegion": "us-east-1",
    "eventSourceARN": f"arn:aws:kinesis:{account}:stream/orders",
}
payload = {
    "kinesisSchemaVersion": "1.0",
    "partitionKey": "1",
    "sequenceNumber": "1",
    "approximateArrivalTimestamp": 1700000000.5,
}
kinesis = {"Records": [record | {"kinesis": payload | {"data": data}} for data in encoded]}
firehose = {
    "invocationId": "1",
    "deliveryStreamArn": f"arn:aws:firehose:{account}:deliverystream/orders",
    "region": "us-east-1",
    "records": [
        {"recordId": "1", "approximateArrivalTimestamp": 1700000000500, "data": data}
        for data in encoded
    ],
}
by_python = (
    [r.kinesis.data for r in KinesisDataStreamModel(**kinesis).Records],
    [r.data for r in KinesisFirehoseModel(**firehose).records],
)
command = ["node", sys.argv[1], json.dumps({"kinesis": kinesis, "firehose": firehose})]
seen = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
print("put:       ", DATA)
print("Python:    ", *by_python)
print("TypeScript:", seen["kinesis"], seen["firehose"])
broken = "\x08\ufffd\x01\ufffd\x00"
as_described = {
    "kinesis": [broken, 12345678901234567000, 1.1, "plain"],
    "firehose": [broken, "12345678901234567890", "1.10", "plain"],
}
sys.exit(0 if by_python == (DATA, DATA) and seen == as_described else 1)
PY
