#!/usr/bin/env bash
# moto 5.2.5 (PyPI) and fauxqs 2.4.1 (npm): DeduplicationScope is kept as an attribute and not followed.
#
# Expected: with DeduplicationScope=messageGroup two messages with one deduplication id, in two message groups,
#   are two messages. Only within a group is the second a duplicate.
#   Source: Amazon SQS API Reference, CreateQueue, DeduplicationScope; Developer Guide, "High throughput for
#   FIFO queues", which needs that setting.
# Seen: the second is dropped, as with the default scope, and the sender gets a message id for it. The queue
#   reports the attribute as set. A producer whose ids are unique only within a group, such as a version number
#   for each customer, loses messages in tests that SQS would deliver.
#
# fauxqs needs Node.js 22.5 or newer.
set -euo pipefail
node -e 'require("node:sqlite")' 2>/dev/null || { echo "this needs Node.js 22.5 or newer" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check moto==5.2.5 boto3==1.44.8
npm install --prefix "$folder/node" --silent --no-audit --no-fund fauxqs@2.4.1 >"$folder/npm.log"
cat >"$folder/node/serve.mjs" <<'JS'
import { startFauxqs } from "fauxqs";

const server = await startFauxqs({ port: 0, logger: false });
console.log(server.port);
process.stdin.resume(); // it ends with the script that started it
process.stdin.on("end", () => process.exit(0));
JS
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
"$folder/env/bin/python" - "$folder/node/serve.mjs" <<'PY'
import subprocess
import sys

import boto3
from moto import mock_aws

SCOPE = "DeduplicationScope"


def received(sqs, scope):
    attributes = {"FifoQueue": "true", SCOPE: scope}
    if scope == "messageGroup":
        attributes["FifoThroughputLimit"] = "perMessageGroupId"
    queue = sqs.create_queue(QueueName=f"{scope}.fifo", Attributes=attributes)["QueueUrl"]
    for group in ("a", "b"):
        sqs.send_message(
            QueueUrl=queue, MessageBody=group, MessageGroupId=group, MessageDeduplicationId="1"
        )
    kept = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[SCOPE])["Attributes"][SCOPE]
    answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
    return kept, [message["Body"] for message in answer.get("Messages", [])]


with mock_aws():
    sqs = boto3.client("sqs")
    seen = {"moto": [received(sqs, scope) for scope in ("queue", "messageGroup")]}
command = ["node", sys.argv[1]]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    sqs = boto3.client("sqs", endpoint_url=url)
    seen["fauxqs"] = [received(sqs, scope) for scope in ("queue", "messageGroup")]
    server.stdin.close()
for name, (default, by_group) in seen.items():
    print(f"{name:6} {default} (expected ['a']) {by_group} (expected ['a', 'b'])")
as_described = [("queue", ["a"]), ("messageGroup", ["a"])]
sys.exit(0 if seen == {"moto": as_described, "fauxqs": as_described} else 1)
PY
