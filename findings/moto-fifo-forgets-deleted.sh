#!/usr/bin/env bash
# moto 5.2.5: a FIFO queue forgets a deduplication id as soon as its message is deleted.
#
# Expected: a second message with the same deduplication id is accepted but not delivered within five
#   minutes, whether or not the first one is still in the queue.
#   Source: Amazon SQS Developer Guide, "Using the message deduplication ID": SQS keeps track of the id
#   even after the message is received and deleted.
# Seen: while the first message is in the queue, the second is dropped. Once the first is deleted, the
#   second is delivered, seconds later. So a test on moto sees a retried send twice exactly in the case
#   that matters, when the consumer was faster than the retry.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check moto==5.2.5 boto3==1.44.8
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
"$folder/env/bin/python" - <<'PY'
import sys

import boto3
from moto import mock_aws

with mock_aws():
    sqs = boto3.client("sqs")
    queue = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]

    def send(body):
        sqs.send_message(
            QueueUrl=queue, MessageBody=body, MessageGroupId="g", MessageDeduplicationId="order-1"
        )

    def receive():
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in answer.get("Messages", [])]

    send("first")
    send("while the first is there")
    before = receive()
    send("after the first is deleted")
    after = receive()

print("received, then deleted:", before, "(expected ['first'])")
print("received after it:     ", after, "(expected [])")
sys.exit(0 if (before, after) == (["first"], ["after the first is deleted"]) else 1)
PY
