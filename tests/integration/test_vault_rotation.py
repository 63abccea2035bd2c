"""Rewrap, rekey, forget and the seal itself, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import psycopg
import pytest

from sqs2pg.cli import forget as forget_command
from sqs2pg.cli import reveal as reveal_command
from sqs2pg.errors import FatalFault, KeyFault, SettingsError, Sqs2pgError
from sqs2pg.message import Message, Outcome
from sqs2pg.postgres.key_registry import verify_fingerprints
from sqs2pg.postgres.migrate import migrate
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.compile_subjects import person_columns_of, recoverable_columns, references_of
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from sqs2pg.vault.batching import wait_for_batches
from sqs2pg.vault.crypto import key_encryption_key, open_value, unwrap_data_key
from sqs2pg.vault.erase import Eraser
from sqs2pg.vault.reference_key import reference_key
from sqs2pg.vault.rekey import Rekeyed, Rekeyer
from sqs2pg.vault.reveal import Revealed, reveal
from sqs2pg.vault.rewrap import Rewrapper
from sqs2pg.vault.seal import ValueSealer
from tests.integration.support import Assemble, opened, rows
from tests.integration.vault_support import ON, keys_of, message, rotate, write
from tests.waiting import BLOCKED, until

MakeSettings = Callable[..., Settings]
TOKENS = "SELECT user_id, masked_ip, masked_device_id FROM user_logins ORDER BY user_id, 2, 3"
VALUES = """SELECT v.subject, v.generation, v.field, v.token, v.sealed, k.wrapped_key, k.key_version
FROM pii.value v JOIN pii.subject_key k USING (subject, generation)"""


@pytest.fixture
async def chosen(pipeline: Assemble, settings: MakeSettings) -> Settings:
    """Settings with the vault on, for a database in which PEOPLE are written."""
    async with pipeline(**ON) as ready:
        await write(ready, PEOPLE)
    return settings(**ON)


async def look(settings: Settings, **what: Any) -> list[Revealed]:
    async with opened(settings) as session:
        keyring = await verify_fingerprints(session, keys_of(settings))
        return await reveal(session, keyring, reason="a test", **what)


async def forget(settings: Settings, *names: str, **options: Any) -> Eraser:
    keyring = keys_of(settings)
    async with opened(settings) as session:
        key = await reference_key(session, keyring)
        reference = references_of(settings, key)
        places = person_columns_of(settings, keyring, key)
        eraser = Eraser(session, 1, places, reference, **options)
        await eraser.run(names, "a test")
        return eraser


async def rewrap(settings: Settings) -> Rewrapper:
    async with opened(settings) as session, opened(settings) as beside:
        work = Rewrapper(session, await verify_fingerprints(session, keys_of(settings)), beside)
        await work.run()
        return work


async def rekey(settings: Settings) -> Rekeyed:
    async with opened(settings) as session, opened(settings) as beside:
        keyring = await verify_fingerprints(session, keys_of(settings))
        columns = recoverable_columns(settings, keyring)
        return await Rekeyer(session, keyring, columns, beside=[beside]).run()


async def rekey_values(settings: Settings) -> Rekeyed:
    """Do the first of a rekey's two steps: values get new tokens, rows keep the old ones."""
    async with opened(settings) as session:
        keyring = await verify_fingerprints(session, keys_of(settings))
        work = Rekeyer(session, keyring, recoverable_columns(settings, keyring))
        await work.rekey_values()
        return work.report


async def assert_books_balance(settings: Settings) -> None:
    async with opened(settings) as session:
        assert (await verify(session, 1)).differences == []


def assert_every_value_opens(settings: Settings, database: str) -> int:
    """Open every sealed value; return how many there are."""
    keyring = keys_of(settings)
    found = rows(database, VALUES)
    for subject, generation, field, token, sealed, wrapped, version in found:
        kek = key_encryption_key(keyring, "vault", version)
        key = unwrap_data_key(kek, wrapped, subject.hex, generation)
        open_value(key, sealed, field, token, subject.hex)
    assert len(found) == rows(database, "SELECT count(*) FROM pii.value")[0][0]
    return len(found)


ANN, BOB = "018BCFE5-6C3A-7D2B-8E4F-0123456789AB", "018BCFE5-6C3A-7D2B-8E4F-0123456789CD"
PEOPLE = [message("ann"), message("bob", device="2"), message("ann", "192.0.2.1", "3")]

IP = {
    "source": "ip",
    "column": "masked_ip",
    "mask": "pseudonymize",
    "kind": "ip",
    "recover": True,
}

