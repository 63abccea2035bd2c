"""Quarantine on a real server: what unseal, replay and purge change, and in what order."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from sqs2pg.cli.quarantine import replay_selected
from sqs2pg.errors import FatalFault, KeyFault, PermanentFault, SettingsError, TransientFault
from sqs2pg.keys import provider_file
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.ledger_key import DAY_MS
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline.replay import Replayed
from sqs2pg.postgres import audit, quarantine, reject_search, replay_ledger
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.dead_letter_copy import FaultyMessage, sealer
from sqs2pg.postgres.quarantine import Purged, Selection
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.assembly import assemble_replay
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, assert_books_balance, keep_ledger_days, opened, rows
from tests.integration.vault_support import keys_of
from tests.logins import login
from tests.waiting import BLOCKED, until

MakeSettings = Callable[..., Settings]
ALL = Selection()


_instants = itertools.count(time.time_ns() // 1_000_000)


def message(body: str, sent_ms: int | None = None) -> Message:
    """A message; each is sent after the one before, so their entries are numbered in order."""
    sent = SystemAttributes(sent_ms or next(_instants))
    return Message(str(uuid.uuid4()), "-", body, sent)


def strange(number: int, **changes: Any) -> str:
    """A login with an unknown field: quarantined or accepted, as the setting says."""
    return login(number, extra=True, **changes)


@pytest.fixture
def set_aside(pipeline: Assemble) -> Callable[..., Any]:
    """Quarantine messages through the pipeline itself."""

    async def put(
        messages: Sequence[Message | str], fine: Sequence[str] = (), **overrides: Any
    ) -> list[Message]:
        bad = [one if isinstance(one, Message) else message(one) for one in messages]
        async with pipeline(unknown_fields="quarantine", **overrides) as ready:
            outcomes = await ready.processors[0].process([*bad, *map(message, fine)])
        assert outcomes == [Outcome.QUARANTINED] * len(bad) + [Outcome.WRITTEN] * len(fine)
        return bad

    return put


def ledger(database: str) -> dict[str, int]:
    return dict(rows(database, "SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1"))


def tally(database: str, kind: str) -> list[tuple[Any, ...]]:
    return rows(
        database,
        "SELECT written, quarantined, duplicate, target_rows, purged FROM sqs2pg.tally"
        f" WHERE kind = '{kind}' ORDER BY id",
    )


USERS = "SELECT user_id FROM user_logins ORDER BY user_id"
OPEN = (
    "SELECT id, reason, detail, attempts FROM sqs2pg.quarantine"
    " WHERE replayed_at IS NULL ORDER BY id"
)
ACTS = "SELECT act, subject, reason, ticket FROM sqs2pg.audit ORDER BY sequence"


def two_days_apart() -> tuple[Message, Message]:
    newer = message(strange(2))
    return message(strange(1), newer.attributes.sent_timestamp - 2 * DAY_MS), newer


def drop_days_before_the_newest(database: str) -> None:
    [(age,)] = rows(
        database,
        "SELECT (now() AT TIME ZONE 'UTC')::date - max(sent_at AT TIME ZONE 'UTC')::date"
        " FROM sqs2pg.quarantine",
    )
    keep_ledger_days(database, age)
    dropped = 0
    while rows(database, "SELECT sqs2pg.drop_day()") == [(True,)]:
        dropped += 1
    assert dropped


# Listing


async def test_every_filter_narrows_the_list_and_the_counts(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    old, odd, _ = await set_aside(["not json", strange(1), strange(2)])
    rows(
        database,
        "UPDATE sqs2pg.quarantine SET received_at = '2024-05-01 12:00Z'"
        f" WHERE message_id = '{old.message_id}' RETURNING 1",
    )
    rows(
        database,
        "UPDATE sqs2pg.quarantine SET replayed_at = now()"
        f" WHERE message_id = '{odd.message_id}' RETURNING 1",
    )
    every = {"not_json": 1, "unknown_field": 2}
    cases = [
        (ALL, every),
        (Selection(open_only=True), {"not_json": 1, "unknown_field": 1}),
        (Selection(reason="unknown_field"), {"unknown_field": 2}),
        (Selection(reason="other"), {}),
        (Selection(message_id=odd.message_id), {"unknown_field": 1}),
        (Selection(since=datetime(2024, 5, 1, 12, tzinfo=UTC)), every),
        (Selection(since=datetime(2024, 5, 1, 12, 0, 1, tzinfo=UTC)), {"unknown_field": 2}),
        (Selection(older_than_days=1), {"not_json": 1}),
        (Selection(reason="unknown_field", open_only=True), {"unknown_field": 1}),
        (Selection(ids=(1, 3)), None),
    ]
    async with opened(settings()) as session:
        for selection, expected in cases:
            by_reason = await quarantine.counts(session, 1, selection)
            found = await quarantine.entries(session, 1, selection)
            extent = await quarantine.measure(session, 1, selection)
            assert len(found) == extent.entries == sum(by_reason.values())
            assert extent.open == sum(entry.replayed_at is None for entry in found)
            assert expected is None or by_reason == expected
            ids = [entry.id for entry in found]
            assert ids == sorted(ids, reverse=True)
            assert extent.last_id == max(ids, default=0)
        assert [e.id for e in await quarantine.entries(session, 1, ALL, limit=2)] == [3, 2]
        assert await quarantine.entries(session, 2, ALL) == [], "another pipeline's are not shown"
        with pytest.raises(SettingsError, match="no entry 4, 9"):
            await quarantine.measure(session, 1, Selection(ids=(4, 1, 9)))


# Unseal


BODIES = ["", "not json \x00 \x1b[2J", '{"é": "😀"}', "lone \ud800 surrogate", "x" * 2**20]


async def test_a_body_opens_as_it_was_received(set_aside: Any, settings: MakeSettings) -> None:
    await set_aside(BODIES)
    numbers = {}
    async with opened(settings()) as session:
        for entry in await quarantine.entries(session, 1, ALL):
            numbers[(await quarantine.entry(session, 1, entry.id)).body_bytes] = entry.id
        for body in BODIES:
            number = numbers[len(body.encode("utf-8", "surrogatepass")) + 41]
            keyring = keys_of(settings())
            opened_body = await quarantine.unseal(
                session, 1, number, keyring, reason="test", ticket=""
            )
            assert opened_body == body


class Watched(Session):
    """A session that notes, over another connection, what is committed when a body is requested."""

    database: str
    seen: list[list[tuple[Any, ...]]]

    async def execute(self, statement: Any, parameters: Any = None) -> list[tuple[Any, ...]]:
        if "sealed_under, body" in str(statement):
            self.seen.append(rows(self.database, ACTS))
        return await super().execute(statement, parameters)


@asynccontextmanager
async def watched(database: str) -> AsyncIterator[Watched]:
    session = await Watched.connect(database)
    session.database, session.seen = database, []
    try:
        yield session
    finally:
        await session.close()


async def test_the_act_is_committed_before_the_body_is_fetched(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    [bad] = await set_aside(["canary"])
    async with watched(database) as session:
        await quarantine.unseal(
            session, 1, 1, keys_of(settings()), reason=" asked by them ", ticket="OPS-7"
        )
        act = ("unseal", f"quarantine entry 1, message {bad.message_id}", "asked by them", "OPS-7")
        assert session.seen == [[act]]


async def test_no_body_is_fetched_where_the_act_cannot_be_recorded(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside(["canary"])
    keyring = keys_of(settings())
    async with watched(database) as session:
        for reason, ticket in (("", "t"), (" \t", "t"), ("r" * 501, "t"), ("r", "t" * 101)):
            with pytest.raises(SettingsError):
                await quarantine.unseal(session, 1, 1, keyring, reason=reason, ticket=ticket)
        with pytest.raises(SettingsError, match="no entry 2"):
            await quarantine.unseal(session, 1, 2, keyring, reason="r", ticket="")
        other = Keyring(pseudonym={1: secrets.token_bytes(32)})
        with pytest.raises(KeyFault):
            await quarantine.unseal(session, 1, 1, other, reason="r", ticket="")
        assert rows(database, ACTS) == []
        rows(database, "DROP FUNCTION sqs2pg.record_act")
        with pytest.raises(FatalFault):
            await quarantine.unseal(session, 1, 1, keyring, reason="r", ticket="")
        assert session.seen == []


# Replay


async def test_a_replayed_message_is_what_its_first_delivery_would_have_been(
    set_aside: Any, settings: MakeSettings, pipeline: Assemble, database: str
) -> None:
    changes = {"ip": "::ffff:198.51.100.9", "device_id": "Zoë\t\\", "app_version": "2.3"}
    yesterday = (time.time_ns() // 1_000_000) - DAY_MS
    await set_aside([message(strange(1, **changes), yesterday)])
    assert await replay_selected(settings(), ALL) == Replayed(replayed=1)
    async with pipeline() as ready:
        await ready.processors[0].process([message(login(1, **changes), yesterday)])
    first, second = rows(database, "SELECT user_logins::text FROM user_logins")
    assert first == second
    assert ledger(database) == {"written": 2}
    await assert_books_balance(settings(), written=2, quarantined=0)


async def test_replay_flips_the_outcome_and_a_repetition_changes_nothing(
    set_aside: Any, settings: MakeSettings, database: str, pipeline: Assemble
) -> None:
    bad = await set_aside([strange(i) for i in range(12)], fine=[login(100)])
    assert ledger(database) == {"written": 1, "quarantined": 12}
    assert await replay_selected(settings(), ALL) == Replayed(replayed=12)
    assert ledger(database) == {"written": 13}
    assert tally(database, "replay") == [(12, -12, 0, 12, 0)]
    after = rows(database, USERS)
    assert len(after) == 13
    assert await replay_selected(settings(), ALL) == Replayed()
    assert await replay_selected(settings(), Selection(ids=(1, 2, 3))) == Replayed(already_done=3)
    async with pipeline() as ready:
        assert set(await ready.processors[0].process(bad)) == {Outcome.DUPLICATE}
    assert rows(database, USERS) == after
    assert tally(database, "replay") == [(12, -12, 0, 12, 0)]
    assert rows(database, ACTS) == [("replay", "pipeline 1, 12 quarantine entries: all", "", "")]
    await assert_books_balance(settings(), written=13, quarantined=0)


async def test_an_entry_that_lost_its_note_is_still_written_once(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    """As if the quarantine alone was restored from a backup: the ledger decides."""
    await set_aside([strange(1)])
    await replay_selected(settings(), ALL)
    rows(database, "UPDATE sqs2pg.quarantine SET replayed_at = NULL RETURNING 1")
    assert await replay_selected(settings(), ALL) == Replayed(already_done=1)
    assert rows(database, USERS) == [("u1",)]
    assert rows(database, OPEN) == []
    await assert_books_balance(settings(), written=1, quarantined=0)


async def test_what_fails_again_stays_with_its_new_reason(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1), strange(2, ip="300.1.1.1"), "not json", strange(4, user_id="")])
    assert await replay_selected(settings(), ALL) == Replayed(replayed=1, still_bad=3)
    assert rows(database, OPEN) == [
        (2, "bad_ip", "ip", 2),
        (3, "not_json", "", 2),
        (4, "empty_field", "user_id", 2),
    ]
    assert ledger(database) == {"written": 1, "quarantined": 3}
    assert tally(database, "replay") == [(1, -1, 0, 1, 0)]
    await assert_books_balance(settings(), written=1, quarantined=3)


async def test_a_selection_is_replayed_and_nothing_else(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1), "not json", strange(3), strange(4)])
    assert await replay_selected(settings(), Selection(ids=(3, 1))) == Replayed(replayed=2)
    assert rows(database, USERS) == [("u1",), ("u3",)]
    with pytest.raises(SettingsError, match="no entry 77"):
        await replay_selected(settings(), Selection(ids=(4, 77)))
    assert await replay_selected(settings(), Selection(reason="not_json")) == Replayed(still_bad=1)
    assert await replay_selected(settings(), Selection(reason="unknown_field")) == Replayed(
        replayed=1
    )
    assert [subject for _, subject, _, _ in rows(database, ACTS)] == [
        "pipeline 1, 2 quarantine entries: ids 3, 1",
        "pipeline 1, 1 quarantine entries: reason not_json",
        "pipeline 1, 1 quarantine entries: reason unknown_field",
    ]


async def test_rows_that_the_database_rejects_stay_and_all_others_are_written(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    """More rows rejected alike, and first, than end the search in a batch of the pipeline."""
    count = reject_search.SAME_FAULT_MAX + 10
    await set_aside(
        [strange(i, device_type="fridge") for i in range(count)]
        + [strange(count + i, device_type="phone") for i in range(20)]
    )
    rows(
        database,
        "ALTER TABLE user_logins ADD CONSTRAINT phones CHECK (device_type = 'phone') NOT VALID",
    )
    assert await replay_selected(settings(), ALL) == Replayed(replayed=20, still_bad=count)
    assert {row[1:] for row in rows(database, OPEN)} == {
        ("rejected_by_database", "23514 phones", 2)
    }
    assert ledger(database) == {"written": 20, "quarantined": count}
    await assert_books_balance(settings(), written=20, quarantined=count)
    rows(database, "ALTER TABLE user_logins DROP CONSTRAINT phones")
    assert await replay_selected(settings(), ALL) == Replayed(replayed=count)
    assert len(rows(database, USERS)) == count + 20
    await assert_books_balance(settings(), written=count + 20, quarantined=0)


async def test_two_replays_at_once_write_each_message_once(
    set_aside: Any, settings: MakeSettings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_ledger, "BATCH_MAX", 7)
    await set_aside([strange(i) for i in range(60)])
    reports = await asyncio.gather(*(replay_selected(settings(), ALL) for _ in range(4)))
    assert sum(report.replayed for report in reports) == 60
    assert all(report.replayed + report.already_done <= 60 for report in reports)
    assert len(rows(database, USERS)) == 60
    await assert_books_balance(settings(), written=60, quarantined=0)


class LosesAReply(Session):
    """A session whose second COMMIT, the second batch's, arrives and is never answered."""

    commits = 0

    async def execute(self, statement: Any, parameters: Any = None) -> list[tuple[Any, ...]]:
        answer = await super().execute(statement, parameters)
        if statement == "COMMIT":
            self.commits += 1
            if self.commits == 2:
                await self.close()
                raise psycopg.OperationalError
        return answer


