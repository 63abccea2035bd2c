"""Checks of the target tables: whether the mapping fits, and what they do to new rows."""

from __future__ import annotations

from collections.abc import Mapping

from sqs2pg.cli.doctor.check_partitions import check_partitions
from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.mapping import columns
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.field_types import TEXT_TYPES
from sqs2pg.postgres.catalog import INSTEAD, NO_TABLE_HINT, NO_TABLES, read_columns
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.postgres.table_owners import check_owner
from sqs2pg.settings import Settings, Target

_TABLE = f"""SELECT c.relpersistence, c.relkind,
       ARRAY(SELECT t.tgname FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
             AND t.tgtype & 4 <> 0 ORDER BY 1),
       c.relrowsecurity,
       {INSTEAD}
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"""


async def check_targets(context: Context) -> list[Finding]:
    """Report whether the mapping fits each target, and what people should know of the table."""
    findings: list[Finding] = []
    for target in context.settings.targets:
        findings += await _target(context, target)
    return findings


async def _target(context: Context, target: Target) -> list[Finding]:
    name = f"target {target.table}"
    session = await context.session()
    table = quote_table(target.table)
    try:
        found = await read_columns(session, table)
        columns.match(target.fields, found, target.table)
        columns.check_subject(context.settings, target, found)
    except SettingsError as error:
        return [fail(name, error.what, error.hint)]
    unfilled = [c.name for c in found.values() if c.name not in {f.column for f in target.fields}]
    rows = await context.query(_TABLE, [table])
    persistence, kind, triggers, row_security, instead = rows[0]
    if kind in NO_TABLES and not instead:
        what = f"it is {NO_TABLES[kind]}: rows cannot be copied into it"
        return [fail(name, what, NO_TABLE_HINT)]
    beside = f"; not mapped: {', '.join(unfilled)}" if unfilled else ""
    findings = [ok(name, f"{len(target.fields)} fields fit their columns{beside}")]
    findings += _spellings(name, context.settings, target, found)
    if persistence == "u":
        findings.append(
            warn(
                f"{name} durability",
                "the table is UNLOGGED: a crash of the server empties it, and the ledger says "
                "that its messages were written",
                f"ALTER TABLE {table} SET LOGGED",
            )
        )
    if triggers:
        findings.append(
            warn(
                f"{name} triggers",
                f"on insert: {', '.join(triggers)}",
                "each runs for every row; one that returns NULL sends its messages to quarantine",
            )
        )
    if row_security:
        findings.append(
            warn(
                f"{name} row security",
                "policies decide which rows may be inserted; COPY needs one that lets them in",
                "check the policies FOR INSERT of the pipeline's role",
            )
        )
    findings += await _owner(name, session, table)
    return findings + await check_partitions(context, name, table)


async def _owner(name: str, session: Session, table: str) -> list[Finding]:
    try:
        warning = await check_owner(session, table)
    except FatalFault as fault:
        return [fail(f"{name} owner", fault.what, fault.hint)]
    remedy = "let one plain role own both, unless each role trusts the other"
    return [warn(f"{name} owner", warning, remedy)] if warning else []


def _spellings(
    name: str, settings: Settings, target: Target, found: Mapping[str, Column]
) -> list[Finding]:
    """Warn where the table makes one number of ids that are several people to the vault."""
    if not settings.vault.enabled:
        return []
    return [
        warn(
            f"{name} people",
            f"{field.column} (vault.subject) is a number, and its ids come as text: 7 and 007 "
            "are one there, but two people to the vault",
            "if a person's id has several spellings, forget each of them; or keep the id in a "
            "column of text",
        )
        for field in target.fields
        if field.source == settings.vault.subject
        and field.mask == "keep"
        and field.type == "text"
        and found[field.column].type not in TEXT_TYPES
    ]