SWAPS = {
    "fields": "UPDATE pii.value SET field = CASE field WHEN 'ip' THEN 'device_id' ELSE 'ip' END",
    "tokens": "UPDATE pii.value v SET sealed = o.sealed FROM pii.value o WHERE o.token <> v.token"
    " AND o.subject = v.subject AND o.field = v.field",
    "subjects": "UPDATE pii.value v SET sealed = o.sealed FROM pii.value o"
    " WHERE o.token = v.token AND o.subject <> v.subject",
    "subject rows": "UPDATE pii.subject_key k SET sealed_subject = o.sealed_subject"
    " FROM pii.subject_key o WHERE o.subject <> k.subject",
    "keys": "UPDATE pii.subject_key k SET wrapped_key = o.wrapped_key"
    " FROM pii.subject_key o WHERE o.subject <> k.subject",
    "bits": "UPDATE pii.value SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)",
}


@pytest.mark.parametrize("swapped", SWAPS)
async def test_a_ciphertext_opens_in_its_own_place_only(
    chosen: Settings, database: str, swapped: str
) -> None:
    [(token,)] = rows(
        database,
        f"SELECT token FROM ({VALUES}) v WHERE field = 'ip' GROUP BY 1 HAVING count(*) = 2",
    )
    assert len(await look(chosen, token=token, limit=9)) == 2
    rows(database, SWAPS[swapped])
    with pytest.raises(Sqs2pgError) as caught:
        await look(chosen, token=token, limit=9)
    damaged = "subject_key_damaged" if swapped == "keys" else "sealed_body_damaged"
    assert caught.value.code == damaged


async def test_rewrap_changes_every_wrapping_and_no_value(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON)
    async with pipeline(**ON) as ready:
        await write(ready, PEOPLE)
        await ready.processors[0].process([message("")])
    before = rows(database, "SELECT * FROM pii.value ORDER BY 1, 3, 4")
    rotate(chosen, database, "vault")
    work = await rewrap(chosen)
    assert work.rewrapped == 2
    assert [body.sealed_under for body in work.bodies] == ["vault:1"]
    assert rows(database, "SELECT * FROM pii.value ORDER BY 1, 3, 4") == before
    assert rows(database, "SELECT DISTINCT key_version FROM pii.subject_key") == [(2,)]
    assert rows(database, "SELECT reference_wrapped_by FROM pii.state") == [("vault:2",)]
    assert (await rewrap(chosen)).rewrapped == 0
    assert assert_every_value_opens(chosen, database) == 6
    acts = rows(database, "SELECT act FROM sqs2pg.audit ORDER BY sequence")
    assert [act for (act,) in acts] == ["keys_rewrap", "keys_rewrap_done"]
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann", "192.0.2.2"), message("new")])
    assert rows(database, "SELECT count(*) FROM pii.subject_key") == [(3,)]
    assert assert_every_value_opens(chosen, database) == 9


async def test_rewrap_waits_for_batches_that_began_under_the_old_root(
    chosen: Settings, database: str
) -> None:
    [(subject, wrapped)] = rows(
        database, "SELECT subject, wrapped_key FROM pii.subject_key ORDER BY subject LIMIT 1"
    )
    rotate(chosen, database, "vault")
    assert (await rewrap(chosen)).rewrapped == 2
    late = "UPDATE pii.subject_key SET key_version = 1, wrapped_key = %s WHERE subject = %s"
    waiting = "SELECT 1 FROM pg_locks WHERE relation = 'pii.erasure_lock'::regclass AND NOT granted"
    waiting += " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with psycopg.connect(database) as batch:
        batch.execute("SELECT pii.lock_shared()")
        batch.execute(late, [wrapped, subject])
        work = asyncio.create_task(rewrap(chosen))
        await until(lambda: rows(database, waiting), during=work)
        batch.commit()
        assert (await work).rewrapped == 1
    assert rows(database, "SELECT DISTINCT key_version FROM pii.subject_key") == [(2,)]
    assert assert_every_value_opens(chosen, database) == 6


@pytest.mark.parametrize("level", ["off", "on"])
async def test_what_a_run_before_left_is_on_disk_before_another_counts_it_as_done(
    chosen: Settings, database: str, level: str
) -> None:
    """Batches do not wait for the disk: a run that is killed may leave commits behind that a crash
    takes.
    """
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    rows(database, f'ALTER DATABASE "{name}" SET synchronous_commit = {level}')
    with psycopg.connect(database, autocommit=True) as before:
        before.execute("SET synchronous_commit = off")
        before.execute("UPDATE pii.subject_key SET key_version = key_version + 0")
        [(written,)] = before.execute("SELECT pg_current_wal_insert_lsn()").fetchall()
        async with opened(chosen) as session:
            await wait_for_batches(session)
        flushed = "SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn"
        assert before.execute(flushed, [written]).fetchall() == [(True,)]


