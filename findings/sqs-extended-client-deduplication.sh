#!/usr/bin/env bash
# amazon-sqs-extended-client 1.0.1 (PyPI): content-based deduplication never finds a duplicate among large
# messages.
#
# Expected: on a FIFO queue with ContentBasedDeduplication the second of two equal messages is dropped.
#   Source: Amazon SQS API Reference, SendMessage, MessageDeduplicationId: SQS uses a SHA-256 hash of the
#   body, not of the attributes, as the id.
# Seen: a body above the client's threshold goes to S3 under a new random key, and the body that SQS hashes
#   is the pointer to that key. Equal messages differ, so every retry of a large message is delivered again,
#   while small ones are deduplicated. The queue here is moto 5.2.5's, which hashes the body as SQS does.
#   Nothing warns; an explicit MessageDeduplicationId avoids it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  amazon-sqs-extended-client==1.0.1 'moto[s3]==5.2.5' boto3==1.44.8
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
"$folder/env/bin/python" - <<'PY'
import sys

import boto3
import sqs_extended_client  # noqa: F401  (it extends boto3's client when imported)
from moto import mock_aws

with mock_aws():
    boto3.client("s3").create_bucket(Bucket="payloads")
    sqs = boto3.client("sqs")
    sqs.large_payload_support = "payloads"

    def waiting_after_two(name, body):
        queue = sqs.create_queue(
            QueueName=name, Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        )["QueueUrl"]
        hashes = [
            sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId="g")["MD5OfMessageBody"]
            for _ in range(2)
        ]
        names = ["ApproximateNumberOfMessages"]
        answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
        return int(answer["Attributes"][names[0]]), len(set(hashes))

    small = waiting_after_two("small.fifo", "x" * 100_000)
    large = waiting_after_two("large.fifo", "x" * 300_000)

print("the same small body twice: messages", small[0], "different bodies at SQS", small[1])
print("the same large body twice: messages", large[0], "different bodies at SQS", large[1])
print("(expected 1 and 1, both times)")
sys.exit(0 if (small, large) == ((1, 1), (2, 2)) else 1)
PY
