"""Peek: look at messages and leave them on the queue.

SQS has no such call, so messages are received and released at once. Each peek counts as a receive;
that is why it is bounded, and why the documentation of each command that peeks says so.
"""

from __future__ import annotations

from sqs2pg.message import Message
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.wire import BATCH_MAX

_HIDE_S = 30
"""Seconds for which a message stays hidden if the process dies before it releases it."""


async def peek(
    client: SqsClient, queue_url: str, count: int, *, message_attributes: tuple[str, ...] = ("All",)
) -> list[Message]:
    """Return up to `count` different messages; none is deleted, and all are released.

    Raises TransientFault or FatalFault of the client.
    """
    found: dict[str, Message] = {}
    try:
        while len(found) < count:
            messages = await client.receive(
                queue_url,
                max_messages=min(BATCH_MAX, count - len(found)),
                wait_s=1,
                visibility_timeout_s=_HIDE_S,
                message_attributes=message_attributes,
            )
            if not messages:
                break
            found.update((message.message_id, message) for message in messages)
    finally:
        handles = [message.receipt_handle for message in found.values()]
        for start in range(0, len(handles), BATCH_MAX):
            await client.change_visibility(queue_url, handles[start : start + BATCH_MAX], 0)
    return list(found.values())
