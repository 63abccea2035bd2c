"""Make the queues in the SQS emulator, whose image runs this script at every start.

The emulator sets the endpoint, the region and its test credentials in the environment. It reports
ready after this script, and compose waits for that.
"""

import os

import boto3

sqs = boto3.client("sqs")
for name in os.environ.get("QUEUE", "login-queue").split(","):
    sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "60"})
