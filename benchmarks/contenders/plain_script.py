"""The script people write first: one INSERT, one COMMIT and one delete per message.

It stands alone: it needs only QUEUE_URL, DATABASE_URL and the usual AWS variables. It ends when a
receive returns no message.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Any

import boto3
import psycopg2

INSERT = """INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale,
app_version, create_date) VALUES (%s, %s, %s, %s, %s, %s, %s)"""


def mask(value: str | None) -> str | None:
    return None if value is None else hashlib.sha256(value.encode()).hexdigest()


def version_number(version: str) -> int:
    major, minor, patch = ([int(part) for part in version.split(".")] + [0, 0])[:3]
    return major * 1_000_000 + minor * 1_000 + patch


def to_row(login: dict[str, Any]) -> tuple[Any, ...]:
    return (
        login["user_id"],
        login["device_type"],
        mask(login["ip"]),
        mask(login["device_id"]),
        login["locale"],
        version_number(login["app_version"]),
        datetime.now(UTC).date(),
    )


def main() -> None:
    sqs = boto3.client("sqs")
    queue_url = os.environ["QUEUE_URL"]
    database = psycopg2.connect(os.environ["DATABASE_URL"])
    while True:
        answer = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        messages = answer.get("Messages", [])
        if not messages:
            break
        for message in messages:
            try:
                row = to_row(json.loads(message["Body"]))
            except (ValueError, KeyError, TypeError, AttributeError):
                print("skipping a malformed message")
            else:
                with database.cursor() as cursor:
                    cursor.execute(INSERT, row)
                database.commit()
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    database.close()


if __name__ == "__main__":
    main()
