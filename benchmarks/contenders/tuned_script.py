"""The script after its first tuning: ten messages per transaction, one INSERT, one batch delete.

It stands alone like `plain_script`, and writes the same rows. It repeats that script's code on
purpose: both are shown as people would write them.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Any

import boto3
import psycopg2
import psycopg2.extras

INSERT = """INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale,
app_version, create_date) VALUES %s"""


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
        rows = []
        for message in messages:
            try:
                rows.append(to_row(json.loads(message["Body"])))
            except (ValueError, KeyError, TypeError, AttributeError):
                print("skipping a malformed message")
        if rows:
            with database.cursor() as cursor:
                psycopg2.extras.execute_values(cursor, INSERT, rows)
            database.commit()
        entries = [
            {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
            for index, message in enumerate(messages)
        ]
        sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
    database.close()


if __name__ == "__main__":
    main()
