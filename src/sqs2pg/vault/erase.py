"""Erase people: destroy their keys, remove their values and quarantined bodies. Then clear the
tokens and put random ids into their rows, or remove the rows.

First, in one short transaction that no batch overlaps: keys, values, bodies, the epoch that empties
every cache, and the audit. From then on nothing of theirs can be opened, and a later message about
them starts a new generation. Then the rows, one part of a table at a time. An erasure that was
killed stays open, and goes on when it is started again. So does one whose rows keep coming.

Promises: safe to repeat and to kill at any instant; the books still balance; a person of whom
nothing was there is reported as not found. Must never do: write a person's id anywhere, or pass it,
its reference or its random id as a parameter, which the server may log; its reference is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from sqs2pg.errors import FatalFault
from sqs2pg.postgres import audit
from sqs2pg.postgres.catalog import resolve_table
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.postgres.table_owners import refuse_as_superuser
from sqs2pg.vault.crypto import reference_of
from sqs2pg.vault.named_people import (
    PEOPLE,
    SUBJECTS,
    Person,
    people_table,
    require_temporary,
)
from sqs2pg.vault.person_rows import NO_MARKS, SEARCHED, RowEraser, count_rows
from sqs2pg.vault.target_rows import (
    REHEARSAL_HINTS,
    PersonColumns,
    random_id,
    spellings,
    tables_alike,
    target_tables,
    with_column_types,
)

PEOPLE_AT_ONCE = 200
"""People whose keys one transaction destroys. Ingest waits for that transaction."""

_DATABASE = """SELECT format('database %s on PostgreSQL %s', current_database(),
       current_setting('server_version'))"""
_ALONE = "SELECT pii.lock_alone()"
_OPEN = f"""INSERT INTO pii.erasure (subject, pseudonym)
SELECT subject, gen_random_uuid() FROM unnest({SUBJECTS}) subject
ON CONFLICT (subject) WHERE finished_at IS NULL DO NOTHING"""
# Each of the next three notes in `pii.erasure` what was there of each person.
_NOTED = """counted AS (SELECT subject, count(*) AS n FROM gone GROUP BY subject),
noted AS (
    UPDATE pii.erasure e SET {column} = e.{column} + c.n FROM counted c
    WHERE e.subject = c.subject AND e.finished_at IS NULL)
SELECT coalesce(sum(n), 0)::bigint FROM counted"""
_DESTROY = f"""WITH gone AS (
    UPDATE pii.subject_key SET wrapped_key = NULL, key_version = NULL, sealed_subject = NULL,
           destroyed_at = now()
    WHERE subject = ANY ({SUBJECTS}) AND wrapped_key IS NOT NULL RETURNING subject),
{_NOTED.format(column="keys_destroyed")}"""
_REMOVE_VALUES = f"""WITH stored AS (
    DELETE FROM pii.value WHERE subject = ANY ({SUBJECTS}) RETURNING subject),
unheld AS (
    DELETE FROM pii.unheld WHERE subject = ANY ({SUBJECTS}) RETURNING subject),
gone AS (SELECT subject FROM stored UNION ALL SELECT subject FROM unheld),
{_NOTED.format(column="values_removed")}"""
# Like a purge (postgres/quarantine.py), in every pipeline whose quarantine has bodies of theirs.
_REMOVE_BODIES = f"""WITH gone AS (
    DELETE FROM sqs2pg.quarantine q WHERE q.subject = ANY ({SUBJECTS})
    RETURNING q.key, q.message_id, q.pipeline, q.replayed_at, q.subject),
booked AS (
    INSERT INTO sqs2pg.tally (pipeline, kind, purged)
    SELECT g.pipeline, 'forget', count(*) FILTER (WHERE g.replayed_at IS NULL AND EXISTS (
        SELECT FROM sqs2pg.delivery d WHERE d.key = g.key AND d.message_id = g.message_id
        AND d.outcome = 'quarantined'))
    FROM gone g GROUP BY g.pipeline),
{_NOTED.format(column="bodies_removed")}"""
_NEXT_EPOCH = "UPDATE pii.state SET epoch = epoch + 1"
_RECORD = f"""SELECT act.sequence, act.hash
FROM (SELECT DISTINCT subject FROM {PEOPLE} ORDER BY subject) s,
LATERAL sqs2pg.record_act('forget', 'subject ' || replace(s.subject::text, '-', ''), %s, %s) act
ORDER BY act.sequence"""
_PSEUDONYMS = f"""SELECT subject, pseudonym FROM pii.erasure
WHERE subject = ANY ({SUBJECTS}) AND finished_at IS NULL"""
_FINISH = f"""WITH ended AS (
    UPDATE pii.erasure SET finished_at = now(), pseudonym = NULL
    WHERE subject = ANY ({SUBJECTS}) AND finished_at IS NULL
    RETURNING subject, keys_destroyed AS keys, values_removed AS values, bodies_removed AS bodies,
              rows_changed AS changed, rows_deleted AS deleted,
              keys_destroyed + values_removed + bodies_removed + rows_changed + rows_deleted > 0
              AS found)
