"""Buckets whose notifications go to a queue, and notifications made by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote_plus

import boto3


def notify(
    bucket: Any, queue_url: str, sqs: Any, *, events: Iterable[str] = ("s3:ObjectCreated:*",)
) -> None:
    """Have a bucket (boto3 Bucket) notify a queue. S3 sends a test event at once."""
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    arn = arn["Attributes"]["QueueArn"]
    policy = {
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
            }
        ]
    }
    sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"Policy": json.dumps(policy)})
    configuration = {"QueueConfigurations": [{"QueueArn": arn, "Events": list(events)}]}
    bucket.Notification().put(NotificationConfiguration=configuration)


def made_bucket(endpoint: str, name: str, *, versions: bool = False) -> Any:
    """Make a bucket of the local server: a boto3 Bucket."""
    made = boto3.resource("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    if versions:
        made.Versioning().enable()
    return made


def removed_bucket(bucket: Any) -> None:
    """Delete a bucket and all that is in it."""
    bucket.object_versions.all().delete()
    bucket.objects.all().delete()
    bucket.delete()


def notification(
    bucket: str,
    key: str,
    *,
    etag: str = "",
    version: str = "",
    size: int = 0,
    event: str = "ObjectCreated:Put",
) -> str:
    """Return the body of a notification as S3 sends it to a queue."""
    stored = {"key": quote_plus(key), "size": size, "eTag": etag.strip('"'), "sequencer": "0A1B"}
    if version:
        stored["versionId"] = version
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": event,
        "s3": {"bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}, "object": stored},
    }
    return json.dumps({"Records": [record]})


def of(stored: Any, **more: Any) -> str:
    """Return the notification of a boto3 Object as it is now."""
    stored.load()
    version = stored.version_id if stored.version_id not in {None, "null"} else ""
    said = {"etag": stored.e_tag, "version": version, "size": stored.content_length} | more
    return notification(stored.bucket_name, stored.key, **said)


def lines(names: Iterable[str]) -> bytes:
    """Return JSON lines, one for each id."""
    return b"".join(json.dumps({"id": name}).encode() + b"\n" for name in names)


def packed(names: Iterable[str]) -> bytes:
    """Return the same in gzip."""
    return gzip.compress(lines(names), 1)


def of_objects(bucket: Any, **envelope: Any) -> dict[str, Any]:
    """Return overrides of the settings for notifications of a bucket: lines go to the table t."""
    layers = {"layers": ["s3_event"], "s3_buckets": [bucket.name]}
    return {"sink": {"table": "t"}, "field": FIELDS, "envelope": layers | envelope}


FIELDS = [
    {"source": "id", "column": "id", "required": True},
    {"column": "object", "default": "attribute:s3.key"},
]
