"""Erase people: destroy their keys, remove their values and quarantined bodies. Then clear the
tokens and put random ids into their rows, or remove the rows.

First, in one short transaction that no batch overlaps: keys, values, bodies, the epoch that empties
every cache, and the audit. From then on nothing of theirs can be opened, and a later message about
them starts a new generation. Then the rows, one part of a table at a time. An erasure that was
killed stays open, and goes on when it is started again.

Promises: safe to repeat and to kill at any instant; the books still balance. Must never do: write
a person's id anywhere; its reference is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from sqs2pg.postgres import audit
from sqs2pg.postgres.catalog import resolve_table
from sqs2pg.postgres.connection import DURABLE, READ_COMMITTED, Session
from sqs2pg.postgres.identifiers import quote_identifier
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.vault.crypto import reference_of
from sqs2pg.vault.target_rows import (
    Leaf,
    PersonColumns,
    leaves,
    random_id,
    spellings,
    with_column_types,
)

PEOPLE_AT_ONCE = 200
"""People whose keys one transaction destroys. Ingest waits for that transaction."""
PASSES_MAX = 3
"""Passes over a table: until one finds nothing, unless messages about the people keep coming."""

_SETTINGS = f"SELECT set_config('lock_timeout', '60s', true), {DURABLE}"
_ALONE = "SELECT pii.lock_alone()"
_OPEN = """INSERT INTO pii.erasure (subject, pseudonym)
SELECT subject, gen_random_uuid() FROM unnest(%s::uuid[]) subject
ON CONFLICT (subject) WHERE finished_at IS NULL DO NOTHING"""
_DESTROY = """WITH destroyed AS (
    UPDATE pii.subject_key SET wrapped_key = NULL, key_version = NULL, sealed_subject = NULL,
           destroyed_at = now()
    WHERE subject = ANY (%s::uuid[]) AND wrapped_key IS NOT NULL RETURNING 1)
SELECT count(*) FROM destroyed"""
_REMOVE_VALUES = """WITH removed AS (
    DELETE FROM pii.value WHERE subject = ANY (%s::uuid[]) RETURNING 1)
SELECT count(*) FROM removed"""
# Like a purge (postgres/quarantine.py), in every pipeline whose quarantine has bodies of theirs.
_REMOVE_BODIES = """WITH gone AS (
    DELETE FROM sqs2pg.quarantine q WHERE q.subject = ANY (%s::uuid[])
    RETURNING q.key, q.message_id, q.pipeline, q.replayed_at),
counted AS (
    INSERT INTO sqs2pg.tally (pipeline, kind, purged)
    SELECT g.pipeline, 'forget', count(*) FILTER (WHERE g.replayed_at IS NULL AND EXISTS (
        SELECT FROM sqs2pg.delivery d WHERE d.key = g.key AND d.message_id = g.message_id
        AND d.outcome = 'quarantined'))
    FROM gone g GROUP BY g.pipeline)
SELECT count(*) FROM gone"""
_NEXT_EPOCH = "UPDATE pii.state SET epoch = epoch + 1"
_RECORD = """SELECT act.sequence, act.hash FROM unnest(%s::text[]) WITH ORDINALITY s (subject, i),
LATERAL sqs2pg.record_act(%s, s.subject, %s, %s) act ORDER BY s.i"""
_PSEUDONYMS = """SELECT subject, pseudonym FROM pii.erasure
WHERE subject = ANY (%s::uuid[]) AND finished_at IS NULL"""
# `m`: what the column has now, the subject that it means, and what replaces it.
_CHANGE = """WITH m AS MATERIALIZED (
    SELECT * FROM unnest(%s::text[], %s::uuid[], %s::text[]) m (spelling, subject, name)),
changed AS ({change} RETURNING m.subject),
counted AS (SELECT subject, count(*) AS n FROM changed GROUP BY subject),
noted AS (
    UPDATE pii.erasure e SET rows_changed = e.rows_changed + c.n FROM counted c
    WHERE e.subject = c.subject AND e.finished_at IS NULL)