async def test_a_commit_whose_reply_is_lost_is_not_done_again(
    set_aside: Any, settings: MakeSettings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_ledger, "BATCH_MAX", 4)
    await set_aside([strange(i) for i in range(10)])
    session = await LosesAReply.connect(database)
    replayer = await assemble_replay(session, settings(), keys_of(settings()), 1)
    with pytest.raises(TransientFault, match="08006"):
        await replayer.run(ALL)
    assert replayer.report == Replayed(replayed=4)
    assert len(rows(database, USERS)) == 8, (
        "the second batch is committed, though its reply was lost"
    )
    assert await replay_selected(settings(), Selection(ids=tuple(range(1, 11)))) == Replayed(
        replayed=2, already_done=8
    )
    assert len(rows(database, USERS)) == 10
    await assert_books_balance(settings(), written=10, quarantined=0)


async def test_batches_are_bounded_by_count_and_by_bytes(
    set_aside: Any, settings: MakeSettings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_aside([strange(i, locale="x" * 20) for i in range(20)])
    monkeypatch.setattr(replay_ledger, "BATCH_MAX", 8)
    assert await replay_selected(settings(), Selection(ids=tuple(range(1, 11)))) == Replayed(
        replayed=10
    )
    assert [row[0] for row in tally(database, "replay")] == [8, 2]
    [(size,)] = rows(database, "SELECT max(octet_length(body)) FROM sqs2pg.quarantine")
    monkeypatch.setattr(replay_ledger, "BATCH_BYTES_MAX", 3 * size)
    assert await replay_selected(settings(), ALL) == Replayed(replayed=10)
    assert [row[0] for row in tally(database, "replay")] == [8, 2, 3, 3, 3, 1]
    monkeypatch.setattr(replay_ledger, "BATCH_BYTES_MAX", 1)
    await set_aside([strange(30), strange(31)])
    assert await replay_selected(settings(), ALL) == Replayed(replayed=2)
    assert rows(database, "SELECT count(*) FROM sqs2pg.audit") == [(3,)], "one act per run"


async def test_two_entries_of_one_message_are_written_once(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    """As if a message came again long after the ledger forgot it."""
    await set_aside([strange(1), strange(2)])
    rows(
        database,
        "INSERT INTO sqs2pg.quarantine (key, message_id, pipeline, reason, detail, attempts,"
        " sent_at, body, sealed_under) SELECT key, message_id, pipeline, reason, detail, attempts,"
        " sent_at, body, sealed_under FROM sqs2pg.quarantine WHERE id = 1 RETURNING 1",
    )
    assert await replay_selected(settings(), ALL) == Replayed(replayed=2, already_done=1)
    assert rows(database, USERS) == [("u1",), ("u2",)]
    assert rows(database, OPEN) == []


async def test_once_the_ledgers_day_is_gone_the_entrys_own_note_guards_it(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([*two_days_apart()], fine=[login(3)])
    drop_days_before_the_newest(database)
    assert ledger(database) == {"written": 1, "quarantined": 1}
    assert await replay_selected(settings(), ALL) == Replayed(replayed=2)
    assert rows(database, USERS) == [("u1",), ("u2",), ("u3",)]
    assert tally(database, "replay") == [(1, -1, 0, 2, 0)]
    assert await replay_selected(settings(), Selection(ids=(1, 2))) == Replayed(already_done=2)
    assert len(rows(database, USERS)) == 3
    await assert_books_balance(settings(), written=2, quarantined=0)


async def test_two_replays_at_once_need_no_ledger_to_write_once(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    """The ledger has forgotten it. The first replay stands still in mid-COPY; the second comes."""
    await set_aside([*two_days_apart()])
    drop_days_before_the_newest(database)
    rows(
        database,
        "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END $$;"
        "CREATE TRIGGER wait_here BEFORE INSERT ON user_logins FOR EACH ROW"
        " EXECUTE FUNCTION wait_here()",
    )
    with psycopg.connect(database) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(42)")
        both = asyncio.gather(*(replay_selected(settings(), Selection(ids=(1,))) for _ in range(2)))
        await until(lambda: rows(database, BLOCKED) == [(2,)])
        holder.rollback()
        reports = await both
    assert sorted(report.replayed for report in reports) == [0, 1]
    assert sorted(report.already_done for report in reports) == [0, 1]
    assert rows(database, USERS) == [("u1",)]


async def test_an_entry_that_the_ledger_lacks_though_its_day_is_kept_is_left(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    """Writing it could duplicate it: the entry that would tell was removed."""
    one, two, _ = await set_aside([strange(1), strange(2), strange(3)])
    rows(database, f"DELETE FROM sqs2pg.delivery WHERE message_id = '{one.message_id}' RETURNING 1")
    rows(
        database,
        "UPDATE sqs2pg.delivery SET message_id = 'another'"
        f" WHERE message_id = '{two.message_id}' RETURNING 1",
    )
    before = rows(database, OPEN)
    with capture_logs() as logs:
        assert await replay_selected(settings(), ALL) == Replayed(replayed=1, still_bad=2)
    noted = [line["message_id"] for line in logs if line["log_level"] == "error"]
    assert noted == [one.message_id, two.message_id]
    assert rows(database, USERS) == [("u3",)]
    assert rows(database, OPEN) == before[:2]


async def test_a_damaged_body_stays_and_the_others_are_written(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1), strange(2), strange(3)])
    rows(
        database,
        "UPDATE sqs2pg.quarantine SET body = set_byte(body, 60, get_byte(body, 60) # 1)"
        " WHERE id = 1 RETURNING 1",
    )
    rows(
        database,
        "UPDATE sqs2pg.quarantine q SET body = o.body FROM sqs2pg.quarantine o"
        " WHERE q.id = 2 AND o.id = 3 RETURNING 1",
    )
    assert await replay_selected(settings(), ALL) == Replayed(replayed=1, still_bad=2)
    assert rows(database, OPEN) == [
        (1, "sealed_body_damaged", "", 2),
        (2, "sealed_body_damaged", "", 2),
    ]
    assert rows(database, USERS) == [("u3",)]


async def test_a_missing_key_stops_a_replay_before_it_begins(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1), strange(2)])
    rows(database, "UPDATE sqs2pg.quarantine SET sealed_under = 'vault:7' WHERE id = 2 RETURNING 1")
    with pytest.raises(KeyFault, match="vault root version 7 is not in the keyring"):
        await replay_selected(settings(), ALL)
    assert rows(database, USERS) == rows(database, ACTS) == []
    assert await replay_selected(settings(), Selection(ids=(1,))) == Replayed(replayed=1)


async def test_another_key_than_the_one_on_record_is_refused(
    set_aside: Any, settings: MakeSettings, database: str, tmp_path: Any
) -> None:
    await set_aside([strange(1)])
    provider_file.create(tmp_path / "other.keys")
    with pytest.raises(KeyFault, match="not the one on record"):
        await replay_selected(settings(keys={"file": str(tmp_path / "other.keys")}), ALL)
    assert rows(database, USERS) == rows(database, ACTS) == []


async def test_a_rotation_during_a_replay_stops_it(
    set_aside: Any, settings: MakeSettings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_ledger, "BATCH_MAX", 2)
    await set_aside([strange(i) for i in range(4)])
    rows(
        database,
        "CREATE FUNCTION rotate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE sqs2pg.key SET active = false WHERE series = 'pseudonym' AND active;"
        " INSERT INTO sqs2pg.key (series, version, fingerprint, active)"
        " VALUES ('pseudonym', 2, repeat('f', 16), true); RETURN NULL; END $$;"
        "CREATE TRIGGER rotate AFTER INSERT ON user_logins EXECUTE FUNCTION rotate()",
    )
    with pytest.raises(KeyFault, match="version 2 is the active one"):
        await replay_selected(settings(), ALL)
    assert len(rows(database, USERS)) == 2
    assert len(rows(database, OPEN)) == 2
    await assert_books_balance(settings(), written=2, quarantined=2)


@pytest.mark.parametrize(
    "breakage",
    [
        "ALTER TABLE sqs2pg.tally RENAME TO away",
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'canary' USING ERRCODE = '53100'; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON user_logins EXECUTE FUNCTION refuse()"
        ),
    ],
)
async def test_a_systemic_fault_leaves_everything_as_it_was(
    set_aside: Any, settings: MakeSettings, database: str, breakage: str
) -> None:
    await set_aside([strange(1), "not json"])
    before = rows(database, OPEN)
    rows(database, breakage)
    with pytest.raises(TransientFault) as caught:
        await replay_selected(settings(), ALL)
    assert "canary" not in caught.value.what
    assert rows(database, OPEN) == before
    assert ledger(database) == {"quarantined": 2}
    assert rows(database, USERS) == []