SELECT e.subject, e.found, e.keys, e.values, e.bodies, e.changed + e.deleted, act.sequence, act.hash
FROM (SELECT * FROM ended ORDER BY subject) e,
LATERAL sqs2pg.record_act(
    CASE WHEN e.found THEN 'forget_done' ELSE 'forget_not_found' END,
    'subject ' || replace(e.subject::text, '-', '')
    || CASE WHEN e.found THEN ', ' || concat_ws(', ',
           CASE WHEN e.changed > 0 OR e.deleted = 0 THEN e.changed || ' rows changed' END,
           CASE WHEN e.deleted > 0 THEN e.deleted || ' rows deleted' END) ELSE '' END,
    %s, %s) act
ORDER BY act.sequence"""
_CAME_BACK = f"""SELECT count(*) FROM pii.subject_key
WHERE subject = ANY ({SUBJECTS}) AND wrapped_key IS NOT NULL"""
_UNREADABLE = """SELECT count(*), max(received_at) FROM sqs2pg.quarantine WHERE subject IS NULL"""
# What an erasure would find, without the rows.
_SEARCH = f"""SELECT s.subject,
       (SELECT count(*) FROM pii.subject_key k
        WHERE k.subject = s.subject AND k.wrapped_key IS NOT NULL),
       (SELECT count(*) FROM pii.value v WHERE v.subject = s.subject),
       (SELECT count(*) FROM sqs2pg.quarantine q WHERE q.subject = s.subject)
