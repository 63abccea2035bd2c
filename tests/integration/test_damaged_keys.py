"""One person's data key that does not open: it is named, and nobody else's work stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from sqs2pg.cli.doctor.check_vault import check_subject_keys
from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding
from sqs2pg.errors import KeyFault
from sqs2pg.message import Outcome
from sqs2pg.pipeline import isolation
from sqs2pg.postgres.key_registry import verify_fingerprints
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.runners.assembly import assemble_replay
from sqs2pg.settings import Settings
from sqs2pg.telemetry import log
from tests.integration.support import Assemble, opened, rows, send
from tests.integration.test_vault_rotation import forget, rekey, rewrap
from tests.integration.vault_support import ON, keys_of, login_of, message, rotate, write
from tests.waiting import until

MakeSettings = Callable[..., Settings]
DAMAGES = {
    "subject_key_damaged": "wrapped_key = set_byte(wrapped_key, 30, get_byte(wrapped_key, 30) # 1)",
    "subject_key_root": "key_version = 999",
}
WRITTEN = "SELECT user_id FROM user_logins ORDER BY 1"
both = pytest.mark.parametrize("code", DAMAGES)


def damage(database: str, code: str, user: str = "ann") -> str:
    """Damage a person's data key; return the reference."""
    subject = (
        "SELECT v.subject FROM pii.value v JOIN user_logins u ON u.masked_ip = v.token"
        f" WHERE u.user_id = '{user}' LIMIT 1"
    )
    change = f"UPDATE pii.subject_key SET {DAMAGES[code]} WHERE subject = ({subject})"
    [(reference,)] = rows(database, f"{change} RETURNING subject")
    return str(reference.hex)


def remove_root(file: Path, version: str) -> None:
    keys = json.loads(file.read_text())
    del keys["vault"][version]
    file.write_text(json.dumps(keys))


def people(ip: str) -> list[Any]:
    names = ("ann", "bob", "eve", "kim", "lee", "mia")
    return [message(name, f"{ip}.{n}", str(n)) for n, name in enumerate(names)]


@both
async def test_the_others_messages_are_written_and_theirs_is_isolated(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(isolation, "AWAY_FIRST_S", 1)
    monkeypatch.setattr(isolation, "AWAY_MAX_S", 2)
    async with pipeline(**ON) as ready:
        await write(ready, people("192.0.2"))
        rows(database, "CREATE TABLE backup AS SELECT * FROM pii.subject_key")
        reference = damage(database, code)
    async with pipeline(**ON) as ready:  # a start, with empty caches
        await send(ready, [one.body for one in people("198.51.100")])
        with capture_logs() as logs:
            run = asyncio.create_task(ready.consumer.run())
            await until(lambda: len(rows(database, WRITTEN)) == 11, 30)
            await until(lambda: bool([one for one in logs if "visible_in_s" in one]), 30)
            isolated = [one for one in logs if one["event"] == "messages are isolated"]
            named = [one for one in logs if one["event"].startswith("the data key of a person")]
            # Restored, their message is written.
            rows(
                database,
                "UPDATE pii.subject_key k SET wrapped_key = b.wrapped_key,"
                " key_version = b.key_version FROM backup b WHERE b.subject = k.subject",
            )
            await until(lambda: len(rows(database, WRITTEN)) == 12, 30)
            ready.consumer.stop()
            await run
        assert {one["code"] for one in isolated} == {code}
        assert [(one["reference"], one["code"]) for one in named] == [(reference, code)]
        counted = ready.metrics.registry.get_sample_value(
            "sqs2pg_faults_total", {"stage": "write", "code": code}
        )
        assert counted
    assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


def test_the_log_shows_what_is_isolated_and_whose_key_it_is() -> None:
    assert {"message_ids", "receives", "visible_in_s", "day", "reference"} <= log.ALLOWED


@both
async def test_rewrap_and_rekey_go_on_and_name_it(
    pipeline: Assemble, settings: MakeSettings, database: str, code: str
) -> None:
    chosen = settings(**ON)
    async with pipeline(**ON) as ready:
        await write(ready, people("192.0.2"))
    reference = damage(database, code)
    rotate(chosen, database, "vault")
    for rewrapped in (5, 0):  # it may be repeated
        done = await rewrap(chosen)
        assert (done.rewrapped, done.damaged) == (rewrapped, {reference})
    rotate(chosen, database, "pseudonym")
    report = await rekey(chosen)
    assert (report.values, report.values_damaged) == (10, 2)
    # Erased, it is nobody's hindrance.
    assert (await forget(chosen, "ann")).report.found == 1
    done = await rewrap(chosen)
    assert (done.rewrapped, done.damaged) == (0, set())


async def test_a_root_on_record_that_is_missing_stops_all(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    """That is a fault of the settings: many people's keys need it."""
    chosen = settings(**ON)
    async with pipeline(**ON) as ready:
        await write(ready, people("192.0.2"))
    rotate(chosen, database, "vault")
    assert (await rewrap(chosen)).rewrapped == 6
    remove_root(Path(chosen.keys.file), "1")
    rows(database, "UPDATE pii.subject_key SET key_version = 1")
    with pytest.raises(KeyFault, match="vault root version 1"):
        await rewrap(chosen)
    async with pipeline(**ON) as ready:
        with pytest.raises(KeyFault, match="vault root version 1"):
            await ready.processors[0].process(people("198.51.100"))


@both
async def test_a_replay_goes_on_with_the_others(
    pipeline: Assemble, settings: MakeSettings, database: str, code: str
) -> None:
    odd = {**ON, "unknown_fields": "quarantine"}
    bodies = [json.loads(one.body) | {"strange": 1} for one in people("198.51.100")]
    async with pipeline(**odd) as ready:
        await write(ready, people("192.0.2"))
        aside = [msgspec.structs.replace(message("-"), body=json.dumps(body)) for body in bodies]
        assert await ready.processors[0].process(aside) == [Outcome.QUARANTINED] * 6
    damage(database, code)
    mended = settings(**ON)
    async with opened(mended) as session:
        keyring = await verify_fingerprints(session, keys_of(mended))
        replayer = await assemble_replay(session, mended, keyring, 1)
        done = await replayer.run(Selection())
    assert (done.replayed, done.still_bad) == (5, 1)
    assert len(rows(database, WRITTEN)) == 11
    assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine WHERE replayed_at IS NULL") == [
        (1,)
    ]


class Given(Context):
    """The doctor's context for settings that were not read from a file."""

    def __init__(self, given: Settings) -> None:
        super().__init__()
        self._given = given

    @property
    def settings(self) -> Settings:
        return self._given


@both
async def test_the_doctor_names_whose_key_it_is(
    pipeline: Assemble, settings: MakeSettings, database: str, code: str
) -> None:
    async with pipeline(**ON) as ready:
        await write(ready, people("192.0.2"))

    async def look_at(dsn: str) -> Finding:
        async with Given(settings(**ON, sink={"dsn": dsn})) as context:
            [finding] = await check_subject_keys(context)
        return finding

    assert (await look_at(database)).status == "ok"
    reference = damage(database, code)
    told = await look_at(database)
    assert told.status == "fail"
    assert told.detail == f"1 of 6 data keys does not open: subject {reference}"
    assert told.remedy
    with login_of(database, "sqs2pg_ingest") as conninfo:
        assert (await look_at(conninfo)).detail.startswith("not tried")
