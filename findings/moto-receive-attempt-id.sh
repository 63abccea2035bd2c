#!/usr/bin/env bash
# moto 5.2.5 (PyPI): ReceiveRequestAttemptId is accepted and has no effect.
#
# Expected: a second receive with the same attempt id returns the same messages of a FIFO queue, as long as
#   they were neither deleted nor changed, within five minutes and although they are invisible.
#   Source: Amazon SQS API Reference, ReceiveMessage, ReceiveRequestAttemptId (for the retry of a receive whose
#   answer was lost: it retrieves the same set of messages, even if their visibility timeout has not expired).
# Seen: the second receive returns nothing, as one without an id does, until the visibility timeout ends, and
#   the message group is blocked for that long. So a consumer that repeats a receive after a broken connection
#   stands still in tests, and one that makes a new id for each attempt, which defeats the purpose, looks the
#   same as one that is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check moto==5.2.5 boto3==1.44.8
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
"$folder/env/bin/python" -W ignore - <<'PY'
import sys

import boto3
from moto import mock_aws


def received(sqs, url, attempt):
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, ReceiveRequestAttemptId=attempt)
    return [message["Body"] for message in answer.get("Messages", [])]


with mock_aws():
    sqs = boto3.client("sqs")
    settings = {"FifoQueue": "true", "VisibilityTimeout": "60"}
    url = sqs.create_queue(QueueName="q.fifo", Attributes=settings)["QueueUrl"]
    for body in "ab":
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g", MessageDeduplicationId=body)
    seen = [received(sqs, url, attempt) for attempt in ("first", "first", "second")]
print("received:", seen[0])
print("again with the same attempt id:", seen[1], "(expected ['a', 'b'])")
print("with another attempt id:", seen[2], "(expected [])")
sys.exit(0 if seen == [["a", "b"], [], []] else 1)
PY
