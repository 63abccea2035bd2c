"""Message attributes of a real server, as they reach a column."""

from __future__ import annotations

from typing import Any

from tests.integration.support import Assemble, receive, rows

FIELDS = [
    {"source": "id", "column": "id"},
    {"column": "tenant", "default": "attribute:tenant"},
    {"column": "raw", "default": "attribute:raw"},
]


async def test_a_binary_attribute_is_its_base64(
    pipeline: Assemble, database: str, sqs_client: Any, queue_url: str
) -> None:
    attributes = {
        "tenant": {"DataType": "String", "StringValue": "blue"},
        "raw": {"DataType": "Binary.png", "BinaryValue": b"\x00\xff\x7f"},
    }
    async with pipeline(sink={"table": "t"}, field=FIELDS) as ready:
        for given in (attributes, {}):
            sqs_client.send_message(
                QueueUrl=queue_url, MessageBody='{"id": "a"}', MessageAttributes=given
            )
        await ready.processors[0].process(await receive(ready, 2))
        found = rows(database, "SELECT tenant, raw FROM t ORDER BY tenant NULLS LAST")
    assert found == [("blue", "AP9/"), (None, None)]
