"""Make the queue in the SQS emulator, whose image runs this script at every start.

The emulator sets the endpoint, the region and its test credentials in the environment. It reports
ready after this script, and compose waits for that.
"""

import os

import boto3

boto3.client("sqs").create_queue(
    QueueName=os.environ.get("QUEUE", "login-queue"), Attributes={"VisibilityTimeout": "60"}
)