async def test_a_replay_under_a_new_dedupe_key_writes_each_event_once(
    set_aside: Any, settings: MakeSettings, database: str, pipeline: Assemble
) -> None:
    dedupe = {"dedupe_key": "event"}
    bodies = [
        strange(1, event="e1"),  # the event of a message that was written
        strange(2, event="e2"),  # twice in the quarantine
        strange(3, event="e2"),
        strange(4),  # no dedupe key
        strange(5, event="e5", ip="bad"),  # still bad
        strange(6, event="e6", device_type="fridge"),  # rejected below
    ]
    await set_aside(bodies, fine=[login(9, event="e1")], ledger=dedupe)
    rows(database, "ALTER TABLE user_logins ADD CONSTRAINT no CHECK (device_type <> 'fridge')")
    chosen = settings(ledger=dedupe)
    assert await replay_selected(chosen, ALL) == Replayed(replayed=2, still_bad=2, already_done=2)
    assert rows(database, USERS) == [("u2",), ("u4",), ("u9",)]
    assert [row[:2] for row in rows(database, OPEN)] == [(5, "bad_ip"), (6, "rejected_by_database")]
    await assert_books_balance(chosen, quarantined=2)
    rows(database, "ALTER TABLE user_logins DROP CONSTRAINT no")
    assert await replay_selected(chosen, ALL) == Replayed(replayed=1, still_bad=1)
    async with pipeline(ledger=dedupe) as ready:
        again = [message(login(7, event=name)) for name in ("e1", "e2", "e6")]
        assert set(await ready.processors[0].process(again)) == {Outcome.DUPLICATE}
    await assert_books_balance(chosen, quarantined=1)


