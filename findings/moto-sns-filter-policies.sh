#!/usr/bin/env bash
# moto 5.2.5 (PyPI): SNS filter policies with anything-but, equals-ignore-case and exists deliver messages that
# SNS holds back, and hold back others.
#
# Expected: anything-but ["rugby", "tennis"] does not match the String.Array ["rugby"]. equals-ignore-case
#   "Tennis" matches TENNIS. exists: true needs a value that is neither null nor empty, and exists: false at
#   least one attribute. A number in a policy does not match true.
#   Sources: Amazon SNS Developer Guide, "String value matching" (anything-but: values that don't include any of
#   the policy's; equals-ignore-case, whose example is this one) and "Key matching" (both rules of exists).
# Seen: moto takes the JSON text of a String.Array apart into characters, so anything-but always matches. It
#   makes the attribute lower case, but not the policy, so "Tennis" matches nothing. exists: true matches null
#   and "" in a body, exists: false a message without attributes, and 1 matches true. All of these policies are
#   accepted. Prefixes, suffixes, numeric ranges and $or are right. A queue behind such a subscription gets other
#   messages in tests than on AWS, and nothing tells the two apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check moto==5.2.5 boto3==1.44.8
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
"$folder/env/bin/python" -W ignore - <<'PY'
import json
import sys

import boto3
from moto import mock_aws

SPORTS = [{"anything-but": ["rugby", "tennis"]}]
CASES = [  # rule, attribute (its type and value) or value in the body, delivered on AWS, delivered by moto
    (SPORTS, ("String", "rugby"), 0, 0),
    (SPORTS, ("String", "baseball"), 1, 1),
    (SPORTS, ("String.Array", '["rugby"]'), 0, 1),
    ([{"equals-ignore-case": "tennis"}], ("String", "TENNIS"), 1, 1),
    ([{"equals-ignore-case": "Tennis"}], ("String", "TENNIS"), 1, 0),
    ([{"prefix": "bas"}], ("String", "baseball"), 1, 1),
    ([{"exists": False}], None, 0, 1),
    ([{"exists": True}], {"field": None}, 0, 1),
    ([{"exists": True}], {"field": ""}, 0, 1),
    ([{"exists": True}], {"other": 1}, 0, 0),
    ([1], {"field": True}, 0, 1),
    ([1], {"field": 1}, 1, 1),
]


def delivered(number, rule, value):
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name=f"t{number}")["TopicArn"]
    queue = sqs.create_queue(QueueName=f"q{number}")["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    in_body = isinstance(value, dict)
    settings = {
        "FilterPolicy": json.dumps({"field": rule}),
        "FilterPolicyScope": "MessageBody" if in_body else "MessageAttributes",
    }
    arn = answer["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=settings)
    attributes = {}
    if value and not in_body:
        attributes["field"] = {"DataType": value[0], "StringValue": value[1]}
    sns.publish(TopicArn=topic, Message=json.dumps(value), MessageAttributes=attributes)
    return len(sqs.receive_message(QueueUrl=queue).get("Messages", []))


as_described = True
with mock_aws():
    for number, (rule, value, expected, described) in enumerate(CASES):
        seen = delivered(number, rule, value)
        print(f"{json.dumps(rule)} and {json.dumps(value)}: {seen} delivered (expected {expected})")
        as_described &= seen == described
sys.exit(0 if as_described else 1)
PY
