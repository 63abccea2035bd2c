"""The audit: append-only, chained, durable; an anchor reveals tampering."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import Session
from sqs2pg.runners.connect import connect
from sqs2pg.settings import Settings

Connection = psycopg.Connection[Any]


@pytest.fixture
async def session(
    settings: Callable[..., Settings], migrated_database: str
) -> AsyncIterator[Session]:
    session = await connect(settings())
    yield session
    await session.close()


@pytest.fixture
def owner(database: str, session: Session) -> Iterator[Connection]:
    """A connection of the owner, who is a superuser here."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other_role(owner: Connection, database: str) -> Iterator[Callable[[], Connection]]:
    """Log in as a role that owns nothing and may only connect."""
    [(name,)] = owner.execute("SELECT 'r_' || substr(md5(random()::text), 1, 12)")
    owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'only-here'")
    opened: list[Connection] = []

    def log_in() -> Connection:
        conninfo = make_conninfo(database, user=name, password="only-here")
        opened.append(psycopg.connect(conninfo, autocommit=True))
        return opened[-1]

    yield log_in
    for connection in opened:
        connection.close()
    owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def act(session: Session, number: int, **more: str) -> audit.Anchor:
    return await audit.record(session, "unseal", subject=f"entry {number}", reason="test", **more)


def rows(owner: Connection) -> list[tuple[Any, ...]]:
    return owner.execute("SELECT * FROM sqs2pg.audit ORDER BY sequence").fetchall()


def digest(row: tuple[Any, ...]) -> bytes:
    """The hash as docs/reference/quarantine.md defines it, computed without the package."""
    sequence, at, role, name, subject, reason, ticket, previous, _ = row
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    covered = hashlib.sha256()
    for text in ("sqs2pg/1/audit", sequence, micros, role, name, subject, reason, ticket):
        encoded = str(text).encode()
        covered.update(len(encoded).to_bytes(4, "big") + encoded)
    covered.update(len(previous).to_bytes(4, "big") + previous)
    return covered.digest()


async def test_each_act_is_chained_to_the_one_before(session: Session, owner: Connection) -> None:
    assert await audit.head(session) == audit.Anchor(0, bytes(32))
    assert await audit.check_chain(session) == []
    before = datetime.now(UTC)
    first = await act(session, 1, ticket="OPS-7")
    second = await audit.record(session, "keys_init", subject="pseudonym v1", reason="für Ünïcode")
    found = rows(owner)
    assert [row[0] for row in found] == [1, 2]
    assert [row[2:7] for row in found] == [
        ("postgres", "unseal", "entry 1", "test", "OPS-7"),
        ("postgres", "keys_init", "pseudonym v1", "für Ünïcode", ""),
    ]
    assert before <= found[0][1] <= found[1][1] <= datetime.now(UTC)
    assert [row[7] for row in found] == [bytes(32), first.hash]
    assert [row[8] for row in found] == [first.hash, second.hash] == [digest(r) for r in found]
    assert await audit.head(session) == second


async def test_every_anchor_so_far_holds_while_acts_are_added(session: Session) -> None:
    anchors = [str(await act(session, number)) for number in range(7)]
    for anchor in (f"0:{'0' * 64}", *anchors):
        assert await audit.check_chain(session, anchor) == []