# Purge and retention


async def test_purge_deletes_and_the_books_still_balance(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1), "not json", "nor this", strange(4)], fine=[login(9)])
    await replay_selected(settings(), Selection(ids=(1,)))
    async with opened(settings()) as session:
        done = await quarantine.purge(session, 1, Selection(ids=(1, 2)), because="tidy")
        assert done == Purged(purged=2, never_replayed=1)
    assert [row[0] for row in rows(database, OPEN)] == [3, 4]
    assert ledger(database) == {"written": 2, "quarantined": 3}
    assert tally(database, "purge") == [(0, 0, 0, 0, 1)]
    assert rows(database, ACTS)[1:] == [
        (
            "purge",
            "pipeline 1, 2 quarantine entries, 1 never replayed: ids 1, 2",
            "tidy",
            "",
        )
    ]
    await assert_books_balance(settings(), written=2, quarantined=3)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DELETE FROM sqs2pg.quarantine WHERE id = 3")
    async with opened(settings()) as session:
        assert not (await verify(session, 1)).ok, "a deletion that is not a purge must show"


async def test_purge_goes_in_batches_up_to_where_it_began(
    set_aside: Any, settings: MakeSettings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PURGE_BATCH", 3)
    await set_aside([strange(i) for i in range(10)])
    report = Purged()
    async with opened(settings()) as session:
        extent = await quarantine.measure(session, 1, ALL)
        await set_aside([strange(11)])
        with capture_logs() as logs:
            await quarantine.purge(session, 1, ALL, report=report, last_id=extent.last_id)
        head = await audit.head(session)
        assert await audit.check_chain(session, str(head)) == []
    assert report == Purged(purged=10, never_replayed=10)
    assert len(rows(database, OPEN)) == 1
    assert [row[4] for row in tally(database, "purge")] == [3, 3, 3, 1]
    assert [line["anchor"] for line in logs][-1] == str(head)
    assert len(logs) == 4
    await assert_books_balance(settings(), written=0, quarantined=11)


async def test_purge_leaves_what_a_replay_holds(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1), strange(2)])
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM sqs2pg.quarantine WHERE id = 1 FOR UPDATE")
        async with opened(settings()) as session:
            assert (await quarantine.purge(session, 1, ALL)).purged == 1
        holder.rollback()
    assert [row[0] for row in rows(database, OPEN)] == [1]
    await assert_books_balance(settings(), quarantined=2)


