#!/usr/bin/env bash
# moto 5.2.5: the SequenceNumber of a FIFO message is random, and sometimes missing.
#
# Expected: within a message group each SequenceNumber is greater than the one before.
#   Source: Amazon SQS API Reference, SendMessage, response element SequenceNumber: 128 bits, continues
#   to increase for a particular MessageGroupId.
# Seen: twenty random digits per message, so a consumer that sorts or compares by SequenceNumber fails or
#   passes by chance. On a queue with content-based deduplication, a message sent without an explicit
#   deduplication id has no SequenceNumber at all.
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
    plain = sqs.create_queue(QueueName="a.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    by_content = sqs.create_queue(
        QueueName="b.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    )["QueueUrl"]
    numbers = [
        int(
            sqs.send_message(
                QueueUrl=plain, MessageBody="x", MessageGroupId="g", MessageDeduplicationId=str(i)
            )["SequenceNumber"]
        )
        for i in range(20)  # by chance in order: once in 20! runs
    ]
    answer = sqs.send_message(QueueUrl=by_content, MessageBody="x", MessageGroupId="g")

print("first three:", *numbers[:3])
print("increasing:", numbers == sorted(numbers), "(expected True)")
print("content-based, has a number:", "SequenceNumber" in answer, "(expected True)")
sys.exit(0 if numbers != sorted(numbers) and "SequenceNumber" not in answer else 1)
PY