async def test_the_chain_is_read_in_pages(
    session: Session, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAGE", 2)
    anchors = [await act(session, number) for number in range(5)]
    assert await audit.check_chain(session, str(anchors[-1])) == []
    tamper(owner, "UPDATE sqs2pg.audit SET ticket = 'x' WHERE sequence = 4")
    assert await audit.check_chain(session) == ["audit: row 4 was changed after it was recorded"]


async def test_the_chain_is_checked_in_the_callers_snapshot(
    session: Session, owner: Connection
) -> None:
    anchor = await act(session, 1)
    await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await session.execute("SELECT 1")
    owner.execute("SELECT sqs2pg.record_act('unseal', 'later')")
    assert await audit.check_chain(session, str(anchor)) == []
    await session.rollback()
    assert len(rows(owner)) == 2


async def test_the_anchor_is_logged_after_the_act_and_only_then(
    session: Session, owner: Connection
) -> None:
    with capture_logs() as logs:
        anchor = await act(session, 1)
    assert logs == [
        {"event": "audited", "act": "unseal", "anchor": str(anchor), "log_level": "info"}
    ]
    owner.execute("DROP TABLE sqs2pg.audit_head")
    with capture_logs() as logs, pytest.raises(FatalFault, match="42P01"):
        await act(session, 2)
    assert logs == []


CHANGES = [
    "UPDATE sqs2pg.audit SET reason = 'another'",
    "UPDATE sqs2pg.audit SET sequence = sequence + 10",
    "DELETE FROM sqs2pg.audit WHERE sequence = 2",
    "TRUNCATE sqs2pg.audit",
    "SET session_replication_role = replica; DELETE FROM sqs2pg.audit",
    "SET session_replication_role = replica; TRUNCATE sqs2pg.audit",
    (
        "INSERT INTO sqs2pg.audit SELECT * FROM sqs2pg.audit ON CONFLICT (sequence)"
        " DO UPDATE SET reason = 'another'"
    ),
    "MERGE INTO sqs2pg.audit a USING (SELECT 1) ON a.sequence = 1 WHEN MATCHED THEN DELETE",
    (
        "CREATE TABLE parent (reason text NOT NULL); ALTER TABLE sqs2pg.audit INHERIT parent;"
        " UPDATE parent SET reason = 'another'"
    ),
    "DELETE FROM sqs2pg.audit_head",
    "TRUNCATE sqs2pg.audit_head",
]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_refused_even_to_the_owner(
    session: Session, owner: Connection, change: str
) -> None:
    anchors = [await act(session, number) for number in range(3)]
    before = rows(owner)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(change)
    assert rows(owner) == before
    assert await audit.check_chain(session, str(anchors[-1])) == []


async def test_a_role_without_grants_can_neither_read_nor_record(
    other_role: Callable[[], Connection], owner: Connection
) -> None:
    stranger = other_role()
    for grant in ("SELECT 1", f"GRANT USAGE ON SCHEMA sqs2pg TO {stranger.info.user}"):
        owner.execute(grant)
        for attempt in (
            "SELECT sqs2pg.record_act('unseal', 'entry 1')",
            "SELECT * FROM sqs2pg.audit",
            "INSERT INTO sqs2pg.audit SELECT * FROM sqs2pg.audit",
            "DELETE FROM sqs2pg.audit",
            "UPDATE sqs2pg.audit_head SET sequence = 9",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute(attempt)
    assert rows(owner) == []


async def test_the_login_is_recorded_whatever_role_is_set_and_no_search_path_matters(
    session: Session, other_role: Callable[[], Connection], owner: Connection
) -> None:
    stranger = other_role()
    name = stranger.info.user
    owner.execute(
        f"GRANT USAGE ON SCHEMA sqs2pg TO {name};"
        f"GRANT EXECUTE ON FUNCTION sqs2pg.record_act TO {name};"
        f"CREATE SCHEMA trap AUTHORIZATION {name}; GRANT pg_monitor TO {name}"
    )
    stranger.execute(
        "CREATE FUNCTION trap.sha256(bytea) RETURNS bytea LANGUAGE sql"
        " AS $$ SELECT decode(repeat('11', 32), 'hex') $$;"
        "CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
        " AS $$ SELECT timestamptz '2001-01-01' $$;"
        "CREATE TEMP TABLE audit_head (sequence bigint, hash bytea);"
        "SET search_path = trap, pg_temp, pg_catalog; SET ROLE pg_monitor"
    )
    # EXECUTE is checked for the role that is set, so that role has it, too.
    owner.execute(
        "GRANT USAGE ON SCHEMA sqs2pg TO pg_monitor;"
        "GRANT EXECUTE ON FUNCTION sqs2pg.record_act TO pg_monitor"
    )
    stranger.execute("SELECT sqs2pg.record_act('unseal', 'entry 1', 'why')")
    owner.execute("REVOKE ALL ON FUNCTION sqs2pg.record_act FROM pg_monitor")
    owner.execute("REVOKE ALL ON SCHEMA sqs2pg FROM pg_monitor")
    [row] = rows(owner)
    assert row[2] == name
    assert row[1].year > 2001
    assert row[8] == digest(row)
    assert await audit.check_chain(session) == []


async def test_acts_that_roll_back_leave_no_gap(session: Session, owner: Connection) -> None:
    await act(session, 1)
    await session.execute("BEGIN")
    await audit.append(session, "purge", subject="taken back")
    await session.rollback()
    last = await act(session, 2)
    assert last.sequence == 2
    assert [row[4] for row in rows(owner)] == ["entry 1", "entry 2"]
    assert await audit.check_chain(session, str(last)) == []


async def test_acts_of_many_at_once_make_one_chain(
    session: Session, settings: Callable[..., Settings], owner: Connection
) -> None:
    async def several(first: int) -> list[audit.Anchor]:
        own = await connect(settings())
        try:
            return [await act(own, first + number) for number in range(10)]
        finally:
            await own.close()

    done = await asyncio.gather(*(several(100 * n) for n in range(4)))
    anchors = [anchor for own in done for anchor in own]
    assert sorted(anchor.sequence for anchor in anchors) == list(range(1, 41))
    found = rows(owner)
    assert sorted(row[1] for row in found) == [row[1] for row in found]
    for anchor in anchors:
        assert await audit.check_chain(session, str(anchor)) == []


@pytest.mark.parametrize("level", ["off", "local"])
async def test_an_act_is_durable_whatever_the_roles_default(
    session: Session, settings: Callable[..., Settings], owner: Connection, level: str
) -> None:
    [(name,)] = owner.execute("SELECT quote_ident(current_database())")
    owner.execute(f"ALTER DATABASE {name} SET synchronous_commit = {level}")
    # A trigger in the act's transaction records the setting that it ran under.
    owner.execute(
        "CREATE TABLE seen (level text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit'));"
        " RETURN NULL; END $$; CREATE CONSTRAINT TRIGGER note AFTER INSERT ON sqs2pg.audit"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()"
    )
    own = await connect(settings())
    try:
        assert await own.execute("SHOW synchronous_commit") == [(level,)]
        await act(own, 1)
    finally:
        await own.close()
    assert owner.execute("SELECT level FROM seen").fetchall() == [("on",)]


def tamper(owner: Connection, *statements: str) -> None:
    """Change the audit as its owner can: with the triggers disabled."""
    for switch, wanted in (("DISABLE", statements), ("ENABLE ALWAYS", ())):
        for table in ("audit", "audit_head"):
            for trigger in ("append_only", "append_only_truncate"):
                owner.execute(f"ALTER TABLE sqs2pg.{table} {switch} TRIGGER {trigger}")
        for statement in wanted:
            assert owner.execute(statement).rowcount != 0, "the tampering itself must work"


def rehash(owner: Connection, first: int) -> None:
    """Recompute the chain's hashes from a row on, as a careful forger would."""
    previous = bytes(32)
    for old in rows(owner):
        row = old
        if row[0] >= first:
            row = (*old[:7], previous, None)
            owner.execute(
                "UPDATE sqs2pg.audit SET previous_hash = %s, hash = %s WHERE sequence = %s",
                [previous, digest(row), row[0]],
            )
            previous = digest(row)
        else:
            previous = row[8]
        owner.execute("UPDATE sqs2pg.audit_head SET sequence = %s, hash = %s", [row[0], previous])


EDIT = "UPDATE sqs2pg.audit SET reason = 'harmless' WHERE sequence = 3"
RENUMBER = "UPDATE sqs2pg.audit SET sequence = sequence - 1 WHERE sequence > 3"
EMPTY_HEAD = "UPDATE sqs2pg.audit_head SET sequence = 0, hash = decode(repeat('00', 32), 'hex')"
HEAD_BACK = """UPDATE sqs2pg.audit_head h SET (sequence, hash) =
    (SELECT a.sequence, a.hash FROM sqs2pg.audit a ORDER BY a.sequence DESC LIMIT 1)"""
SWAP = """UPDATE sqs2pg.audit a SET (role, act, subject, reason, ticket, at) =
    (SELECT role, act, subject, reason, ticket, at FROM sqs2pg.audit b
     WHERE b.sequence = 5 - a.sequence) WHERE a.sequence IN (2, 3)"""
TAMPERING = [
    # (statements, rehashed from, seen without an anchor)
    pytest.param([EDIT], None, True, id="edited"),
    pytest.param(["UPDATE sqs2pg.audit SET at = 'infinity' WHERE sequence = 3"], None, True,
                 id="time out of range"),
    pytest.param([EDIT], 3, False, id="edited and chained again"),
    pytest.param(["DELETE FROM sqs2pg.audit WHERE sequence = 3"], None, True, id="deleted"),
    pytest.param(["DELETE FROM sqs2pg.audit WHERE sequence = 3", RENUMBER], 3, False,
                 id="deleted, renumbered and chained again"),
    pytest.param(["DELETE FROM sqs2pg.audit WHERE sequence = 1"], None, True, id="first deleted"),
    pytest.param(["DELETE FROM sqs2pg.audit WHERE sequence = 5"], None, True, id="last deleted"),
    pytest.param(["DELETE FROM sqs2pg.audit WHERE sequence = 5", HEAD_BACK], None, False,
                 id="last deleted, head set back"),
    pytest.param(["TRUNCATE sqs2pg.audit"], None, True, id="truncated"),
    pytest.param(["TRUNCATE sqs2pg.audit", EMPTY_HEAD], None, False,
                 id="truncated, head set back"),
    pytest.param([SWAP], None, True, id="reordered"),
    pytest.param([SWAP], 2, False, id="reordered and chained again"),
    pytest.param(["DELETE FROM sqs2pg.audit_head"], None, True, id="head deleted"),
]  # fmt: skip


@pytest.mark.parametrize(("statements", "rehashed_from", "seen_without"), TAMPERING)
async def test_tampering_shows_against_an_anchor(
    session: Session,
    owner: Connection,
    statements: list[str],
    rehashed_from: int | None,
    seen_without: bool,
) -> None:
    anchors = [await act(session, number) for number in range(1, 6)]
    tamper(owner, *statements)
    if rehashed_from:
        owner.execute("ALTER TABLE sqs2pg.audit DISABLE TRIGGER append_only")
        rehash(owner, rehashed_from)
    assert await audit.check_chain(session, str(anchors[-1])) != []
    assert (await audit.check_chain(session) != []) is seen_without


@pytest.mark.parametrize(
    ("sequence", "difference"),
    [
        (3, "audit: row 4 does not follow the row before it"),
        (5, "audit: row 5 is not the one that the head names"),
    ],
)
async def test_a_row_rewritten_with_a_hash_that_fits_it_breaks_the_chain_behind_it(
    session: Session, owner: Connection, sequence: int, difference: str
) -> None:
    anchors = [await act(session, number) for number in range(1, 6)]
    tamper(owner, f"UPDATE sqs2pg.audit SET subject = 'entry 9' WHERE sequence = {sequence}")
    owner.execute("ALTER TABLE sqs2pg.audit DISABLE TRIGGER append_only")
    fitting = digest(rows(owner)[sequence - 1])
    owner.execute("UPDATE sqs2pg.audit SET hash = %s WHERE sequence = %s", [fitting, sequence])
    assert await audit.check_chain(session) == [difference]
    assert await audit.check_chain(session, str(anchors[1])) == [difference]


async def test_a_row_added_past_the_head_is_reported(session: Session, owner: Connection) -> None:
    anchor = await act(session, 1)
    owner.execute(
        "INSERT INTO sqs2pg.audit SELECT 2, at, role, act, 'forged', '', '', hash, hash"
        " FROM sqs2pg.audit"
    )
    assert await audit.check_chain(session, str(anchor)) == ["audit: 1 rows are outside the chain"]


async def test_the_anchor_s_row_is_reported_first_and_the_other_findings_are_bounded(
    session: Session, owner: Connection
) -> None:
    owner.execute("SELECT sqs2pg.record_act('unseal', n::text) FROM generate_series(1, 50) n")
    anchor = await audit.head(session)
    tamper(owner, "UPDATE sqs2pg.audit SET reason = 'x', hash = sha256('x')")
    found = await audit.check_chain(session, str(anchor))
    assert found[0] == "audit: row 50 is not the one the anchor names"
    assert len(found) == audit.DIFFERENCES_MAX + 1
    assert found[-1].endswith("more differences")


@pytest.mark.parametrize(
    "anchor", ["", "7", "7:", ":" + "a" * 64, "7:" + "a" * 63, "7:" + "g" * 64, "-1:" + "a" * 64]
)
def test_an_anchor_of_another_form_is_a_wrong_setting(anchor: str) -> None:
    with pytest.raises(SettingsError, match="SEQUENCE:HASH"):
        audit.Anchor.parse(anchor)


async def test_an_anchor_of_a_row_to_come_is_a_difference(session: Session) -> None:
    await act(session, 1)
    anchor = f"2:{'ab' * 32}"
    assert await audit.check_chain(session, anchor) == [
        "audit: row 2, which the anchor names, is missing"
    ]


@pytest.mark.parametrize(
    ("name", "subject", "reason", "ticket"),
    [
        ("Unseal!", "s", "r", "t"),
        ("a" * 33, "s", "r", "t"),
        ("unseal", "s" * 501, "r", "t"),
        ("unseal", "s", "r" * 501, "t"),
        ("unseal", "s", "r", "t" * 101),
    ],
)
async def test_the_server_bounds_what_an_act_may_say(
    session: Session, owner: Connection, name: str, subject: str, reason: str, ticket: str
) -> None:
    with pytest.raises(FatalFault, match="23514"):
        await audit.record(session, name, subject=subject, reason=reason, ticket=ticket)
    assert rows(owner) == []
    longest = await audit.record(
        session, "a" * 32, subject="ß" * 500, reason="ß" * 500, ticket="ß" * 100
    )
    assert await audit.check_chain(session, str(longest)) == []


def test_an_operators_text_is_one_bounded_line_and_never_quoted() -> None:
    assert audit.operator_text("the reason", "  asked by the customer ", 500) == (
        "asked by the customer"
    )
    for bad in ("canary" * 100, "canary\nline", "canary\x1b[2J", "canary\udc80"):
        with pytest.raises(SettingsError) as caught:
            audit.operator_text("the reason", bad, 500)
        assert "canary" not in caught.value.what + caught.value.hint