async def test_purge_of_an_entry_whose_day_is_gone_counts_no_ledger_entry(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([*two_days_apart()])
    drop_days_before_the_newest(database)
    async with opened(settings()) as session:
        assert (await quarantine.purge(session, 1, ALL)).purged == 2
    assert tally(database, "purge") == [(0, 0, 0, 0, 1)]
    await assert_books_balance(settings(), quarantined=1)


async def test_a_day_dropped_after_a_purge_takes_the_purge_along(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([*two_days_apart()])
    async with opened(settings()) as session:
        await quarantine.purge(session, 1, Selection(ids=(1,)))
    await assert_books_balance(settings(), quarantined=2)
    drop_days_before_the_newest(database)
    await assert_books_balance(settings(), quarantined=1)


async def test_retention_purges_what_is_older_and_is_audited_only_when_it_does(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1), strange(2), strange(3)])
    past = {1: timedelta(days=30, minutes=1), 2: timedelta(days=29, hours=23)}
    with psycopg.connect(database, autocommit=True) as owner:
        for number, age in past.items():
            owner.execute(
                "UPDATE sqs2pg.quarantine SET received_at = now() - %s WHERE id = %s", [age, number]
            )
    async with opened(settings()) as session, opened(settings()) as another:
        done = await asyncio.gather(
            quarantine.purge_expired(session, 1), quarantine.purge_expired(another, 1)
        )
        assert sum(done) == 1
        assert await quarantine.purge_expired(session, 1) == 0
        assert await quarantine.purge_expired(session, 2) == 0, "another pipeline's"
    assert [row[0] for row in rows(database, OPEN)] == [2, 3]
    assert [row[:3] for row in rows(database, ACTS)] == [
        (
            "purge",
            "pipeline 1, 1 quarantine entries, 1 never replayed: older than 30 days",
            "quarantine.retention_days",
        )
    ]
    await assert_books_balance(settings(), quarantined=3)


