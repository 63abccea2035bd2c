"""Made-up logins, as bodies of messages, and how they get onto a queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqs2pg.mapping.columns import Column

WHOLE: Mapping[str, str] = {
    "user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae",
    "app_version": "2.3.0",
    "device_type": "android",
    "ip": "199.172.111.135",
    "locale": "RU",
    "device_id": "593-47-5928",
}
"""A login with every field that senders fill in."""

CANARIES = ("canary-user", "203.0.113.77", "593-47-5928")
"""User, address and device of a canary login: values to search for in what is put out."""

TARGET = (
    Column("user_id", "varchar", 128),
    Column("device_type", "varchar", 32),
    Column("masked_ip", "varchar", 256),
    Column("masked_device_id", "varchar", 256),
    Column("locale", "varchar", 32),
    Column("app_version", "int4"),
    Column("create_date", "date"),
)
"""The columns of `user_logins` as the built-in mapping makes them."""


def login(user: Any, **changes: Any) -> str:
    """The body of a login with few fields; user 7 is `u7`. One device and address for all."""
    name = f"u{user}" if isinstance(user, int) else user
    return json.dumps({"user_id": name, "ip": "198.51.100.7", "device_id": "1"} | changes)


def whole_login(**changes: Any) -> str:
    """The body of a login with every field; one that is changed to `...` is left out."""
    return json.dumps({name: value for name, value in {**WHOLE, **changes}.items() if value != ...})


def recurring_login(number: int, **changes: Any) -> str:
    """The body of a login by user `number`; 13 devices and 77 addresses come back again and again.

    Every third has no locale.
    """
    usual = {
        "user_id": f"user-{number:05}",
        "ip": f"199.172.{number % 7}.{number % 11}",
        "locale": "RU" if number % 3 else None,
        "device_id": f"593-47-{number % 13:04}",
    }
    return whole_login(**(usual | changes))


def canary_login(number: int) -> str:
    """The body of a login of CANARIES; the number makes the user's name unique."""
    user, ip, device = CANARIES
    return login(f"{user}-{number}", ip=ip, device_id=device)


def send_in_batches(
    send_entries: Callable[[list[dict[str, str]]], Any], bodies: Sequence[str]
) -> list[str]:
    """Send bodies by tens, each by one SendMessageBatch; return their MessageIds in order."""
    ids: list[str] = []
    for start in range(0, len(bodies), 10):
        entries = [
            {"Id": str(index), "MessageBody": body}
            for index, body in enumerate(bodies[start : start + 10])
        ]
        answer = send_entries(entries)
        assert not answer.get("Failed")
        by_entry = {one["Id"]: one["MessageId"] for one in answer["Successful"]}
        ids += [by_entry[entry["Id"]] for entry in entries]
    return ids


def send(client: Any, queue_url: str, bodies: Sequence[str]) -> list[str]:
    """Send bodies with a client of boto's; return their MessageIds in order."""
    return send_in_batches(
        lambda entries: client.send_message_batch(QueueUrl=queue_url, Entries=entries), bodies
    )
