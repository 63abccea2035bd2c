"""`keys rotate` while a pipeline runs: its next batch is masked under the new version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from sqs2pg.cli.quarantine import replay_selected
from sqs2pg.errors import KeyFault
from sqs2pg.keys import provider_file
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.postgres.key_registry import activate, recorded_keys
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.runners.connect import connect, keyring_of
from sqs2pg.settings import Settings

SENT_MS = 1_700_000_000_000
Make = Callable[..., Settings]


def message(number: int) -> Message:
    body = json.dumps(
        {"user_id": f"u{number}", "ip": "199.172.111.135", "device_id": "593-47-5928"}
    )
    return Message(
        f"00000000-0000-4000-8000-{number:012}", "handle", body, SystemAttributes(SENT_MS + number)
    )


async def rotate(settings: Settings, series: str, version: int, *, add: bool = True) -> None:
    """Rotate as the command does; without `add`, as a command on another host does."""
    file = Path(settings.keys.file)
    if add:
        provider_file.add(file, series, version)
    session = await connect(settings)
    try:
        await activate(session, keyring_of(settings, ["127.0.0.1"]), series, version)
    finally:
        await session.close()


async def tokens(settings: Settings) -> list[tuple[Any, ...]]:
    session = await connect(settings)
    try:
        return await session.execute(
            "SELECT user_id, left(masked_ip, 3), left(masked_device_id, 3) FROM user_logins"
            " ORDER BY length(user_id), user_id"
        )
    finally:
        await session.close()


async def test_a_running_pipeline_takes_the_new_version_up(pipeline: Any, settings: Make) -> None:
    chosen = settings()
    async with pipeline() as ready:
        one, two = ready.processors
        assert await one.process([message(1)]) == [Outcome.WRITTEN]
        await rotate(chosen, "pseudonym", 2)
        assert await one.process([message(2), message(1)]) == [Outcome.WRITTEN, Outcome.DUPLICATE]
        assert await two.process([message(3)]) == [Outcome.WRITTEN]
        await rotate(chosen, "pseudonym", 3)
        await rotate(chosen, "vault", 2)
        assert await two.process([message(4)]) == [Outcome.WRITTEN]
        assert await one.process([message(5)]) == [Outcome.WRITTEN]
        versions = ["v1_", "v2_", "v2_", "v3_", "v3_"]
        assert await tokens(chosen) == [(f"u{n}", v, v) for n, v in enumerate(versions, 1)]


async def test_columns_that_were_read_again_are_kept_by_a_key_rotation(
    pipeline: Any, settings: Make, database: str
) -> None:
    chosen = settings()
    async with pipeline() as ready:
        one = ready.processors[0]
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("ALTER TABLE user_logins ALTER COLUMN user_id TYPE varchar(3)")
            # The database rejects the first, and the columns are read again.
            for number in (5001, 5002):
                assert await one.process([message(number)]) == [Outcome.QUARANTINED]
            await rotate(chosen, "pseudonym", 2)
            assert await one.process([message(1)]) == [Outcome.WRITTEN]
            assert await one.process([message(5003)]) == [Outcome.QUARANTINED]
            reasons = "SELECT reason, count(*) FROM sqs2pg.quarantine GROUP BY 1"
            assert connection.execute(reasons).fetchall() == [("too_long", 3)]
        assert await tokens(chosen) == [("u1", "v2_", "v2_")]


async def test_with_the_vault_both_series_are_followed(pipeline: Any, settings: Make) -> None:
    chosen = settings(vault={"enabled": True})
    async with pipeline(vault={"enabled": True}) as ready:
        one, two = ready.processors
        assert await one.process([message(1)]) == [Outcome.WRITTEN]
        await rotate(chosen, "vault", 2)
        assert await one.process([message(2)]) == [Outcome.WRITTEN]
        assert await two.process([message(3)]) == [Outcome.WRITTEN]
        await rotate(chosen, "pseudonym", 2)
        assert await two.process([message(4)]) == [Outcome.WRITTEN]
        assert [row[1] for row in await tokens(chosen)] == ["v1_", "v1_", "v1_", "v2_"]


async def test_a_version_that_cannot_be_had_stops_and_writes_nothing(
    pipeline: Any, settings: Make, database: str
) -> None:
    chosen = settings()
    ours, theirs = Path(chosen.keys.file), Path(f"{chosen.keys.file}.of-another-host")
    shutil.copy2(ours, theirs)
    async with pipeline() as ready:
        [one, _] = ready.processors
        assert await one.process([message(1)]) == [Outcome.WRITTEN]
        elsewhere = msgspec.structs.replace(
            chosen, keys=msgspec.structs.replace(chosen.keys, file=str(theirs))
        )
        await rotate(elsewhere, "pseudonym", 2)  # the new key was not copied here
        with pytest.raises(KeyFault) as caught:
            await one.process([message(2)])
        assert caught.value.code == "key_missing"
        assert "version 2" in caught.value.what
    with psycopg.connect(database) as connection:
        for table in ("user_logins", "sqs2pg.delivery"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)


async def test_a_rotation_is_on_record_and_audited(pipeline: Any, settings: Make) -> None:
    chosen = settings()
    async with pipeline():
        await rotate(chosen, "pseudonym", 2)
        session = await connect(chosen)
        try:
            record = await recorded_keys(session)
            acts = await session.execute("SELECT act, subject FROM sqs2pg.audit")
        finally:
            await session.close()
    active = {key for key, (_, is_active) in record.items() if is_active}
    assert active == {("pseudonym", 2), ("vault", 1)}
    mark = record["pseudonym", 2][0]
    assert acts == [("keys_rotate", f"pseudonym root v2, fingerprint {mark}")]


async def test_another_root_cannot_take_a_version_s_place(
    pipeline: Any, settings: Make, tmp_path: Path
) -> None:
    chosen = settings()
    async with pipeline():
        await rotate(chosen, "pseudonym", 2)
        other = provider_file.create(tmp_path / "other")
        provider_file.add(tmp_path / "other", "pseudonym", 2)
        other = provider_file.load(tmp_path / "other")
        session = await connect(chosen)
        try:
            with pytest.raises(KeyFault) as caught:
                await activate(session, other, "pseudonym", 2)
            assert caught.value.code == "key_fingerprint"
            active = {
                key for key, (_, is_active) in (await recorded_keys(session)).items() if is_active
            }
        finally:
            await session.close()
    assert ("pseudonym", 2) in active


def held(settings: Settings, *versions: int) -> None:
    """Leave no other versions of the pseudonym root in the key file."""
    path = Path(settings.keys.file)
    content = json.loads(path.read_text())
    content["pseudonym"] = {
        str(version): content["pseudonym"][str(version)] for version in versions
    }
    path.write_text(json.dumps(content))


async def test_an_event_keeps_its_dedupe_key_whichever_roots_are_held(
    pipeline: Any, settings: Make, database: str
) -> None:
    dedupe = {"ledger": {"dedupe_key": "user_id"}}
    chosen = settings(**dedupe)
    async with pipeline(**dedupe) as ready:
        assert await ready.processors[0].process([message(1)]) == [Outcome.WRITTEN]
        await rotate(chosen, "pseudonym", 2)
    again = msgspec.structs.replace(message(1), message_id="00000000-0000-4000-8000-00000000000a")
    async with pipeline(**dedupe) as ready:
        assert await ready.processors[0].process([again]) == [Outcome.DUPLICATE]
    both = shutil.copy2(chosen.keys.file, f"{chosen.keys.file}.both")
    held(chosen, 2)
    with pytest.raises(KeyFault) as caught:
        async with pipeline(**dedupe):
            pass
    with pytest.raises(KeyFault) as of_replay:
        await replay_selected(chosen, Selection())
    for fault in (caught.value, of_replay.value):
        assert (fault.code, fault.exit_code) == ("key_missing", 2)
        assert "version 1," in fault.what
        assert "put that version back" in fault.hint
    async with pipeline() as ready:  # no dedupe keys: the old root is not needed
        assert await ready.processors[0].process([message(2)]) == [Outcome.WRITTEN]
    # A root that was in the file but never in use made no dedupe keys.
    shutil.copy2(both, chosen.keys.file)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DELETE FROM sqs2pg.key WHERE series = 'pseudonym' AND version = 1")
    under_second = msgspec.structs.replace(message(3), message_id=again.message_id)
    async with pipeline(**dedupe) as ready:
        assert await ready.processors[0].process([message(3)]) == [Outcome.WRITTEN]
    held(chosen, 2)
    async with pipeline(**dedupe) as ready:
        assert await ready.processors[0].process([under_second]) == [Outcome.DUPLICATE]
