"""Puts messages on a queue, in batches as large as SQS takes, several batches at once."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.envelope.first_bytes import ENOUGH, format_of
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.wire import BATCH_MAX, SEND_BYTES_MAX, OutgoingMessage

_CONCURRENCY = 8


class Sent(msgspec.Struct):
    """How many of the given bodies were sent or refused."""

    sent: int = 0
    refused: dict[str, int] = {}
    """AWS error code, or `too_large` -> how many bodies it refused."""


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, plain or gzip by its first bytes, without empty lines.

    Raises SettingsError if the file cannot be read or is not UTF-8 text.
    """
    try:
        with path.open("rb") as raw:
            kind = format_of(raw.read(ENOUGH))
        opener = gzip.open if kind == "gzip" else open
        if kind == "gzip":
            with gzip.open(path) as packed:
                kind = format_of(packed.read(ENOUGH))
        if kind:
            raise SettingsError(
                f"{path} is not text but {kind}", hint="unpack it, and send the text inside"
            )
        with opener(path, "rt", encoding="utf-8-sig") as stream:
            for line in stream:
                if body := line.strip():
                    yield body
    except UnicodeDecodeError:
        raise SettingsError(
            f"{path} is not UTF-8 text", hint="give a text file, plain or gzip"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "it is damaged, or not gzip"
        raise SettingsError(
            f"{path} cannot be read: {reason}", hint="check the path and its permissions"
        ) from None


async def send_all(
    client: SqsClient,
    queue_url: str,
    bodies: Iterable[str | OutgoingMessage],
    *,
    rate: float | None = None,
    in_order: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Sent:
    """Send every body or message; return how many SQS took and why it refused the others.

    `rate` bounds the messages per second. `in_order`: one batch after the other, for a FIFO queue.
    `progress` is called with the number sent so far. Raises TransientFault or FatalFault if the
    queue cannot be reached.
    """
    result = Sent()
    slots = asyncio.Semaphore(1 if in_order else _CONCURRENCY)
    began = time.monotonic()
    given = 0

    async def send(batch: list[str | OutgoingMessage]) -> None:
        try:
            failures = await client.send(queue_url, batch)
            for failure in failures:
                result.refused[failure.code] = result.refused.get(failure.code, 0) + 1
            result.sent += len(batch) - len(failures)
            progress(result.sent)
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as group:
            for batch in _batches(bodies, result):
                given += len(batch)
                await slots.acquire()
                group.create_task(send(batch))
                if rate and (early := given / rate - (time.monotonic() - began)) > 0:
                    await asyncio.sleep(early)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return result


def _batches(
    bodies: Iterable[str | OutgoingMessage], result: Sent
) -> Iterator[list[str | OutgoingMessage]]:
    batch: list[str | OutgoingMessage] = []
    size = 0
    for body in bodies:
        length = _size(body)
        if length > SEND_BYTES_MAX:
            result.refused["too_large"] = result.refused.get("too_large", 0) + 1
            continue
        if batch and (len(batch) == BATCH_MAX or size + length > SEND_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += length
    if batch:
        yield batch


def _size(message: str | OutgoingMessage) -> int:
    """Return the bytes that SQS counts: the body and the attributes' names, types and values."""
    if isinstance(message, str):
        return len(message.encode("utf-8", "surrogatepass"))
    texts = [message.body]
    for name, value in (message.attributes or {}).items():
        texts += [name, "String", value]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
