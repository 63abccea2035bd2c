#!/usr/bin/env bash
# aws-lambda-powertools 3.37.0 (Python) with moto 5.2.5: the key of an S3 event that came by EventBridge is
# decoded though it was not encoded.
#
# Expected: S3EventBridgeNotificationEvent.detail.object.key is the object's key. S3 percent-encodes keys in
#   its notifications to SQS, SNS and Lambda; its EventBridge events have the key as it is.
#   Source: Amazon S3 User Guide, "Event message structure" ("the object key name value is URL encoded"),
#   which "EventBridge event message structure" does not say of its `key`.
# Seen: Powertools undoes an encoding in both. moto, which models the two as the guide does, sends
#   "c++ 50%25.json" through EventBridge, and Powertools makes "c   50%.json" of it: another object, or
#   none. And of a notification, `event.object_key` is decoded, but the key of `event.record` is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
    aws-lambda-powertools==3.37.0 'moto[events,s3,sqs]==5.2.5' boto3==1.44.8
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
"$folder/env/bin/python" - <<'PY'
import json
import sys

import boto3
from aws_lambda_powertools.utilities.data_classes import S3Event, S3EventBridgeNotificationEvent
from moto import mock_aws

KEY = "c++ 50%25.json"


def queue(name):
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]


def bodies(url):
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in got]


with mock_aws():
    s3, sqs, events = (boto3.client(name) for name in ("s3", "sqs", "events"))
    by_rule, by_notification = queue("rule"), queue("notification")
    events.put_rule(Name="r", EventPattern=json.dumps({"source": ["aws.s3"]}))
    events.put_targets(Rule="r", Targets=[{"Id": "1", "Arn": by_rule[1]}])
    s3.create_bucket(Bucket="archive")
    s3.put_bucket_notification_configuration(
        Bucket="archive",
        NotificationConfiguration={
            "EventBridgeConfiguration": {},
            "QueueConfigurations": [
                {"QueueArn": by_notification[1], "Events": ["s3:ObjectCreated:*"]}
            ],
        },
    )
    s3.put_object(Bucket="archive", Key=KEY, Body=b"{}")
    event = S3EventBridgeNotificationEvent(bodies(by_rule[0])[0])
    [notification] = [S3Event(body) for body in bodies(by_notification[0]) if "Records" in body]

seen = {
    "EventBridge, as sent": event["detail"]["object"]["key"],
    "EventBridge, by Powertools": event.detail.object.key,
    "notification, as sent": notification["Records"][0]["s3"]["object"]["key"],
    "notification, object_key": notification.object_key,
    "notification, record": notification.record.s3.get_object.key,
}
print("key:", KEY)
for name, key in seen.items():
    print(f"{name:28} {key}")
expected = [KEY, "c   50%.json", "c%2B%2B+50%2525.json", KEY, "c%2B%2B+50%2525.json"]
sys.exit(0 if list(seen.values()) == expected else 1)
PY