async def test_retention_that_cannot_be_audited_deletes_nothing(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside([strange(1)])
    rows(database, "UPDATE sqs2pg.quarantine SET received_at = '2020-01-01' RETURNING 1")
    rows(database, "DROP FUNCTION sqs2pg.record_act")
    async with opened(settings()) as session:
        with pytest.raises(TransientFault, match="42883"):
            await quarantine.purge_expired(session, 1)
        with pytest.raises(FatalFault, match="42883"):
            await quarantine.purge(session, 1, ALL)
    assert len(rows(database, OPEN)) == 1
    assert tally(database, "purge") == []


def test_the_text_of_a_selection_is_short_however_many_ids_it_has() -> None:
    assert str(ALL) == "all"
    assert str(Selection(reason="bad_ip", older_than_days=3)) == (
        "reason bad_ip and older than 3 days"
    )
    assert len(str(Selection(ids=tuple(range(2**62, 2**62 + 5_000))))) < 300


def test_a_fault_of_the_body_names_no_part_of_it(settings: MakeSettings) -> None:
    keyring = keys_of(settings())
    bad = message("canary")
    [letter] = sealer(keyring)([FaultyMessage("key", bad, PermanentFault("not_json"))])
    assert b"canary" not in letter.sealed_body
    with pytest.raises(Exception, match="does not open") as caught:
        quarantine.open_body(
            keyring, "other", letter.message_id, letter.sealed_under, letter.sealed_body
        )
    assert "canary" not in str(caught.value)
