"""Check whether a batch can be written: its own statements, without rows, and then ROLLBACK.

What the other checks infer from the catalog, this one asks the server, as the pipeline's role.
"""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.finding import Finding, fail, ok
from sqs2pg.errors import FatalFault, KeyFault, SettingsError
from sqs2pg.keys.derive import ROOT_BYTES
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres.batch_transaction import SinkPlan
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.key_registry import recorded_keys
from sqs2pg.postgres.migrate import pipeline_id, target_tables
from sqs2pg.postgres.missing_rights import missing_rights, missing_schemas
from sqs2pg.postgres.refusal_reason import explain_refusal
from sqs2pg.postgres.rehearsal import rehearse
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.postgres.staging import StagedInsert
from sqs2pg.vault.seal import ValueSealer

STATEMENT_TIMEOUT_S = 5
"""Limit of each statement: a lock that is held longer is reported."""


class _AnyVersion(ValueSealer):
    """Takes any version of the vault root: `keys on record` reports another one."""

    def check_epoch(self, epoch: int, version: int | None) -> None:
        """Accept what was read."""


async def check_writing(context: Context) -> list[Finding]:
    """Whether PostgreSQL takes the statements of a batch from this role, and later its rows."""
    name = "writing"
    session = await context.session()
    schemas = {t.table.partition(".")[0] for t in context.settings.targets if "." in t.table}
    with explained():
        unusable = await missing_schemas(session, sorted({"sqs2pg", "pii"} | schemas))
    if unusable:
        lacks = ", ".join(one.what for one in unusable)
        return [fail(name, f"this login lacks {lacks}", "; ".join(one.grant for one in unusable))]
    plan, vault = await _plan(context, session)
    refusal = await rehearse(session, plan, vault)
    if refusal is not None:
        fault = await explain_refusal(await context.session(), refusal, plan.targets)
        return [fail(name, fault.what, fault.hint)]
    found = []
    for target in plan.targets:
        with explained():
            missing = await missing_rights(session, target)
        found += [
            fail(
                f"target {target.name} rights",
                f"this login lacks {one.what}: every row would be refused",
                one.grant,
            )
            for one in missing
        ]
    fine = ok(name, "the statements of a batch pass without rows; they were rolled back")
    return [fine, *_ways(plan), *found]


def _ways(plan: SinkPlan) -> list[Finding]:
    """Say which tables are not written by COPY, and why."""
    return [
        ok(f"target {target.name} path", f"written by INSERT because {target.staging.reason}")
        for target in plan.targets
        if isinstance(target.staging, StagedInsert)
    ]


async def _plan(context: Context, session: Session) -> tuple[SinkPlan, ValueSealer | None]:
    """Return what a batch would be written with, whatever keys are on record.

    Raises NotChecked for what other checks report.
    """
    settings = context.settings
    try:
        number = await pipeline_id(session, settings)
        targets, _ = await target_tables(session, settings)
        known = await recorded_keys(session)
    except (SettingsError, FatalFault) as error:
        raise NotChecked(error.what) from None
    active = [v for (series, v), (_, on) in known.items() if on and series == "pseudonym"]
    plan = SinkPlan(
        id=number,
        targets=tuple(targets),
        key_version=active[0] if active else 0,
        statement_timeout_s=min(STATEMENT_TIMEOUT_S, settings.sink.statement_timeout_s),
        fifo=settings.source.queue.endswith(".fifo"),
        dedupe=bool(settings.ledger.dedupe_key),
    )
    return plan, _sealer(context.keyring()) if settings.vault.enabled else None


def _sealer(keyring: Keyring) -> ValueSealer:
    try:
        return _AnyVersion(keyring, bytes(ROOT_BYTES))
    except KeyFault as fault:
        raise NotChecked(fault.what) from None
