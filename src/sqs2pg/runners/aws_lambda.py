"""The AWS Lambda handler: takes an event of SQS records, returns the ones to give back.

    event -> Messages -> process (decode, mask, write) -> batchItemFailures: what was RELEASED

Lambda's event source mapping receives and deletes; this module never calls the queue. Lambda
deletes every message that is not in `batchItemFailures`, so a message is left out only after its
outcome is committed. On a FIFO queue the failed message and all later ones of its group go back.

Promises: the connection, the keys and the compiled mapping stay warm between invocations. No batch
is started inside the margin before the function's timeout. A batch that is under way shortly before
it is cut and given back; if it was committed after all, the ledger makes it a duplicate. An object
of S3 is read until that margin; the next delivery of its notification goes on at the line after.
Where every message goes back it raises, and so it does where going on would be wrong (a key, the
settings, the table): the whole event goes back, even if the event source mapping lacks
ReportBatchItemFailures, without which Lambda deletes what a returned answer names.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from sqs2pg.errors import FatalFault, KeyFault, Sqs2pgError, Stage, TransientFault, unforeseen
from sqs2pg.message import Message, Outcome
from sqs2pg.pipeline.poison import Suspects
from sqs2pg.pipeline.processor import Processor
from sqs2pg.pipeline.refusals import PROBE_TIMEOUT_S, is_refused, may_be_of_a_message
from sqs2pg.postgres.dsn import hosts, resolve_dsn
from sqs2pg.runners.assembly import Processing, assemble_processors, record_unknown, upkeep
from sqs2pg.runners.lambda_event import messages_of
from sqs2pg.settings import Settings, load
from sqs2pg.sqs.odd_deliveries import bounded
from sqs2pg.sqs.queue import SUSPECT_RECEIVES
from sqs2pg.telemetry import log
from sqs2pg.telemetry.emf import EmfLines
from sqs2pg.telemetry.metrics import Metrics

CUT_S = 1.0
"""Work under way is cut so long before the function's timeout, so that an answer still gets out."""
RECORD_EVERY_S = 60.0
"""Between two records of unknown fields; the first invocation makes one."""
RECORD_S_MAX = 2.0
"""How long one may take."""
UPKEEP_EVENT = "Scheduled Event"
"""`detail-type` of an EventBridge rule's event, which means one turn of the books' upkeep."""

_CONNECTION = ("postgres_08", "postgres_25", "postgres_57P", "postgres_no_answer")

logger = structlog.get_logger(__name__)