@pytest.mark.parametrize("series", ["vault", "pseudonym"])
async def test_what_a_rotation_has_done_is_on_disk_at_its_end(
    chosen: Settings, database: str, series: str
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    rows(database, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    rotate(chosen, database, series)
    rows(
        database,
        "CREATE TABLE last (at pg_lsn); INSERT INTO last VALUES ('0/0');"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE public.last SET at = pg_current_wal_insert_lsn(); RETURN NULL; END $$",
    )
    for table in ("pii.subject_key", "pii.value", "user_logins"):
        rows(
            database,
            f"CREATE CONSTRAINT TRIGGER note AFTER UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION note()",
        )
    await (rewrap(chosen) if series == "vault" else rekey(chosen))
    noted = "SELECT at <> '0/0', pg_current_wal_flush_lsn() > at FROM last"
    assert rows(database, noted) == [(True, True)]


async def test_a_worker_takes_up_another_vault_root_with_its_next_batch(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    async with pipeline(**ON) as ready:
        await write(ready, PEOPLE)
        rotate(settings(**ON), database, "vault")
        await write(ready, [message("eve"), message("ann", "192.0.2.9")])
    versions = "SELECT key_version, count(*) FROM pii.subject_key GROUP BY 1 ORDER BY 1"
    assert rows(database, versions) == [(1, 2), (2, 1)]
    assert assert_every_value_opens(settings(**ON), database) == 9


async def test_a_vault_refuses_a_batch_under_a_root_that_is_no_longer_active(
    settings: MakeSettings,
) -> None:
    vault = ValueSealer(keys_of(settings(**ON)), reference_key=bytes(32))
    vault.check_epoch(1, 1)
    with pytest.raises(KeyFault, match="vault version 1, but version 2") as caught:
        vault.check_epoch(1, 2)
    assert caught.value.code == "key_version"


async def test_rekey_gives_old_rows_the_tokens_of_new_ones(
    chosen: Settings, pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        await write(ready, [message("zoe", "203.0.113.9", None)])  # not sealed
    old = {t for row in rows(database, TOKENS) for t in row[1:]}
    rotate(chosen, database, "pseudonym")
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann"), message("bob", "192.0.2.7", "2")])
    report = await rekey(chosen)
    assert (report.values, report.rows, report.rows_left) == (6, 3, 1)
    after = rows(database, TOKENS)
    by_ip: dict[str, set[str]] = {}
    for user, ip, _ in after:
        by_ip.setdefault(ip, set()).add(user)
    assert sorted(map(sorted, by_ip.values())) == [["ann"], ["ann", "bob"], ["bob"], ["zoe"]]
    assert {t for row in after if row[0] != "zoe" for t in row[1:]} & old == set()
    for user, ip, device in after:
        if user != "zoe":
            [one] = await look(chosen, token=ip, user=user)
            assert one.value in {"198.51.100.7", "192.0.2.1", "192.0.2.7"}
            assert len(await look(chosen, token=device, user=user)) == 1
    assert assert_every_value_opens(chosen, database) == 7
    assert rows(database, "SELECT count(*) FROM pii.token_map") == [(0,)]
    assert await rekey(chosen) == Rekeyed(rows_left=1)
    await assert_books_balance(chosen)


async def test_old_rows_of_converted_values_join_with_new_ones_and_are_found(
    settings: MakeSettings, database: str
) -> None:
    pseudonym = {"mask": "pseudonymize", "recover": True}
    fields = [
        {"source": "user_id", "column": "who", "type": "uuid", **pseudonym},
        {"source": "device_id", "column": "device", "type": "bigint", **pseudonym},
    ]
    chosen = settings(**ON, field=fields, sink={"table": "logins"})
    async with opened(chosen) as session:
        await migrate(session, chosen)
    batch = [message(ANN, device=7.0), message(BOB, device=8.0)]
    async with Pipeline(chosen) as ready:
        await write(ready, batch)
    rotate(chosen, database, "pseudonym")
    async with Pipeline(chosen) as ready:
        await write(ready, [message(ANN.lower(), device=7)])
    done = await forget(chosen, BOB)
    assert done.report.rows_changed == 1
    report = await rekey(chosen)
    assert (report.values, report.rows, report.rows_left) == (2, 1, 0)
    tokens = "SELECT who, device, count(*) FROM logins WHERE device IS NOT NULL GROUP BY 1, 2"
    assert [count for *_, count in rows(database, tokens)] == [2]
    assert (await forget(chosen, ANN)).report.rows_changed == 2


async def test_while_a_rekey_runs_old_tokens_are_resolved_and_joined(
    chosen: Settings, database: str
) -> None:
    """The state between its two steps: values have new tokens, the rows still have old ones."""
    rotate(chosen, database, "pseudonym")
    async with Pipeline(chosen) as ready:
        await write(ready, [message("eve")])
    await rekey_values(chosen)
    joined = rows(
        database,
        "SELECT array_agg(DISTINCT user_id ORDER BY user_id) FROM user_logins LEFT JOIN"
        " pii.token_map ON old_token = masked_ip GROUP BY coalesce(new_token, masked_ip)"
        " ORDER BY 1",
    )
    assert joined == [(["ann"],), (["ann", "bob", "eve"],)]
    [(old,)] = rows(
        database, "SELECT masked_ip FROM user_logins WHERE user_id = 'bob' AND masked_ip ~ '^v1_'"
    )
    [found] = await look(chosen, token=old, user="bob")
    assert found.value == "198.51.100.7"
    assert found.token.startswith("v2_")


async def test_a_value_that_a_message_stores_meanwhile_is_kept_once(
    chosen: Settings, database: str
) -> None:
    rotate(chosen, database, "pseudonym")
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann")])
    columns = "subject, generation, field, token, sealed, token_hash"
    [late] = rows(
        database, f"DELETE FROM pii.value WHERE field = 'ip' AND token ~ '^v2' RETURNING {columns}"
    )
    with psycopg.connect(database) as batch:
        batch.execute(f"INSERT INTO pii.value ({columns}) VALUES (%s, %s, %s, %s, %s, %s)", late)
        task = asyncio.create_task(rekey_values(chosen))
        await until(lambda: rows(database, BLOCKED) != [(0,)], during=task)
        batch.commit()
    await task
    assert rows(database, "SELECT DISTINCT left(token, 3) FROM pii.value") == [("v2_",)]
    kept = rows(database, f"SELECT sealed FROM pii.value WHERE token = '{late[3]}'")
    assert (late[4],) in kept
    assert assert_every_value_opens(chosen, database) == 6
    report = await rekey(chosen)
    assert (report.rows, report.rows_left) == (3, 0)


@pytest.mark.parametrize("native", ["1", "0"])
async def test_a_token_that_values_of_several_batches_have_is_in_the_map_once(
    pipeline: Assemble,
    settings: MakeSettings,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    native: str,
) -> None:
    monkeypatch.setattr("sqs2pg.vault.rekey.BATCH_VALUES", 4)
    monkeypatch.setattr("sqs2pg.vault.batching.BATCH_ROWS_MAX", 4)
    async with pipeline(**ON) as ready:
        await write(ready, [message(f"p{n}", "192.0.2.1", str(n % 5)) for n in range(40)])
    chosen = settings(**ON)
    rotate(chosen, database, "pseudonym")
    monkeypatch.setenv("SQS2PG_NATIVE", native)
    assert (await rekey_values(chosen)).values == 80
    assert rows(database, "SELECT count(*), count(DISTINCT new_token) FROM pii.token_map") == [
        (6, 6)
    ]
    report = await rekey(chosen)
    assert (report.values, report.rows, report.rows_left) == (0, 40, 0)
    assert assert_every_value_opens(chosen, database) == 80


@pytest.mark.parametrize("whole", [True, False], ids=["the whole command", "its first step"])
async def test_a_value_whose_token_is_in_the_map_of_a_killed_run_gets_its_new_one(
    pipeline: Assemble, settings: MakeSettings, database: str, *, whole: bool
) -> None:
    async with pipeline(**ON) as ready:
        await write(ready, [message(f"p{n}", "192.0.2.1", str(n)) for n in range(9)])
    chosen = settings(**ON)
    rows(database, "CREATE TABLE before AS SELECT * FROM pii.value")
    rotate(chosen, database, "pseudonym")
    await rekey_values(chosen)
    left = "subject IN (SELECT DISTINCT subject FROM before ORDER BY 1 LIMIT 4)"
    rows(database, f"DELETE FROM pii.value WHERE {left}")
    rows(database, f"INSERT INTO pii.value SELECT * FROM before WHERE {left}")
    mapped = rows(database, "SELECT * FROM pii.token_map ORDER BY 1")
    if not whole:
        assert (await rekey_values(chosen)).values == 8
        assert rows(database, "SELECT * FROM pii.token_map ORDER BY 1") == mapped
    report = await rekey(chosen)
    assert (report.values, report.rows, report.rows_left) == (8 if whole else 0, 9, 0)
    assert rows(database, "SELECT DISTINCT left(token, 3) FROM pii.value") == [("v2_",)]
    assert assert_every_value_opens(chosen, database) == 18


async def test_rekey_in_many_batches_and_parts_leaves_what_does_not_open(
    settings: MakeSettings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.vault.rekey.BATCH_VALUES", 5)
    pseudonym = {"mask": "pseudonymize", "recover": True}
    fields = [
        {"source": "user_id", "column": "who", "required": True},
        {"source": "ip", "column": "a", "kind": "ip", **pseudonym},
        {"source": "ip", "column": "b", "kind": "ip", "domain": "other", **pseudonym},
        {"source": "a, b", "column": "c", **pseudonym},
    ]
    chosen = settings(**ON, field=fields, sink={"table": "logins"})
    async with opened(chosen) as session:
        await migrate(session, chosen)

    def logins(*people: int) -> list[Message]:
        numbers = [n for n in range(40) if n % 9 in people]
        return [message(f"p{n % 9}", f"192.0.2.{n}", **{"a, b": f"{n}, {n}"}) for n in numbers]

    async with Pipeline(chosen) as ready:
        await write(ready, logins(*range(9)))
    damage = "UPDATE pii.value SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE"
    rows(database, f"{damage} token = (SELECT a FROM logins WHERE who = 'p3' ORDER BY a LIMIT 1)")
    rows(
        database,
        "UPDATE pii.subject_key SET wrapped_key = set_byte(wrapped_key, 30, 1 # get_byte("
        "wrapped_key, 30)) WHERE subject = (SELECT subject FROM pii.value JOIN logins ON token = a"
        " WHERE who = 'p4' LIMIT 1)",
    )
    of_p4 = sum(n % 9 == 4 for n in range(40))
    rotate(chosen, database, "pseudonym")
    report = await rekey(chosen)
    assert report == Rekeyed(
        values=120 - 3 * of_p4 - 1,
        rows=40 - of_p4,
        values_damaged=3 * of_p4 + 1,
        rows_left=3 * of_p4 + 1,
    )
    left = rows(database, "SELECT who, left(a, 3), left(b, 3), left(c, 3) FROM logins")
    assert {row[1:] for row in left if row[0] == "p4"} == {("v1_",) * 3}
    assert {row[1:] for row in left if row[0] not in ("p3", "p4")} == {("v2_",) * 3}
    # Each column of a field has the tokens of its own domain, and they are those of new rows.
    async with Pipeline(chosen) as ready:
        await write(ready, logins(0, 1, 2, 5, 6, 7, 8))
    again = "SELECT count(*) FROM logins WHERE who NOT IN ('p3', 'p4') GROUP BY {}"
    for column in "abc":
        assert set(rows(database, again.format(column))) == {(2,)}
    assert (await rekey(chosen)).values == 0


async def test_rekey_shares_a_target_out_among_its_sessions(
    chosen: Settings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.vault.token_map.PAGES_AT_LEAST", 1)
    monkeypatch.setattr("sqs2pg.vault.token_map.PAGES_AT_ONCE", 8)
    names = "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attnum > 0"
    names += " AND attrelid = 'user_logins'::regclass"
    [(columns,)] = rows(database, names)
    rows(
        database,
        f"INSERT INTO user_logins ({columns}) SELECT {columns} FROM user_logins,"
        " generate_series(1, 2000)",
    )
    pages = "SELECT pg_relation_size('user_logins') / current_setting('block_size')::bigint"
    assert rows(database, pages)[0][0] > 5 * 8
    rotate(chosen, database, "pseudonym")
    report = await rekey(chosen)
    assert (report.rows, report.rows_left) == (3 * 2001, 0)
    assert rows(database, "SELECT DISTINCT left(masked_ip, 3) FROM user_logins") == [("v2_",)]
    assert rows(database, "SELECT count(*) FROM pii.token_map") == [(0,)]


@pytest.mark.parametrize("device", ["NULL", "'v2_' || repeat('0', 32)", "'v1_' || repeat('0', 32)"])
async def test_a_row_of_which_one_token_is_in_the_map_gets_the_new_one(
    chosen: Settings, database: str, device: str
) -> None:
    """The other column may lack a token, have a new one, or one whose value is not sealed."""
    rows(database, f"UPDATE user_logins SET masked_device_id = {device} WHERE user_id = 'ann'")
    rotate(chosen, database, "pseudonym")
    before = rows(database, "SELECT masked_device_id FROM user_logins WHERE user_id = 'ann'")
    report = await rekey(chosen)
    assert (report.rows, report.rows_left) == (3, 2 if "v1_" in device else 0)
    assert rows(database, "SELECT DISTINCT left(masked_ip, 3) FROM user_logins") == [("v2_",)]
    after = "SELECT masked_device_id FROM user_logins WHERE user_id = 'ann'"
    assert rows(database, after) == before


READ = """SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables
WHERE relid = 'pii.value'::regclass"""
OTHERS = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
AND backend_type = 'client backend'"""


async def values_read(database: str) -> int:
    """Return how many rows of the vault's values were read so far, by sessions that have ended."""
    await until(lambda: rows(database, OTHERS) == [(0,)])  # what one has read is known at its end
    return int(rows(database, READ)[0][0])


async def test_rekey_reads_each_value_a_few_times_however_many_batches_there_are(
    chosen: Settings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.vault.rekey.BATCH_VALUES", 20)
    monkeypatch.setattr("sqs2pg.vault.batching.BATCH_ROWS_MAX", 20)
    logins = [message(f"p{n}", f"192.0.{n // 250}.{n % 250}", str(n)) for n in range(600)]
    async with Pipeline(chosen) as ready:
        await write(ready, logins)
    rotate(chosen, database, "pseudonym")
    before = await values_read(database)
    report = await rekey(chosen)
    assert report.values == 1_206
    read = await values_read(database) - before
    assert report.values <= read < 12 * report.values  # there are over 60 batches


async def test_rekey_beside_messages_does_not_compare_each_value_of_a_person_with_each(
    chosen: Settings, database: str
) -> None:
    logins = [message("bot", f"192.0.{n // 250}.{n % 250}", "1") for n in range(500)]
    async with Pipeline(chosen) as ready:
        await write(ready, logins)
    rotate(chosen, database, "pseudonym")
    async with Pipeline(chosen) as ready:
        await write(ready, [message("bot", "192.0.0.0", None)])
    before = await values_read(database)
    report = await rekey_values(chosen)  # a whole run removes first what was stored before it
    assert report.values == 507
    read = await values_read(database) - before
    assert report.values <= read < 12 * report.values
    assert assert_every_value_opens(chosen, database) == 507


async def test_several_rotations_at_once_get_done_what_one_does(
    chosen: Settings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.vault.rekey.BATCH_VALUES", 30)
    monkeypatch.setattr("sqs2pg.vault.rewrap.BATCH_KEYS", 30)
    monkeypatch.setattr("sqs2pg.vault.batching.BATCH_ROWS_MAX", 60)

    def logins(count: int) -> list[Message]:
        return [message(f"p{n % 150}", f"192.0.2.{n % 97}", str(n)) for n in range(count)]

    async with Pipeline(chosen) as ready:
        await write(ready, logins(600))
    people = rows(database, "SELECT count(*) FROM pii.subject_key")[0][0]
    values = rows(database, "SELECT count(*) FROM pii.value")[0][0]
    rotate(chosen, database, "vault")
    rotate(chosen, database, "pseudonym")

    async def come_back() -> None:
        async with Pipeline(chosen) as ready:
            await write(ready, logins(200))  # these have new tokens already

    async with asyncio.TaskGroup() as group:
        rewraps = [group.create_task(rewrap(chosen)) for _ in range(2)]
        rekeys = [group.create_task(rekey(chosen)) for _ in range(3)]
        group.create_task(come_back())
    assert sum(task.result().rewrapped for task in rewraps) >= people
    assert sum(task.result().rows for task in rekeys) >= 603
    assert rows(database, "SELECT DISTINCT key_version FROM pii.subject_key") == [(2,)]
    assert rows(database, "SELECT DISTINCT left(token, 3) FROM pii.value") == [("v2_",)]
    old = "SELECT count(*) FROM user_logins WHERE masked_ip ~ '^v1_' OR masked_device_id ~ '^v1_'"
    assert rows(database, old) == [(0,)]
    assert rows(database, "SELECT count(*) FROM pii.token_map") == [(0,)]
    assert assert_every_value_opens(chosen, database) == values
    await assert_books_balance(chosen)


async def test_rekey_comes_back_for_a_row_that_another_changes_meanwhile(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON)
    async with pipeline(**ON) as ready:
        await write(ready, PEOPLE[:1])
    rotate(chosen, database, "pseudonym")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    waiting += " AND datname = current_database() AND query LIKE '%UPDATE%'"
    with psycopg.connect(database) as other:
        other.execute("UPDATE user_logins SET locale = 'XX'")
        work = asyncio.create_task(rekey(chosen))
        await until(lambda: rows(database, waiting), during=work)
        other.commit()
        report = await work
    assert (report.values, report.rows, report.rows_left) == (2, 1, 0)
    [row] = rows(database, "SELECT locale, left(masked_ip, 3) FROM user_logins")
    assert row == ("XX", "v2_")


async def test_forget_clears_rows_by_their_old_and_new_tokens_where_the_user_is_masked(
    settings: MakeSettings, database: str
) -> None:
    fields = [
        {"source": "user_id", "column": "who", "mask": "pseudonymize", "required": True},
        {
            "source": "ip",
            "column": "masked_ip",
            "mask": "pseudonymize",
            "kind": "ip",
            "recover": True,
        },
        {"source": "locale", "column": "locale"},
    ]
    chosen = settings(**ON, field=fields, sink={"table": "logins"})
    async with opened(chosen) as session:
        await migrate(session, chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann", locale="DE"), message("bob", locale="FR")])
    rotate(chosen, database, "pseudonym")
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann", locale="IT")])
    done = await forget(chosen, "ann")
    assert done.report.rows_changed == 2
    left = rows(database, "SELECT who, masked_ip, locale FROM logins ORDER BY locale")
    assert [(ip is None, locale) for _, ip, locale in left] == [
        (True, "DE"),
        (False, "FR"),
        (True, "IT"),
    ]
    assert left[0][0] == left[2][0]
    assert not left[0][0].startswith("v")


async def test_forget_finds_rows_in_partitions_and_under_an_index(
    settings: MakeSettings, database: str
) -> None:
    rows(
        database,
        "CREATE TABLE user_logins (user_id varchar(20) NOT NULL, device_type varchar(32),"
        " masked_ip varchar(256) NOT NULL, masked_device_id varchar(256), locale varchar(32),"
        " app_version integer, create_date date) PARTITION BY LIST (device_type);"
        "CREATE TABLE a PARTITION OF user_logins FOR VALUES IN ('a');"
        "CREATE TABLE b PARTITION OF user_logins DEFAULT; CREATE INDEX ON b (user_id)",
    )
    fields = [
        {"source": "user_id", "column": "user_id", "required": True, "length_max": 20},
        {"source": "device_type", "column": "device_type"},
        {
            "source": "ip",
            "column": "masked_ip",
            "mask": "pseudonymize",
            "kind": "ip",
            "recover": True,
        },
    ]
    chosen = settings(**ON, field=fields)
    async with opened(chosen) as session:
        await migrate(session, chosen)
    async with Pipeline(chosen) as ready:
        people = [message(u, device_type=d) for u in ("ann", "bob") for d in ("a", "b")]
        await write(ready, people)
    done = await forget(chosen, "ann", "nobody")
    assert (done.report.subjects, done.report.rows_changed) == (2, 2)
    left = rows(database, "SELECT user_id, masked_ip FROM user_logins")
    assert sorted(user for user, _ in left if user == "bob") == ["bob", "bob"]
    [erased] = {row for row in left if row[0] != "bob"}
    assert len(erased[0]) == 20
    assert not erased[1].startswith("v1_")


NAMES: dict[str, tuple[list[Any], list[Any], dict[str, str]]] = {
    "uuid": ([ANN, ANN.lower()], [BOB], {"type": "uuid"}),
    "integer": ([7, 7.0], [8], {"type": "integer"}),
}


@pytest.mark.parametrize("asked", ["as in the message", "as in the table"])
@pytest.mark.parametrize("kind", NAMES)
async def test_a_person_is_found_by_the_name_in_the_message_and_the_one_in_the_table(
    settings: MakeSettings, database: str, kind: str, asked: str
) -> None:
    theirs, others, typed = NAMES[kind]
    fields = [{"source": "user_id", "column": "who", "required": True, **typed}, IP]
    chosen = settings(**ON, field=fields, sink={"table": "logins"})
    async with opened(chosen) as session:
        await migrate(session, chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, [message(name) for name in [*theirs, *others]])
        bad = [message(name, ["no", "address"]) for name in theirs]
        assert await ready.processors[0].process(bad) == [Outcome.QUARANTINED] * 2
    assert rows(database, "SELECT count(*) FROM pii.subject_key") == [(2,)]
    [(known, _), _] = rows(database, "SELECT who::text, count(*) FROM logins GROUP BY 1 ORDER BY 1")
    name = str(theirs[0]) if asked == "as in the message" else known
    [found] = await reveal_command.reveal_values(chosen, None, name, 5, "a test", "")
    assert (found.value, found.subject) == ("198.51.100.7", known)
    report = (await forget_command.erase_people(chosen, [name], "a test", "")).report
    assert (report.keys_destroyed, report.rows_changed, report.quarantine_removed) == (1, 2, 2)
    left = rows(database, "SELECT who::text FROM logins WHERE masked_ip IS NOT NULL")
    assert left == [(str(others[0]).lower(),)]
    for ask in (
        reveal_command.reveal_values(chosen, None, "no such", 5, "a test", ""),
        forget_command.erase_people(chosen, ["no such"], "a test", ""),
    ):
        with pytest.raises(SettingsError, match="no person can have such an id") as refused:
            await ask
        assert refused.value.hint


async def test_forget_fills_columns_that_are_not_null_with_what_fits(
    settings: MakeSettings, database: str
) -> None:
    rows(
        database,
        "CREATE TABLE narrow (who varchar(40) NOT NULL, number bigint NOT NULL,"
        " phone varchar(12) NOT NULL, net inet NOT NULL, device uuid NOT NULL, fixed char(20)"
        " NOT NULL, wide text NOT NULL, free text)",
    )
    kept = {"mask": "redact", "required": True}
    fields = [
        {"source": "user_id", "column": "who", "type": "bigint"},
        {"source": "user_id", "column": "number", "type": "bigint"},
        {"source": "phone", "column": "phone", **kept},
        {"source": "ip", "column": "net", "mask": "truncate_ip", "kind": "ip"},
        {"source": "device_id", "column": "device", "mask": "fpe_ff1", "kind": "uuid"},
        *({"source": name, "column": name, **kept} for name in ("fixed", "wide", "free")),
    ]
    chosen = settings(**ON, field=fields, sink={"table": "narrow"})
    async with opened(chosen) as session:
        await migrate(session, chosen)
    more = {"phone": "1", "fixed": "f", "wide": "w", "free": "x"}
    async with Pipeline(chosen) as ready:
        await write(ready, [message(number, device=ANN, **more) for number in (7, 8)])
    masked = "SELECT phone, host(net), device::text, fixed, wide, free FROM narrow WHERE"
    [before] = rows(database, f"{masked} who = '7'")
    assert (await forget(chosen, "7")).report.rows_changed == 1
    [after] = rows(database, f"{masked} who <> '8'")
    [(who, number)] = rows(database, "SELECT who, number FROM narrow WHERE who <> '8'")
    assert (len(who), number) == (36, 0)
    phone, net, device, fixed, wide, free = after
    assert (phone, net, fixed, wide, free) == (who[:12], "0.0.0.0", who[:20], who, None)
    assert device not in (ANN.lower(), before[2])
    assert (await forget(chosen, "8")).report.rows_changed == 1
    assert len(rows(database, f"{masked} device <> '{device}'")) == 1


async def test_forget_is_done_again_without_harm(chosen: Settings, database: str) -> None:
    await forget(chosen, "ann")
    before = rows(database, TOKENS)
    report = (await forget(chosen, "ann")).report
    assert (report.keys_destroyed, report.values_removed, report.rows_changed) == (0, 0, 0)
    assert rows(database, TOKENS) == before
    with pytest.raises(FatalFault, match="erased on"):
        await look(chosen, user="ann", limit=5)
    assert rows(database, "SELECT pseudonym FROM pii.erasure") == [(None,), (None,)]
    await assert_books_balance(chosen)


async def test_a_worker_with_a_full_cache_starts_a_new_generation_after_forget(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON)
    async with pipeline(**ON) as ready:
        await write(ready, PEOPLE)
        await forget(chosen, "ann")
        await write(ready, [message("ann")])
        assert [one.value for one in await look(chosen, user="ann", limit=5)] == [
            "1",
            "198.51.100.7",
        ]
    assert assert_every_value_opens(chosen, database) == 4
    [generations] = rows(database, "SELECT array_agg(generation ORDER BY 1) FROM pii.subject_key")
    assert generations == ([1, 2],)


async def test_the_database_takes_no_value_under_a_destroyed_key(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    """The database refuses it, whatever the writer's cache says."""
    async with pipeline(**ON) as ready:
        await write(ready, PEOPLE)
    await forget(settings(**ON), "ann")
    [(subject,)] = rows(database, "SELECT subject FROM pii.subject_key WHERE wrapped_key IS NULL")
    value = f"'{subject}', 1, 'ip', 't', 'x', hashtextextended('t', 0)"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        rows(database, f"INSERT INTO pii.value VALUES ({value})")


async def test_forget_while_four_workers_ingest_the_same_person(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(pipeline(**ON)) for _ in range(4)]
        numbers = itertools.count()
        over = asyncio.Event()
        outcomes: list[Outcome] = []

        async def ingest(worker: int) -> None:
            while not over.is_set():
                batch: list[Message] = []
                for _ in range(20):
                    number = next(numbers)
                    batch.append(message("ann", f"10.0.{worker}.{number % 250}", str(number % 9)))
                batch.append(message(f"other-{next(numbers) % 50}"))
                outcomes.extend(await workers[worker].processors[worker % 2].process(batch))

        tasks = [asyncio.create_task(ingest(worker)) for worker in range(4)]
        destroyed = 0
        for _ in range(6):
            while not rows(
                database,
                "SELECT 1 FROM pii.subject_key k JOIN pii.value v USING"
                " (subject) WHERE v.token IN (SELECT masked_ip FROM user_logins"
                " WHERE user_id = 'ann') LIMIT 1",
            ):
                await asyncio.sleep(0)
            destroyed += (await forget(chosen, "ann")).report.keys_destroyed
        over.set()
        await asyncio.gather(*tasks)
    assert destroyed == 6
    assert set(outcomes) == {Outcome.WRITTEN}
    assert_every_value_opens(chosen, database)
    # A person still in the table came after the erasure, and is sealed completely.
    unsealed = rows(
        database,
        "SELECT count(*) FROM user_logins, unnest(ARRAY[masked_ip, masked_device_id]) t"
        " WHERE t IS NOT NULL AND t NOT IN (SELECT token FROM pii.value)",
    )
    assert unsealed == [(0,)]
    assert rows(database, "SELECT count(*) FROM pii.subject_key") == [(51,)]
    await assert_books_balance(chosen)


async def test_a_body_of_several_people_is_reported_to_each_and_removed_of_none(
    pipeline: Assemble, settings: MakeSettings
) -> None:
    changes = {**ON, "envelope": {"records": "array"}, "unknown_fields": "quarantine"}

    def together(*people: str | None) -> Message:
        records = [{"user_id": who, "ip": "192.0.2.1", "strange": 1} for who in people]
        return msgspec.structs.replace(message("-"), body=json.dumps(records))

    bodies = [together("ann", "bob"), together("bob", None), together("ann", "ann")]
    async with pipeline(**changes) as ready:
        assert await ready.processors[0].process(bodies) == [Outcome.QUARANTINED] * 3
    for person, removed in (("bob", 0), ("ann", 1)):
        report = (await forget(settings(**changes), person)).report
        assert report.quarantine_removed == removed
        assert report.quarantine_unreadable == 2
        assert report.quarantine_unreadable_newest is not None
