"""Amend, export and groups of the quarantine on a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqs2pg.cli.quarantine_amend import amend_entry
from sqs2pg.cli.quarantine_export import Chosen, export_selected
from sqs2pg.cli.quarantine_groups import GROUPS as CHOICES
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.message import Message, MessageAttribute, Outcome, SystemAttributes
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.quarantine_groups import GROUPS, groups
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, assert_books_balance, opened, rows
from tests.integration.vault_support import login_of
from tests.logins import login
from tests.waiting import BLOCKED, until

MakeSettings = Callable[..., Settings]
USERS = "SELECT user_id FROM user_logins ORDER BY user_id"
ENTRIES = (
    "SELECT id, reason, detail, attempts, replayed_at IS NULL FROM sqs2pg.quarantine ORDER BY id"
)
ACTS = "SELECT act, subject, reason, ticket FROM sqs2pg.audit ORDER BY sequence"
SENT_MS = 1_790_000_000_000


def message(body: str, **attributes: str) -> Message:
    given = {name: MessageAttribute("String", value) for name, value in attributes.items()}
    return Message(str(uuid.uuid4()), "-", body, SystemAttributes(SENT_MS), given or None)


@pytest.fixture
def set_aside(pipeline: Assemble) -> Callable[..., Any]:
    """Quarantine messages through the pipeline itself."""

    async def put(bodies: Sequence[str | Message], **overrides: Any) -> list[Message]:
        bad = [one if isinstance(one, Message) else message(one) for one in bodies]
        async with pipeline(**overrides) as ready:
            outcomes = await ready.processors[0].process(bad)
        assert outcomes == [Outcome.QUARANTINED] * len(bad)
        return bad

    return put


async def test_a_mended_body_is_written_once_under_the_message_s_own_id_and_time(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    [bad] = await set_aside(["{"])
    done = await amend_entry(settings(), 1, login(7), "the producer cut it off", "OPS-1")
    assert (done.id, done.message_id, done.audit) == (1, bad.message_id, 1)
    assert rows(database, "SELECT user_id, create_date::text FROM user_logins") == [
        ("u7", "2026-09-21")
    ]
    assert rows(database, "SELECT message_id, outcome::text FROM sqs2pg.delivery") == [
        (bad.message_id, "written")
    ]
    assert rows(database, "SELECT replayed_at IS NOT NULL, amended FROM sqs2pg.quarantine") == [
        (True, 1)
    ]
    assert rows(database, ACTS) == [
        (
            "amend",
            f"quarantine entry 1, message {bad.message_id}",
            "the producer cut it off",
            "OPS-1",
        )
    ]
    with pytest.raises(SettingsError, match="replayed already") as refused:
        await amend_entry(settings(), 1, login(8), "again")
    assert refused.value.code == "entry_closed"
    with pytest.raises(SettingsError, match="no entry 2"):
        await amend_entry(settings(), 2, login(8), "not there")
    with pytest.raises(SettingsError, match="reason is empty"):
        await amend_entry(settings(), 1, login(8), "  ")
    assert rows(database, "SELECT count(*) FROM user_logins") == [(1,)]
    await assert_books_balance(settings(), written=1, quarantined=0)


async def test_a_body_that_is_still_bad_changes_nothing_and_says_why(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside(["{"])
    before = rows(database, ENTRIES)
    canary = "canary-3f"
    for body, why in {
        json.dumps({"user_id": canary, "ip": canary}): r"bad_ip \(ip\)",
        canary: "not_json",
        json.dumps({"user_id": canary * 100}): "too_long",
    }.items():
        with pytest.raises(FatalFault, match=f"still bad: {why}") as refused:
            await amend_entry(settings(), 1, body, "try")
        assert refused.value.code == "still_bad"
        assert canary not in str(refused.value)
    rows(database, "ALTER TABLE user_logins ADD CONSTRAINT no_u9 CHECK (user_id <> 'u9')")
    with pytest.raises(FatalFault, match=r"rejected_by_database \(23514 no_u9\)"):
        await amend_entry(settings(), 1, login(9), "try")
    assert rows(database, ENTRIES) == before
    assert rows(database, USERS) == []
    assert rows(database, ACTS) == []
    await assert_books_balance(settings(), written=0, quarantined=1)


async def test_a_body_of_an_event_that_was_written_leaves_the_entry_open(
    set_aside: Any, settings: MakeSettings, database: str, pipeline: Assemble
) -> None:
    chosen: dict[str, Any] = {"ledger": {"dedupe_key": "event"}}
    await set_aside(["{", login(1, ip="x", event="e2")], **chosen)
    async with pipeline(**chosen) as ready:
        assert await ready.processors[0].process([message(login(9, event="e1"))]) == [
            Outcome.WRITTEN
        ]
    before = rows(database, ENTRIES)
    for number in (1, 2):
        with pytest.raises(FatalFault, match="written already") as refused:
            await amend_entry(settings(**chosen), number, login(number, event="e1"), "try")
        assert refused.value.code == "event_known"
    assert rows(database, ENTRIES) == before
    assert rows(database, ACTS) == []
    await assert_books_balance(settings(**chosen), written=1, quarantined=2)
    for number in (1, 2):
        await amend_entry(settings(**chosen), number, login(number, event=f"n{number}"), "mended")
    assert rows(database, USERS) == [("u1",), ("u2",), ("u9",)]


async def test_two_at_once_write_it_once(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside(["{"])
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM sqs2pg.quarantine FOR UPDATE")
        both = [
            asyncio.create_task(amend_entry(settings(), 1, login(i), f"turn {i}")) for i in (1, 2)
        ]
        await until(lambda: rows(database, BLOCKED) == [(2,)])
    done = await asyncio.gather(*both, return_exceptions=True)
    [refused] = [one for one in done if isinstance(one, SettingsError)]
    assert refused.code == "entry_closed"
    assert len(rows(database, USERS)) == 1
    assert len(rows(database, ACTS)) == 1
    await assert_books_balance(settings(), written=1, quarantined=0)


async def test_what_is_cut_off_before_commit_has_not_happened(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    await set_aside(["{"])
    with psycopg.connect(database) as holder:
        # The act is the last statement: rows, ledger and entry are written before.
        holder.execute("SELECT FROM sqs2pg.audit_head FOR UPDATE")
        cut = asyncio.create_task(amend_entry(settings(), 1, login(1), "cut off"))
        await until(lambda: rows(database, BLOCKED) == [(1,)], during=cut)
        rows(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        with pytest.raises(Exception, match="could not take the amended message"):
            await cut
    assert (rows(database, USERS), rows(database, ACTS)) == ([], [])
    await amend_entry(settings(), 1, login(1), "once more")
    assert rows(database, USERS) == [("u1",)]
    await assert_books_balance(settings(), written=1, quarantined=0)


async def test_attributes_are_kept_and_an_older_version_does_not_win(
    set_aside: Any, settings: MakeSettings, database: str, pipeline: Assemble
) -> None:
    rows(
        database,
        "CREATE TABLE price (sku text PRIMARY KEY, cents integer, version integer, tenant text)",
    )
    chosen: dict[str, Any] = {
        "sink": {"table": "price", "mode": "upsert", "key": ["sku"], "newer": "version"},
        "field": [
            {"source": "sku", "column": "sku", "type": "text", "mask": "keep"},
            {"source": "cents", "column": "cents", "type": "integer", "mask": "keep"},
            {"source": "version", "column": "version", "type": "integer", "mask": "keep"},
            {"source": "attribute:tenant", "column": "tenant", "type": "text", "mask": "keep"},
        ],
    }
    bad = message('{"sku": "a", "cents": "x", "version": 1}', tenant="acme")
    await set_aside([bad], **chosen)
    async with pipeline(**chosen) as ready:
        newer = message('{"sku": "a", "cents": 2, "version": 2}', tenant="acme")
        assert await ready.processors[0].process([newer]) == [Outcome.WRITTEN]
    await amend_entry(settings(**chosen), 1, '{"sku": "a", "cents": 1, "version": 1}', "no x")
    price = "SELECT cents, version, tenant FROM price"
    assert rows(database, price) == [(2, 2, "acme")], "the amended version is the older one"
    bad = message('{"sku": "b", "cents": "x", "version": 1}', tenant="acme")
    await set_aside([bad], **chosen)
    await amend_entry(settings(**chosen), 2, '{"sku": "b", "cents": 5, "version": 1}', "no x")
    assert rows(database, f"{price} WHERE sku = 'b'") == [(5, 1, "acme")]


# Groups


async def test_groups_say_how_many_since_when_and_name_a_sample(
    set_aside: Any, settings: MakeSettings, database: str
) -> None:
    assert GROUPS == CHOICES
    rows(database, "ALTER TABLE user_logins ADD CONSTRAINT no_u9 CHECK (user_id <> 'u9')")
    await set_aside(["{", "[", login(1, ip="x"), login(2, ip="y"), login(3, ip="z"), login(9)])
    rows(database, "UPDATE sqs2pg.quarantine SET received_at = '2026-05-01 23:59Z' WHERE id = 1")
    async with opened(settings()) as session:
        found = {
            by: await groups(session, 1, Selection(open_only=True), by, limit=10) for by in GROUPS
        }
    shown = {by: [(g.group, g.messages, g.codes) for g in found[by]] for by in found}
    reject = "rejected_by_database"
    assert shown["detail"] == [
        ("ip", 3, ["bad_ip"]),
        ("", 2, ["not_json"]),
        ("23514 no_u9", 1, [reject]),
    ]
    assert [(name, count) for name, count, _ in shown["code"]] == [
        ("bad_ip", 3),
        ("not_json", 2),
        (reject, 1),
    ]
    assert [(name, count) for name, count, _ in shown["table"]] == [("public.user_logins", 6)]
    assert shown["day"][-1][:2] == ("2026-05-01", 1)
    [bad_ip] = [g for g in found["code"] if g.group == "bad_ip"]
    assert bad_ip.first_at <= bad_ip.last_at
    [(sample,)] = rows(
        database, f"SELECT reason FROM sqs2pg.quarantine WHERE id = {bad_ip.sample_id}"
    )
    assert sample == "bad_ip"


# Export


def chosen(file: Path, *, unsealed: bool = False, reason: str = "", **which: Any) -> Chosen:
    return Chosen(Selection(open_only=True, **which), file, unsealed, reason, "")


def lines(file: Path) -> list[dict[str, Any]]:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_an_export_is_sealed_unless_a_reason_is_on_record(
    set_aside: Any, settings: MakeSettings, database: str, tmp_path: Path
) -> None:
    canary = 'canary-8d é \ud800 {"'
    await set_aside([canary, "{"])
    sealed = tmp_path / "sealed.jsonl"
    report = await export_selected(settings(), chosen(sealed))
    assert (report.exported, report.unopened) == (2, 0)
    first, second = lines(sealed)
    assert "canary-8d" not in sealed.read_text()
    [(body, label)] = rows(
        database, "SELECT body, sealed_under FROM sqs2pg.quarantine WHERE id = 1"
    )
    assert base64.b64decode(first["body"]) == body
    assert (first["sealed"], first["sealed_under"]) == (True, label)
    assert (first["reason"], second["id"]) == ("bad_unicode", 2)
    assert rows(database, ACTS) == []

    opened_file = tmp_path / "open.jsonl"
    with pytest.raises(SettingsError, match="reason is empty"):
        await export_selected(settings(), chosen(opened_file, unsealed=True))
    assert not opened_file.exists()
    report = await export_selected(settings(), chosen(opened_file, unsealed=True, reason="mend"))
    assert [one["body"] for one in lines(opened_file)] == [canary, "{"]
    assert rows(database, ACTS) == [("unseal", "2 quarantine entries: 1, 2", "mend", "")]
    with pytest.raises(SettingsError, match="exists already"):
        await export_selected(settings(), chosen(opened_file))


async def test_unsealed_bodies_come_only_for_a_request_of_the_same_role_within_the_limit(
    set_aside: Any, settings: MakeSettings, database: str, tmp_path: Path
) -> None:
    await set_aside(["{", "["])
    rows(database, "UPDATE pii.state SET reveals_per_hour_max = 3")
    with login_of(database, "sqs2pg_revealer") as conninfo:
        as_revealer = settings(sink={"dsn": conninfo})
        file = tmp_path / "one.jsonl"
        await export_selected(as_revealer, chosen(file, unsealed=True, reason="look"))
        assert [one["body"] for one in lines(file)] == ["{", "["]
        with pytest.raises(FatalFault, match="within the hour") as refused:
            await export_selected(
                as_revealer, chosen(tmp_path / "two", unsealed=True, reason="look")
            )
        assert refused.value.code == "rate_limited"
        assert not (tmp_path / "two").exists(), "half a file is no export"
        with pytest.raises(FatalFault) as refused:
            await export_selected(as_revealer, chosen(tmp_path / "sealed"))
        assert refused.value.code == "postgres_42501", "a revealer reads no sealed body by hand"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM pii.fetch_reveal(1)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM pii.fetch_bodies(2)")
    with psycopg.connect(database) as owner, pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("SELECT * FROM pii.fetch_bodies(1)")  # another login's request
    assert [act for act, *_ in rows(database, ACTS)] == ["unseal", "unseal_refused"]
    with login_of(database, "sqs2pg_ingest") as conninfo, pytest.raises(FatalFault) as refused:
        await export_selected(
            settings(sink={"dsn": conninfo}), chosen(tmp_path / "three", unsealed=True, reason="x")
        )
    assert refused.value.code == "postgres_42501"