class Invocation:
    """One event's messages on their way to an outcome."""

    def __init__(
        self,
        processor: Processor,
        settings: Settings,
        remaining_s: Callable[[], float],
        *,
        fifo: bool,
    ) -> None:
        """`fifo`: the messages come from a FIFO queue."""
        self._processor = processor
        self._fifo = fifo
        self._remaining_s = remaining_s
        self._margin_s = settings.aws_lambda.margin_s
        self._batch_rows_max = settings.sink.batch_rows_max
        # The queue is not asked for its redrive policy: a function in a private network may not
        # reach it.
        self._suspects = Suspects(settings.source.max_receives or SUSPECT_RECEIVES, fifo=fifo)
        if processor.objects is not None:
            processor.objects.stopping = processor.objects.out_of_time = self._is_over
            processor.objects.search_at_once()
        self.outcomes: dict[str, Outcome] = {}
        self._rehearsed = False
        self._blocked: set[str] = set()  # groups with a message that was given back

    def _is_over(self) -> bool:
        return self._remaining_s() <= self._margin_s

    async def settle(self, messages: Sequence[Message]) -> list[str]:
        """Process the messages; return the MessageIds to give back, in the event's order.

        Raises FatalFault or KeyFault where going on is wrong.
        """
        for part in self._parts(messages):
            await self._settle(part)
        failed = {m.message_id for m in messages if not self.outcomes[m.message_id].settled}
        return [m.message_id for m in messages if m.message_id in failed]

    def _parts(self, messages: Sequence[Message]) -> Iterator[list[Message]]:
        """Split by suspects and by size, in order."""
        for part in self._suspects.split(messages):
            for start in range(0, len(part), self._batch_rows_max):
                yield part[start : start + self._batch_rows_max]

    async def _settle(self, batch: Sequence[Message]) -> None:
        """Process a batch. What is released of it for what may be one message's fault is halved.

        The second half begins after the first one's end, so that a group's order is kept.
        """
        self._give_back([m for m in batch if m.attributes.message_group_id in self._blocked])
        batch = [m for m in batch if m.attributes.message_group_id not in self._blocked]
        if not batch:
            return
        if self._is_over():
            self._give_back(batch)
            return
        outcomes = await self._process(batch)
        released = [m for m, o in zip(batch, outcomes, strict=True) if not o.settled]
        # A batch of large payloads is written in parts: those before the refused one are settled.
        halve = len(released) > 1 and await self._is_fault_of_a_message()
        for message, outcome in zip(batch, outcomes, strict=True):
            # Lambda keeps a group's order only if all messages after the failed one go back, too.
            if outcome.settled and message.attributes.message_group_id not in self._blocked:
                self.outcomes[message.message_id] = outcome
            elif not halve:
                self._give_back([message])
        if halve:
            half = len(released) // 2
            with self._processor.sink.probing(PROBE_TIMEOUT_S):
                await self._settle(released[:half])
                await self._settle(released[half:])

    def _give_back(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.outcomes[message.message_id] = Outcome.RELEASED
            if self._fifo and (group := message.attributes.message_group_id):
                self._blocked.add(group)

    async def _process(self, batch: list[Message]) -> list[Outcome]:
        """Process a batch; release it if it is not done by the cut."""
        work = asyncio.ensure_future(self._process_connected(batch))
        await asyncio.wait([work], timeout=self._remaining_s() - CUT_S)
        if work.done():
            return work.result()
        work.cancel()
        await asyncio.wait([work], timeout=CUT_S / 4)
        # A cancelled driver waits for the server's answer; without a connection it ends.
        await self._processor.reconnect()
        await asyncio.wait([work], timeout=CUT_S / 4)
        # A marker left behind would quarantine the next delivery of a message that crashed nobody.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._suspects.clear_interrupted(), CUT_S / 4)
        logger.warning("cut before the function's timeout", messages=len(batch))
        return [Outcome.RELEASED] * len(batch)

    async def _process_connected(self, batch: list[Message]) -> list[Outcome]:
        outcomes = await self._suspects.process(self._processor, batch)
        if set(outcomes) == {Outcome.RELEASED} and self._fault_code().startswith(_CONNECTION):
            # Closed while the function was frozen: a proxy does that after half an hour.
            outcomes = await self._suspects.process(self._processor, batch)
        return outcomes

    async def _is_fault_of_a_message(self) -> bool:
        """Whether some message of what is released is at fault: without rows, PostgreSQL takes it.

        As `pipeline/isolation.py`, but at once: there is no time for more attempts. The queue's
        own visibility timeout isolates what is given back.
        """
        fault = self._processor.last_fault
        if fault is None or not may_be_of_a_message(fault) or fault.code.startswith(_CONNECTION):
            return False
        if not self._rehearsed and self._remaining_s() > self._margin_s:
            self._rehearsed = not await is_refused(
                self._processor.sink,
                "the rehearsal of a batch failed; its messages go back",
                self._remaining_s() - CUT_S,
            )
        return self._rehearsed

    def _fault_code(self) -> str:
        fault = self._processor.last_fault
        return fault.code if fault else ""


class Function:
    """What stays warm between invocations: the event loop, keys, mapping and connection."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        # One invocation at a time: a second connection would only stay open.
        self._settings = msgspec.structs.replace(
            settings, sink=msgspec.structs.replace(settings.sink, connections=1)
        )
        self._environ = environ
        self._runner = asyncio.Runner()
        self._warm: dict[bool, tuple[AsyncExitStack, Processing]] = {}
        self._metrics = Metrics()
        self._record_at = 0.0
        self._lines = (
            EmfLines(self._metrics.registry, settings.pipeline_name)
            if settings.telemetry.emf
            else None
        )

    def handle(
        self, event: object, remaining_s: Callable[[], float]
    ) -> dict[str, list[dict[str, str]]]:
        """Return Lambda's partial batch response.

        Raises TransientFault where every message goes back, and where going on would be wrong
        FatalFault, KeyFault or SettingsError.
        """
        if isinstance(event, Mapping) and event.get("detail-type") == UPKEEP_EVENT:
            self._runner.run(self._upkeep())
            return {"batchItemFailures": []}
        messages, fifo = messages_of(event)
        messages = bounded(messages, time.time())
        failed = [message.message_id for message in messages]  # all of them, if this raises
        try:
            failed = self._runner.run(self._settle(messages, fifo, remaining_s))
        finally:
            self._print_metrics(len(messages), len(failed))
        if messages and len(failed) == len(messages):
            raise TransientFault("every message of the batch goes back", code="batch_released")
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}

    def close(self) -> None:
        """Close connections and loop."""
        self._runner.run(self._cool_down())
        self._runner.close()

    async def _settle(
        self, messages: Sequence[Message], fifo: bool, remaining_s: Callable[[], float]
    ) -> list[str]:
        for last_try in (False, True):
            if remaining_s() <= self._settings.aws_lambda.margin_s:
                break
            try:
                async with asyncio.timeout(remaining_s() - CUT_S):
                    processing = await self._warm_up(fifo)
            except (TransientFault, TimeoutError) as fault:
                # The database is away, or slow: nothing was begun.
                code = getattr(fault, "code", "cut")
                self._metrics.count_fault(getattr(fault, "stage", Stage.WRITE), code)
                logger.warning("not ready; the batch goes back", code=code)
                break
            invocation = Invocation(
                processing.processors[0], self._settings, remaining_s, fifo=fifo
            )
            try:
                failed = await invocation.settle(messages)
            except KeyFault as fault:
                if last_try or fault.code != "key_version":
                    raise
                # The keys were rotated while the function was warm: read them again, and go on.
                await self._cool_down()
            else:
                self._report(len(messages), invocation)
                await self._record_unknown(processing, remaining_s)
                return failed
        return [message.message_id for message in messages]

    async def _record_unknown(
        self, processing: Processing, remaining_s: Callable[[], float]
    ) -> None:
        """Record the unknown fields of these and earlier messages, once in a while."""
        limit_s = min(RECORD_S_MAX, remaining_s() - self._settings.aws_lambda.margin_s)
        if time.monotonic() < self._record_at or limit_s <= 0 or not self._metrics.unknown:
            return
        self._record_at = time.monotonic() + RECORD_EVERY_S
        with suppress(Sqs2pgError, TimeoutError):  # a report: the messages are settled
            async with asyncio.timeout(limit_s):
                session = await processing.connect()
                try:
                    pipeline = processing.sink_plan.id
                    await record_unknown(session, self._settings, pipeline, self._metrics)
                finally:
                    await session.close()

    async def _warm_up(self, fifo: bool) -> Processing:
        if fifo not in self._warm:

            async def is_fifo() -> bool:
                return fifo

            stack = AsyncExitStack()
            where = [self._queue_host(), *hosts(resolve_dsn(self._settings.sink.dsn))]
            made = await stack.enter_async_context(
                assemble_processors(self._settings, where, is_fifo, metrics=self._metrics)
            )
            self._warm[fifo] = (stack, made)
        return self._warm[fifo][1]

    async def _cool_down(self) -> None:
        for stack, _ in self._warm.values():
            await stack.aclose()
        self._warm.clear()

    async def _upkeep(self) -> None:
        processing = await self._warm_up(fifo=False)
        await upkeep(self._settings, processing.sink_plan.id)

    def _queue_host(self) -> str:
        """Return the queue's host: AWS's, unless its endpoint is set to another one."""
        names = ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")
        url = next(filter(None, map(self._environ.get, names)), "")
        return urlsplit(url).hostname or "amazonaws.com"

    @staticmethod
    def _report(received: int, invocation: Invocation) -> None:
        ended = list(invocation.outcomes.values())
        counts = {outcome.value: ended.count(outcome) for outcome in Outcome}
        logger.info("batch settled", received=received, **counts)

    def _print_metrics(self, received: int, released: int) -> None:
        """Print this invocation's metrics as one line, if the settings ask for it.

        After each invocation: the sandbox is frozen between two, and any may be the last.
        """
        self._metrics.requests.received += received
        self._metrics.count_released(released)
        if self._lines is not None:
            print(self._lines.next_line(), flush=True)

    def discard(self) -> None:
        """Close what is warm after a fault, so that the next invocation starts afresh."""
        self._runner.run(self._cool_down())


_function: Function | None = None


def handler(event: object, context: Any) -> dict[str, list[dict[str, str]]]:
    """Handle one invocation; the function's `Handler` is `sqs2pg.aws_lambda.handler`.

    Calls `get_remaining_time_in_millis()` of Lambda's `context`. Returns
    `{"batchItemFailures": [{"itemIdentifier": MessageId}, …]}`. Raises an Sqs2pgError where every
    message goes back or going on would be wrong; then the whole event returns to the queue. Its
    text quotes no message.
    """
    global _function  # noqa: PLW0603  what Lambda keeps warm is the module
    try:
        if _function is None:
            log.from_environment()
            settings = load()
            log.follow(settings.log)
            _function = Function(settings)
        return _function.handle(event, lambda: context.get_remaining_time_in_millis() / 1000)
    except TransientFault as fault:
        logger.warning("the whole batch goes back", code=fault.code)
        raise
    except Sqs2pgError as fault:
        logger.error("the whole batch goes back", code=fault.code)  # noqa: TRY400
        if _function is not None:
            _function.discard()
        raise
    except Exception as error:  # noqa: BLE001  no text of an exception may leave it
        what, hint = unforeseen(error)
        logger.error("the whole batch goes back", code="unexpected")  # noqa: TRY400  no traceback
        if _function is not None:
            _function.discard()
        raise FatalFault(what, code="unexpected", hint=hint) from None
