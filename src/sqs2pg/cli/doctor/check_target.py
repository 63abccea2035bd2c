"""Checks of the target tables: whether the mapping fits, and what they do to new rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqs2pg.cli.doctor.check_partitions import check_partitions
from sqs2pg.cli.doctor.check_state import check_state
from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.cli.options import counted
from sqs2pg.errors import FatalFault, SettingsError, TransientFault
from sqs2pg.mapping import columns
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.field_types import FIELD_TYPES, TEXT_TYPES
from sqs2pg.postgres.catalog import NO_TABLE_HINT, NO_TABLES, TAKES_ROWS, read_columns
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.digest import hindrance, keeps_digest
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.postgres.others_rows import ACCEPT, makes_differences, not_seen
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.postgres.table_owners import check_owner, refuse_as_superuser
from sqs2pg.postgres.write_path import insert_reason
from sqs2pg.settings import Settings, Target

_TABLE = f"""SELECT c.relpersistence, c.relkind,
       ARRAY(SELECT t.tgname FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
             AND NOT starts_with(t.tgname::text, 'sqs2pg_digest_')
             AND t.tgtype & 4 <> 0 ORDER BY 1),
       ARRAY(SELECT r.rulename FROM pg_catalog.pg_rewrite r
             WHERE r.ev_class = c.oid AND r.ev_type = '3' AND r.ev_enabled <> 'D' ORDER BY 1),
       ARRAY(SELECT t.relid::text FROM pg_catalog.pg_partition_tree(c.oid) t
             JOIN pg_catalog.pg_class p ON p.oid = t.relid AND p.relkind = 'f' ORDER BY 1),
       {TAKES_ROWS}
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
    persistence, kind, triggers, rules, foreign, takes_rows = rows[0]
    if kind in NO_TABLES and not takes_rows:
        what = f"it is {NO_TABLES[kind]}: rows cannot be copied into it"
        return [fail(name, what, NO_TABLE_HINT)]
    beside = f"; not mapped: {', '.join(unfilled)}" if unfilled else ""
    fit = counted(len(target.fields), "field fits its column", "fields fit their columns")
    findings = [ok(name, f"{fit}{beside}")]
    findings += _spellings(name, context.settings, target, found)
    findings += _numbers_as_text(name, target, found)
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
    if kind == "f":
        findings.append(
            warn(
                f"{name} server",
                "it is a foreign table: its rows are committed on the other server just before the "
                "ledger, and not with it; a cut or a crash in between writes a batch again",
                "keep a unique key there, by which a row that comes again is known; or write to a "
                "table of this database",
            )
        )
    if foreign:
        findings.append(
            warn(
                f"{name} foreign partitions",
                f"on other servers: {', '.join(foreign)}; rows there do not commit together with "
                "the ledger, and may be lost or doubled",
                "keep the partitions that new rows go to in this database",
            )
        )
    findings += await _rules(context, name, target, rules)
    findings += await check_state(context, name, target)
    findings += await _books(name, session, table)
    findings += await _digest(name, session, table, target)
    findings += await _owner(name, session, table)
    return findings + await check_partitions(context, name, table)


async def _books(name: str, session: Session, table: str) -> list[Finding]:
    """Say what `verify` does not see of a table, and who else makes differences."""
    with explained():
        told = await not_seen(session, table)
        if others := await makes_differences(session, table):
            told.append(
                f"others may insert or delete rows ({', '.join(others)}), which verify reports: "
                f"record what is done on purpose with {ACCEPT}"
            )
    return [ok(f"{name} books", "; ".join(told))] if told else []


async def _rules(
    context: Context, name: str, target: Target, rules: Sequence[str]
) -> list[Finding]:
    """Report rules and policies that no row, or not every row, gets past."""
    try:
        await insert_reason(await context.session(), target)
    except SettingsError as error:
        about = "row security" if error.code == "target_policy" else "rules"
        return [fail(f"{name} {about}", error.what, error.hint)]
    except TransientFault as fault:
        raise NotChecked(fault.what) from None
    if not rules:
        return []
    return [
        warn(
            f"{name} rules",
            f"every INSERT also runs its rules: {', '.join(rules)}",
            "what they write elsewhere is not in the books, and forget and rekey do not reach it",
        )
    ]


async def _digest(name: str, session: Session, table: str, target: Target) -> list[Finding]:
    """Warn where the settings ask for a digest, and the table has not its triggers."""
    write = target.write
    with explained():
        kept = await keeps_digest(session, table)
        why_not = await hindrance(session, table) if write.keeps_digest and not kept else ""
    if kept == write.keeps_digest:
        return []
    if why_not and write.digest is None:
        return [ok(f"{name} digest", f"{why_not}: no digest of its rows is kept for verify --deep")]
    if kept:
        why = "a digest of its rows is kept, and the settings do not ask for it"
    else:
        why = why_not or "no digest of its rows is kept yet"
        why += ": verify --deep does not compare them"
    remedy = "run `sqs2pg migrate` with these settings, as the owner"
    if not kept:
        remedy += " or a role that has TRIGGER on the table; or set digest = false"
    return [warn(f"{name} digest", why, remedy)]


async def _owner(name: str, session: Session, table: str) -> list[Finding]:
    try:
        warning = await check_owner(session, table)
    except FatalFault as fault:
        return [fail(f"{name} owner", fault.what, fault.hint)]
    remedy = "let one plain role own both, unless each role trusts the other"
    found = [warn(f"{name} owner", warning, remedy)] if warning else []
    try:
        await refuse_as_superuser(session, [table])
    except FatalFault as fault:
        found.append(warn(f"{name} login", fault.what, fault.hint))
    return found


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
        if field.first_source == settings.vault.subject
        and field.mask == "keep"
        and field.type == "text"
        and found[field.column].type not in TEXT_TYPES
    ]


_FROM_TEXT = ("attribute:", "sqs:")
"""Sources outside of the body, whose values are always text."""


def _numbers_as_text(name: str, target: Target, found: Mapping[str, Column]) -> list[Finding]:
    """Warn where a field of type text goes into a column of numbers and the like.

    It writes "7" and quarantines 7: a JSON number is another type than its field.
    """
    findings = []
    for field in target.fields:
        column = found[field.column].type
        fitting = [t.name for t in FIELD_TYPES.values() if column in t.catalog_names]
        if (
            field.mask == "keep"
            and field.type == "text"
            and fitting
            and FIELD_TYPES[fitting[0]].json_kind != "string"
            and not field.first_source.startswith(_FROM_TEXT)
        ):
            findings.append(
                warn(
                    f"{name} {field.column}",
                    f'field {field.name!r} is text, and its column {column}: JSON\'s "7" is '
                    "written, but 7 is quarantined as wrong_type",
                    f'set type = "{fitting[0]}" on the [[field]], unless the producer sends text',
                )
            )
    return findings
