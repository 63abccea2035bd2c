"""Checks of the queue: its attributes against the settings, and what the credentials may do."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable

from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.cli.options import counted
from sqs2pg.errors import FatalFault
from sqs2pg.postgres.workers import STALE_S

RECEIVES_MIN = 5
"""maxReceiveCount below which a few restarts or a short outage send good messages to the DLQ."""
RETENTION_S_MIN = 4 * 86_400
"""SQS's default. Less leaves little time to repair a database over a long weekend."""
BATCHES_MIN = 6
"""How often the longest batch must fit into the visibility timeout. A lease is extended after a
third of it, maybe behind a batch that is being decoded, and the call may have to be repeated."""
_LONGEST = """SELECT count(*), coalesce(max(w.batch_s_max), 0)::float8
FROM sqs2pg.worker w JOIN sqs2pg.pipeline p ON p.id = w.pipeline
WHERE p.name = %s AND w.heartbeat_at > now() - make_interval(secs => %s)"""
_KNOWS_BATCHES = """SELECT FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('sqs2pg.worker') AND attname = 'batch_s_max'"""
_NO_HANDLE = "sqs2pg-check"


async def check_queue_attributes(context: Context) -> list[Finding]:
    """Compare the queue's attributes with what the pipeline relies on."""
    client, url = await context.queue()
    found = await client.attributes(url, ["All"])
    return [
        _redrive(found),
        _visibility(found, context.settings.source.visibility_timeout_s),
        _retention(found),
        _encryption(found),
        _long_polling(found, context.settings.source.wait_time_s),
    ]


def _redrive(found: dict[str, str]) -> Finding:
    name = "queue redrive"
    try:
        policy = json.loads(found.get("RedrivePolicy") or "{}")
        receives = int(policy.get("maxReceiveCount", 0))
    except ValueError:
        receives = 0
    if not receives:
        return warn(
            name,
            "the queue has no redrive policy",
            "none is needed: bad messages go to the quarantine; but one with maxReceiveCount 10 "
            "stops messages that kill their workers from coming back for ever",
        )
    if receives < RECEIVES_MIN:
        return warn(
            name,
            f"maxReceiveCount is {receives}",
            f"raise it to 10 ({RECEIVES_MIN} at least): each restart and each release by others "
            "costs a receive, and good messages would end in the dead-letter queue",
        )
    return ok(name, f"maxReceiveCount is {receives}")


def _visibility(found: dict[str, str], ours_s: int) -> Finding:
    name = "queue visibility timeout"
    theirs_s = int(found.get("VisibilityTimeout", 30))
    if ours_s < 20:
        return warn(
            name,
            f"source.visibility_timeout_s is {ours_s}",
            "30 or more: a lease is extended at a third of it, and each extension is a request",
        )
    return ok(name, f"receives ask for {ours_s} s (the queue's own: {theirs_s})")


async def check_batch_time(context: Context) -> Finding:
    """Compare the visibility timeout with the longest batch of the running workers.

    Workers report it in their heartbeats; nothing is known of workers that ended in good order.
    """
    name = "queue batch time"
    if not await context.query(_KNOWS_BATCHES):
        raise NotChecked("the tables are not those of this version")
    asked_s = context.settings.source.visibility_timeout_s
    [(workers, longest_s)] = await context.query(
        _LONGEST, [context.settings.pipeline_name, STALE_S]
    )
    if not workers:
        return ok(name, "no worker runs, so no batch was seen")
    if not longest_s:
        return ok(name, f"{counted(workers, 'worker')} running; none has committed a batch yet")
    detail = f"the longest batch of {counted(workers, 'worker')} took {longest_s:.1f} s"
    if asked_s < BATCHES_MIN * longest_s:
        wanted_s = math.ceil(BATCHES_MIN * longest_s)
        return warn(
            name,
            f"{detail}; receives ask for {asked_s} s",
            f"set source.visibility_timeout_s to {wanted_s} or more, or find what makes batches "
            "slow (sqs2pg_batch_seconds): messages wait for the batches before theirs, and a lease "
            "that cannot be extended in time gives them to another worker",
        )
    return ok(name, f"{detail}, and receives ask for {asked_s} s")


def _retention(found: dict[str, str]) -> Finding:
    name = "queue retention"
    kept_s = int(found.get("MessageRetentionPeriod", RETENTION_S_MIN))
    if kept_s < RETENTION_S_MIN:
        return warn(
            name,
            f"messages are dropped after {kept_s / 86_400:.1f} days",
            "set MessageRetentionPeriod to 1209600 (14 days): messages wait on the queue while the "
            "database is away",
        )
    return ok(name, f"messages are kept for {kept_s / 86_400:.0f} days")


def _encryption(found: dict[str, str]) -> Finding:
    name = "queue encryption"
    if found.get("KmsMasterKeyId"):
        return ok(name, "SSE-KMS; the role needs kms:Decrypt on its key")
    if found.get("SqsManagedSseEnabled") == "true":
        return ok(name, "SSE-SQS")
    return warn(
        name,
        "bodies lie unencrypted in SQS",
        "set SqsManagedSseEnabled to true, or KmsMasterKeyId",
    )


def _long_polling(found: dict[str, str], ours_s: int) -> Finding:
    name = "queue long polling"
    if ours_s == 0:
        return warn(
            name,
            "source.wait_time_s is 0: every empty receive is paid for",
            "leave it at 20, AWS's longest",
        )
    delay_s = int(found.get("DelaySeconds", 0))
    detail = f"receives wait up to {ours_s} s"
    return ok(name, detail + (f"; new messages are delayed by {delay_s} s" if delay_s else ""))


async def check_queue_permissions(context: Context) -> Finding:
    """Whether the credentials may do what the pipeline does; each missing action by its name.

    It tries calls that change nothing: to delete and to hide a message that does not exist.
    sqs:ReceiveMessage is not tried, since a receive counts against maxReceiveCount; `--sample`
    tries it.
    """
    client, url = await context.queue()

    async def delete() -> object:
        return await client.delete(url, [_NO_HANDLE])

    async def hide() -> object:
        return await client.change_visibility(url, [_NO_HANDLE], 0)

    async def attributes() -> object:
        return await client.attributes(url, ["QueueArn"])

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "sqs:GetQueueAttributes": attributes,
        "sqs:DeleteMessage": delete,
        "sqs:ChangeMessageVisibility": hide,
    }
    missing = [action for action, call in calls.items() if await _denied(call)]
    name = "queue permissions"
    if missing:
        return fail(
            name,
            f"the credentials may not: {', '.join(missing)}",
            "grant what `sqs2pg check --emit-iam` prints",
        )
    return ok(name, f"granted: {', '.join(calls)}; sqs:ReceiveMessage is tried by --sample")


async def _denied(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except FatalFault as fault:
        if fault.code == "aws_access_denied":
            return True
        if fault.code in ("aws_bad_credentials", "aws_queue_missing"):
            raise
    return False