SELECT coalesce(sum(n), 0)::bigint FROM counted"""
_FORGET_ROWS = "UPDATE {leaf} t SET {sets} FROM m WHERE t.{column} = m.spelling::{type}{range}"
_DELETE_ROWS = "DELETE FROM {leaf} t USING m WHERE t.{column} = m.spelling::{type}{range}"
_TALLY = """INSERT INTO sqs2pg.tally (pipeline, kind, target_rows, target)
VALUES (%s, 'forget', %s, %s)"""
_FINISH = """UPDATE pii.erasure SET finished_at = now(), pseudonym = NULL
WHERE subject = ANY (%s::uuid[]) AND finished_at IS NULL RETURNING subject, rows_changed"""
_UNREADABLE = """SELECT count(*), max(received_at) FROM sqs2pg.quarantine WHERE subject IS NULL"""


class Erased(msgspec.Struct):
    """What a run has done so far, and what it leaves."""

    subjects: int = 0
    keys_destroyed: int = 0
    values_removed: int = 0
    rows_changed: int = 0
    rows_deleted: int = 0
    quarantine_removed: int = 0
    quarantine_unreadable: int = 0
    """Bodies in which no person can be read, so that they may be about anybody."""
    quarantine_unreadable_newest: datetime | None = None


class Eraser:
    """Erases people through one session."""

    def __init__(
        self,
        session: Session,
        pipeline: int,
        targets: Sequence[PersonColumns],
        reference: Callable[[str], str],
        *,
        delete_rows: bool = False,
    ) -> None:
        self._session = session
        self._pipeline = pipeline
        self._targets = targets
        self._reference = reference
        self._delete_rows = delete_rows
        self.report = Erased()
        self.pages = 0
        """Pages of the targets scanned so far."""

    async def run(self, ids: Sequence[str], reason: str, ticket: str = "") -> Erased:
        """Erase the people with these ids, each once; return what was done and what remains.

        May be repeated, and must be after a kill, until it ends. Raises SettingsError for a reason
        that cannot be recorded or an id that no person can have, FatalFault where the database
        refuses.
        """
        reason, ticket = audit.stated_reason(reason, ticket, hint="say why the person is erased")
        hint = "give ids as the messages have them: nobody was erased"
        subjects = {id_: reference_of(self._reference, id_, hint=hint) for id_ in ids}
        with explained():
            self._targets = [
                await with_column_types(self._session, target) for target in self._targets
            ]
            people = list(subjects.items())
            for start in range(0, len(people), PEOPLE_AT_ONCE):
                part = dict(people[start : start + PEOPLE_AT_ONCE])
                await self._destroy(sorted(set(part.values())), reason, ticket)
                await self._change_rows(part)
                await self._finish(sorted(set(part.values())), reason, ticket)
            await self._report_leftovers()
        return self.report

    async def _destroy(self, subjects: list[str], reason: str, ticket: str) -> None:
        """Make everything that is sealed of these people unreadable, in one transaction."""
        execute = self._session.execute
        acts = [f"subject {subject}" for subject in subjects]
        async with self._session.transaction(_SETTINGS, mode=READ_COMMITTED):
            await execute(_ALONE)
            await execute(_OPEN, [subjects])
            [(keys,)] = await execute(_DESTROY, [subjects])
            [(values,)] = await execute(_REMOVE_VALUES, [subjects])
            [(bodies,)] = await execute(_REMOVE_BODIES, [subjects])
            await execute(_NEXT_EPOCH)
            anchor = await self._record("forget", acts, reason, ticket)
        audit.announce("forget", anchor)
        self.report.subjects += len(subjects)
        self.report.keys_destroyed += keys
        self.report.values_removed += values
        self.report.quarantine_removed += bodies

    async def _change_rows(self, subjects: dict[str, str]) -> None:
        found = await self._session.execute(_PSEUDONYMS, [sorted(set(subjects.values()))])
        pseudonyms = {subject.hex: pseudonym for subject, pseudonym in found}
        for target in self._targets:
            pairs = [
                (spelling, subjects[id_], random_id(target, pseudonyms[subjects[id_]]))
                for id_, spelling in spellings(target, subjects)
            ]
            columns = [list(column) for column in zip(*pairs, strict=True)]
            for _ in range(PASSES_MAX if pairs else 0):
                if not await self._change_table(target, columns):
                    break

    async def _change_table(self, target: PersonColumns, columns: list[list[Any]]) -> int:
        """Pass over a target once; return how many rows were changed."""
        changed = 0
        for leaf in await leaves(self._session, target.table, target.column):
            for part in leaf.ranges(indexed=leaf.indexed):
                changed += await self._change_part(target, leaf, part, columns)
            self.pages += leaf.pages
        return changed

    async def _change_part(
        self, target: PersonColumns, leaf: Leaf, part: str, columns: list[list[Any]]
    ) -> int:
        column = quote_identifier(target.column)
        cleared = {
            quote_identifier(name): target.fillers.get(name, "NULL") for name in target.masked
        }
        sets = {column: f"m.name::{target.type}", **cleared}
        template = _DELETE_ROWS if self._delete_rows else _FORGET_ROWS
        change = template.format(
            leaf=leaf.table,
            sets=", ".join(f"{name} = {value}" for name, value in sets.items()),
            column=column,
            type=target.type,
            range=part,
        )
        async with self._session.transaction(_SETTINGS, mode=READ_COMMITTED):
            [(changed,)] = await self._session.execute(_CHANGE.format(change=change), columns)
            if changed and self._delete_rows:
                name = await resolve_table(self._session, target.table) if target.named else None
                await self._session.execute(_TALLY, [self._pipeline, -changed, name])
        if self._delete_rows:
            self.report.rows_deleted += changed
        else:
            self.report.rows_changed += changed
        return int(changed)

    async def _finish(self, subjects: list[str], reason: str, ticket: str) -> None:
        """Close the erasures: from now on nothing links the random ids to the people."""
        what = "deleted" if self._delete_rows else "changed"
        async with self._session.transaction(_SETTINGS, mode=READ_COMMITTED):
            rows = await self._session.execute(_FINISH, [subjects])
            acts = [f"subject {UUID(str(s)).hex}, {n} rows {what}" for s, n in sorted(rows)]
            anchor = await self._record("forget_done", acts, reason, ticket) if acts else None
        if anchor:
            audit.announce("forget_done", anchor)

    async def _record(
        self, act: str, subjects: list[str], reason: str, ticket: str
    ) -> audit.Anchor:
        """Record an act for each subject; return the last one's anchor."""
        rows = await self._session.execute(_RECORD, [subjects, act, reason, ticket])
        return audit.Anchor(*rows[-1])

    async def _report_leftovers(self) -> None:
        [(count, newest)] = await self._session.execute(_UNREADABLE)
        self.report.quarantine_unreadable = count
        self.report.quarantine_unreadable_newest = newest