FROM unnest({SUBJECTS}) s (subject)"""


class Erased(msgspec.Struct):
    """What a run has done so far, and what it leaves. A dry run: what it would do."""

    subjects: int = 0
    """Different people who were asked for."""
    found: int = 0
    """Those of whom anything was there. Of one that is erased again nothing is, unless an earlier
    run was cut off."""
    not_found: int = 0
    keys_destroyed: int = 0
    values_removed: int = 0
    rows_changed: int = 0
    rows_deleted: int = 0
    quarantine_removed: int = 0
    rows_left: int = 0
    """Rows about them that kept being added: their erasures are open until another run."""
    came_back: int = 0
    """People about whom a message came while they were being erased: they have a key again."""
    quarantine_unreadable: int = 0
    """Bodies in which no person can be read, so that they may be about anybody."""
    quarantine_unreadable_newest: datetime | None = None
    tables: dict[str, int] = {}
    """Rows cleared or deleted by table."""
    tables_deleted: list[str] = []
    """Those of them whose rows were deleted."""
    tables_forgotten: list[str] = []
    """State tables with versions whose rows were deleted, and that nothing remembers."""
    tables_skipped: list[str] = []
    """Partitions on other servers."""
    tables_alike: list[str] = []
    """Tables that have a target's columns and are no part of it, such as detached partitions."""
    totals: dict[str, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(("keys", "values", "bodies", "rows"), 0)
    )
    """What the finished erasures have removed in all, with earlier runs that were cut off."""
    first_act: int = 0
    """Its sequence in the audit."""
    anchor: str = ""
    """Of the last act that was recorded; empty in a dry run."""


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
        self._targets = targets
        self._reference = reference
        self._rows = RowEraser(session, pipeline, delete_rows)
        self.report = Erased()
        self.database = ""
        """The database's name and the server's version, once it runs."""
        self.not_found: set[str] = set()
        """The ids of whom nothing was there. In memory only."""

    @property
    def pages(self) -> int:
        """Pages of the targets scanned so far."""
        return self._rows.pages

    async def run(self, ids: Sequence[str], reason: str, ticket: str = "") -> Erased:
        """Erase the people with these ids, each once; return what was done and what remains.

        May be repeated, and must be after a kill, until it ends. Raises SettingsError for a reason
        that cannot be recorded or an id that no person can have, FatalFault where the database
        refuses.
        """
        reason, ticket = audit.stated_reason(reason, ticket, hint="say why the person is erased")
        subjects = self._subjects(ids)
        with explained():
            await self._prepare()
            await self._rehearse()
            for part in _groups(subjects):
                await self._destroy(part, reason, ticket)
                left = await self._erase_rows(part)
                await self._finish(part, left, reason, ticket)
            await self._report_leftovers()
        return self.report

    async def search(self, ids: Sequence[str]) -> Erased:
        """Return what `run` would find and do, and change nothing. Raises as `run`."""
        subjects = self._subjects(ids)
        with explained():
            await self._prepare()
            for part in _groups(subjects):
                found = await self._search(part)
                self._count_people(part, found)
            await self._report_leftovers()
        done = self.report
        rows = done.rows_changed + done.rows_deleted
        counts = done.keys_destroyed, done.values_removed, done.quarantine_removed, rows
        done.totals = dict(zip(done.totals, counts, strict=True))
        return self.report

    def _subjects(self, ids: Sequence[str]) -> dict[str, str]:
        hint = "give ids as the messages have them: nobody was erased"
        return {id_: reference_of(self._reference, id_, hint=hint) for id_ in ids}

    async def _prepare(self) -> None:
        await require_temporary(self._session)
        [(self.database,)] = await self._session.execute(_DATABASE)
        await refuse_as_superuser(self._session, [target.table for target in self._targets])
        self._targets = [await with_column_types(self._session, target) for target in self._targets]

    async def _rehearse(self) -> None:
        """Go through the statements without a person, and roll back.

        So nobody's key is destroyed where their rows cannot be changed. Raises FatalFault.
        """
        where = "the vault and the quarantine"
        try:
            with explained():
                async with people_table(self._session, ()) as transaction:
                    for statement in (_OPEN, _DESTROY, _REMOVE_VALUES, _REMOVE_BODIES):
                        await self._session.execute(statement)
                    await self._session.execute(_RECORD, ["", ""])
                    await transaction.rollback()
                for target in self._targets:
                    where = f"rows of {target.table}"
                    await self._rows.rehearse(target)
        except FatalFault as fault:
            raise FatalFault(
                f"this login cannot erase people from {where}: {fault.what}; nobody was erased",
                code=fault.code,
                hint=REHEARSAL_HINTS.get(fault.code) or fault.hint,
            ) from None

    async def _destroy(self, subjects: dict[str, str], reason: str, ticket: str) -> None:
        """Make everything that is sealed of these people unreadable, in one transaction."""
        execute = self._session.execute
        async with people_table(self._session, _people(subjects), lock=_ALONE):
            await execute(_OPEN)
            [(keys,)] = await execute(_DESTROY)
            [(values,)] = await execute(_REMOVE_VALUES)
            [(bodies,)] = await execute(_REMOVE_BODIES)
            if keys or values:
                await execute(_NEXT_EPOCH)
            rows = await execute(_RECORD, [reason, ticket])
        self.report.first_act = self.report.first_act or rows[0][0]
        self._announce("forget", *rows[-1])
        self.report.keys_destroyed += keys
        self.report.values_removed += values
        self.report.quarantine_removed += bodies

    async def _erase_rows(self, subjects: dict[str, str]) -> dict[str, int]:
        """Clear or delete the people's rows; return how many are left by reference."""
        async with people_table(self._session, _people(subjects)):
            found = await self._session.execute(_PSEUDONYMS)
        pseudonyms = {subject.hex: pseudonym for subject, pseudonym in found}
        left: dict[str, int] = {}
        for target in self._targets:
            spelled = spellings(target, subjects)
            people = [
                Person(subjects[id_], spelling, random_id(target, pseudonyms[subjects[id_]]))
                for id_, spelling in spelled
            ]
            deletes = self._rows.deletes(target)
            mark = target.keys.person if deletes and target.keys else None
            marks = {spelling: mark(id_) for id_, spelling in spelled} if mark else NO_MARKS
            note = self._count_deleted if deletes else self._count_changed
            remaining = await self._rows.erase(target, people, note, marks)
            for subject, count in remaining.items():
                left[subject] = left.get(subject, 0) + count
        return left

    def _count_changed(self, rows: int) -> None:
        self.report.rows_changed += rows

    def _count_deleted(self, rows: int) -> None:
        self.report.rows_deleted += rows

    async def _finish(
        self, subjects: dict[str, str], left: dict[str, int], reason: str, ticket: str
    ) -> None:
        """Close the erasures: from now on nothing links the random ids to the people.

        Those with rows left stay open.
        """
        done = {id_: subject for id_, subject in subjects.items() if subject not in left}
        rows = []
        if done:
            async with people_table(self._session, _people(done)):
                rows = await self._session.execute(_FINISH, [reason, ticket])
        async with people_table(self._session, _people(subjects)):
            [(came_back,)] = await self._session.execute(_CAME_BACK)
        if rows:
            act = "forget_done" if rows[-1][1] else "forget_not_found"
            self._announce(act, *rows[-1][-2:])
        for _, _, *counts, _, _ in rows:
            for name, count in zip(("keys", "values", "bodies", "rows"), counts, strict=True):
                self.report.totals[name] += count
        self._count_people(subjects, {*left, *(row[0].hex for row in rows if row[1])})
        self.report.rows_left += sum(left.values())
        self.report.came_back += came_back

    def _count_people(self, subjects: dict[str, str], found: set[str]) -> None:
        people = set(subjects.values())
        self.report.subjects += len(people)
        self.report.found += len(people & found)
        self.report.not_found += len(people - found)
        self.not_found |= {id_ for id_, subject in subjects.items() if subject not in found}

    def _announce(self, act: str, sequence: int, digest: bytes) -> None:
        anchor = audit.Anchor(sequence, digest)
        audit.announce(act, anchor)
        self.report.anchor = str(anchor)
        self.report.first_act = self.report.first_act or sequence

    async def _search(self, subjects: dict[str, str]) -> set[str]:
        """Count what there is of the people; return the references of those who have anything."""
        report, found = self.report, set[str]()
        async with people_table(self._session, _people(subjects)):
            rows = await self._session.execute(_SEARCH)
        for subject, keys, values, bodies in rows:
            report.keys_destroyed += keys
            report.values_removed += values
            report.quarantine_removed += bodies
            if keys or values or bodies:
                found.add(subject.hex)
        for target in self._targets:
            people = [Person(subjects[id_], text) for id_, text in spellings(target, subjects)]
            tables = await target_tables(self._session, target.table, target.column, kinds=SEARCHED)
            self._rows.skipped.update(tables.foreign)
            self._rows.pages += sum(leaf.pages for leaf in tables.leaves)
            counts = await count_rows(self._session, target, tables, people)
            count = sum(counts.values())
            if self._rows.deletes(target):
                self._count_deleted(count)
                self._rows.deleted_from.add(target.table)
            else:
                self._count_changed(count)
            self._rows.changed[target.table] = self._rows.changed.get(target.table, 0) + count
            found |= counts.keys()
        return found

    async def _report_leftovers(self) -> None:
        report = self.report
        [(count, newest)] = await self._session.execute(_UNREADABLE)
        report.quarantine_unreadable = count
        report.quarantine_unreadable_newest = newest
        names = {
            target.table: await resolve_table(self._session, target.table) or target.table
            for target in self._targets
        }
        for table, rows in self._rows.changed.items():
            report.tables[names[table]] = report.tables.get(names[table], 0) + rows
        report.tables_deleted = sorted({names[table] for table in self._rows.deleted_from})
        report.tables_forgotten = sorted({names[table] for table in self._rows.forgotten})
        report.tables_skipped = sorted(self._rows.skipped)
        alike = {
            table
            for target in self._targets
            for table in await tables_alike(self._session, target.table)
        }
        report.tables_alike = sorted(alike.difference(names.values()))


def _groups(subjects: dict[str, str]) -> Iterable[dict[str, str]]:
    """Yield the ids and references in groups; all ids of one person are in one group."""
    people: dict[str, list[str]] = {}
    for id_, subject in subjects.items():
        people.setdefault(subject, []).append(id_)
    references = list(people)
    for start in range(0, len(references), PEOPLE_AT_ONCE):
        some = references[start : start + PEOPLE_AT_ONCE]
        yield {id_: subject for subject in some for id_ in people[subject]}


def _people(subjects: dict[str, str]) -> list[Person]:
    return [Person(subject) for subject in sorted(set(subjects.values()))]
