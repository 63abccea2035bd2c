"""Make the queue in the SQS emulator; its image runs this at every start.

The emulator gives the endpoint, the region and its test credentials in the environment. Its
readiness, which compose waits for, comes after this script.
"""

import os

import boto3

boto3.client("sqs").create_queue(
    QueueName=os.environ.get("QUEUE", "login-queue"), Attributes={"VisibilityTimeout": "60"}
)
