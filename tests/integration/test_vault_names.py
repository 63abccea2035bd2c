"""People whose id column has another type than text: erased, revealed, or refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sqs2pg.cli import forget as forget_command
from sqs2pg.cli import reveal as reveal_command
from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration.support import rows
from tests.integration.vault_support import ON, message, write

MakeSettings = Callable[..., Settings]
ANN, BOB = "018bcfe5-6c3a-7d2b-8e4f-0123456789ab", "018bcfe5-6c3a-7d2b-8e4f-0123456789cd"
IP = {"source": "ip", "column": "ip", "mask": "pseudonymize", "kind": "ip", "recover": True}


def mapped(settings: MakeSettings, **who: Any) -> Settings:
    subject = {"source": "user_id", "column": "who", "required": True} | who
    return settings(**ON, field=[subject, IP], sink={"table": "logins"})


async def prepare(chosen: Settings) -> None:
    session = await connect(chosen)
    try:
        await migrate(session, chosen)
    finally:
        await session.close()


async def erase(chosen: Settings, name: str, *, delete_rows: bool = False) -> Any:
    work = forget_command.erase_people(chosen, [name], "a test", "", delete_rows=delete_rows)
    return (await work).report


async def value_of(chosen: Settings, name: str) -> str:
    [found] = await reveal_command.reveal_values(chosen, None, name, 5, "a test", "")
    return found.value


@pytest.mark.parametrize("delete", [False, True], ids=["clear", "delete"])
@pytest.mark.parametrize(
    ("kind", "theirs", "other", "named"),
    [
        ("char(36)", ANN, BOB, "text"),
        ("char(40)", ANN, BOB, "uuid"),
        ("varchar(36)", ANN, BOB, "text"),
        ("name", "ann", "bob", "text"),
        ("person", "ann", "bob", "text"),
        ("number", 70, 71, "integer"),
        ("numeric(5)", 70, 71, "integer"),
        ("smallint", 70, 71, "integer"),
        ("bigint", 2**40, 71, "bigint"),
        ("text", 70, 71, "bigint"),
        ("integer", "70", "71", "text"),
        ("uuid", ANN, BOB, "uuid"),
    ],
)
async def test_a_person_is_erased_whatever_holds_the_name(
    settings: MakeSettings,
    database: str,
    kind: str,
    theirs: Any,
    other: Any,
    named: str,
    delete: bool,
) -> None:
    rows(
        database,
        "CREATE DOMAIN person AS varchar(40) NOT NULL; CREATE DOMAIN number AS integer;"
        f"CREATE TABLE logins (who {kind} NOT NULL, ip text)",
    )
    chosen = mapped(settings, type=named)
    await prepare(chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, [message(theirs), message(theirs, "192.0.2.1"), message(other)])
    name = str(theirs)
    assert len(await reveal_command.reveal_values(chosen, None, name, 5, "a test", "")) == 2
    report = await erase(chosen, name, delete_rows=delete)
    assert (report.keys_destroyed, report.rows_changed + report.rows_deleted) == (1, 2)
    left = rows(database, "SELECT trim(who::text), ip FROM logins ORDER BY ip")
    assert left[0][0] == str(other)
    assert len(left) == (1 if delete else 3)
    for who, ip in left[1:]:
        assert who not in (name, str(other))
        assert ip is None
    assert await value_of(chosen, str(other)) == "198.51.100.7"


REFUSED = {
    "inet": ("198.51.100.7", "text"),
    "cidr": ("198.51.100.7", "text"),
    "date": ("2024-05-06", "date"),
    "timestamptz": ("2024-05-06T00:00:00Z", "timestamptz"),
    "boolean": (True, "boolean"),
    "jsonb": ("ann", "text"),
    "double precision": (1.5, "double"),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_column_that_cannot_hold_a_random_id_is_refused(
    settings: MakeSettings, database: str, kind: str
) -> None:
    name, named = REFUSED[kind]
    chosen = mapped(settings, type=named)
    rows(database, "CREATE TABLE logins (who text NOT NULL, ip text)")
    await prepare(chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, [message(name)])
    rows(database, f"DROP TABLE logins; CREATE TABLE logins (who {kind} NOT NULL, ip text)")
    for step in (prepare, _start, lambda chosen: erase(chosen, json.dumps(name).strip('"'))):
        with pytest.raises(SettingsError, match="could not replace the id") as refused:
            await step(chosen)
        assert refused.value.code == "subject_column"
        assert "'who'" in refused.value.what
        assert refused.value.hint
    # Refused before anything is destroyed.
    assert rows(database, "SELECT count(*) FROM pii.subject_key WHERE destroyed_at IS NULL") == [
        (1,)
    ]


async def _start(chosen: Settings) -> None:
    async with Pipeline(chosen):
        pass


async def test_text_in_a_uuid_column_is_refused_since_it_has_several_spellings(
    settings: MakeSettings, database: str
) -> None:
    rows(database, "CREATE TABLE logins (who uuid NOT NULL, ip text)")
    with pytest.raises(SettingsError, match="one spelling of an id") as refused:
        await prepare(mapped(settings))
    assert refused.value.code == "subject_column"
    assert 'type = "uuid"' in refused.value.hint
    chosen = mapped(settings, type="uuid")
    await prepare(chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, [message(ANN.upper()), message(ANN, "192.0.2.1"), message(BOB)])
    for name in (ANN, ANN.upper()):
        assert len(await reveal_command.reveal_values(chosen, None, name, 5, "a test", "")) == 2
    report = await erase(chosen, ANN.upper())
    assert (report.keys_destroyed, report.rows_changed) == (1, 2)
    left = {who for (who,) in rows(database, "SELECT who FROM logins")}
    assert uuid.UUID(ANN) not in left
    assert uuid.UUID(BOB) in left


@pytest.mark.parametrize(
    ("kind", "mask", "spellings", "asked", "other"),
    [
        ("email", "pseudonymize", ["Ann@Example.com", "ann@example.com"], "ANN@EXAMPLE.COM", "b@c"),
        ("email", "encrypt_deterministic", ["Ann@x.de", "ann@x.de"], "ANN@x.de", "b@c"),
        ("phone", "fpe_ff1", ["+49 30 1234567", "(4930) 1234567"], "49301234567", "49301234568"),
        ("uuid", "pseudonymize", [ANN.upper(), "{" + ANN + "}"], ANN, BOB),
        ("text", "pseudonymize", ["\u00e9va", "e\u0301va"], "\u00e9va", "Eva"),
        ("text", "sha256", ["\u00e9va", "e\u0301va"], "\u00e9va", "Eva"),
    ],
)
async def test_all_spellings_that_have_one_mask_are_one_person(
    settings: MakeSettings, kind: str, mask: str, spellings: list[str], asked: str, other: str
) -> None:
    subject = {"source": "user_id", "column": "who", "mask": mask, "kind": kind}
    chosen = settings(**ON, field=[subject, IP], sink={"table": "logins"}, i_accept_reversible=True)
    await prepare(chosen)
    async with Pipeline(chosen) as ready:
        named = [*spellings, other]
        await write(ready, [message(name, f"10.0.0.{n}") for n, name in enumerate(named)])
    [(people,)] = rows(chosen.sink.dsn, "SELECT count(*) FROM pii.subject_key")
    assert people == 2
    found = await reveal_command.reveal_values(chosen, None, asked, 5, "a test", "")
    assert {one.value for one in found} == {"10.0.0.0", "10.0.0.1"}

    report = await erase(chosen, asked)
    assert (report.keys_destroyed, report.values_removed, report.rows_changed) == (1, 2, 2)
    with pytest.raises(Sqs2pgError) as refused:
        await value_of(chosen, spellings[0])
    assert refused.value.code == "erased"
    assert await value_of(chosen, other) == "10.0.0.2"
