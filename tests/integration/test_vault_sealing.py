"""Sealing on a real server: what a batch stores beside its rows, and what it never does."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from sqs2pg.mapping.native_encoder import NativeEncoder
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.runners.shared import Shared
from sqs2pg.settings import Settings
from tests import native
from tests.integration.support import Assemble, rows
from tests.integration.test_vault_rotation import assert_every_value_opens
from tests.integration.vault_support import message

ON = {"vault": {"enabled": True}}


async def process(ready: Pipeline, messages: Sequence[Message], sink: int = 0) -> list[Outcome]:
    return await ready.processors[sink].process(messages)


ALL_HASHES = "SELECT pii.stored(array_agg(subject)) FROM pii.subject_key"
VALUES = "SELECT field, token, count(*) FROM pii.value GROUP BY 1, 2 ORDER BY 1, 2"
COUNTS = """SELECT (SELECT count(*) FROM pii.subject_key), (SELECT count(*) FROM pii.value),
    (SELECT count(*) FROM user_logins)"""


async def test_each_distinct_value_is_stored_once_a_subject(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(**ON) as ready:
        batch = [message("ann"), message("ann", "::ffff:198.51.100.7"), message("bob")]
        assert await process(ready, batch) == [Outcome.WRITTEN] * 3
        assert (
            await process(ready, [message("ann"), message("bob", device="2")], sink=1)
            == [Outcome.WRITTEN] * 2
        )
    assert rows(database, COUNTS) == [(2, 5, 5)]
    tokens = rows(database, "SELECT masked_ip, masked_device_id FROM user_logins")
    assert {token for _, token, _ in rows(database, VALUES)} == {t for row in tokens for t in row}


async def test_known_values_cost_no_statement(pipeline: Assemble) -> None:
    async with pipeline(**ON) as ready:
        await process(ready, [message("ann"), message("bob")])
        session = ready.processors[0].sink.session
        before = session.statements
        await process(ready, [message("bob"), message("ann")])
        assert session.statements - before <= 9


async def nothing(*_arguments: Any) -> None:
    """Stands for what is not done."""


def vault_statements(ready: Pipeline) -> list[str]:
    """Return a list that gets the name of each function of the vault that a batch calls."""
    session, asked = ready.processors[0].sink.session, list[str]()
    execute = session.execute

    async def noting(statement: str, parameters: Any = None) -> Any:
        asked.extend(re.findall(r"pii\.(stored|missing|open_subjects|value)", statement))
        return await execute(statement, parameters)

    session.execute = noting  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("preloaded", [True, False])
async def test_people_who_come_back_are_asked_for_at_most_once(
    pipeline: Assemble,
    settings: Callable[..., Settings],
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    preloaded: bool,
) -> None:
    """The server's hashes are those of the C code: one query for all that a person has."""
    monkeypatch.setattr("sqs2pg.native.EXTENSION", native.extension())
    monkeypatch.setenv("SQS2PG_NATIVE", "1")
    if not preloaded:
        monkeypatch.setattr("sqs2pg.vault.seal.ValueSealer.preload", nothing)
    people = ["ann", "Bob", "x" * 100, *(f"u{i}" for i in range(20))]
    devices = ["1", "ü€", "d" * 40, "", "a\tb\\"]
    async with pipeline(**ON) as ready:
        known = [message(p, f"192.0.2.{n}", d) for p in people for n, d in enumerate(devices)]
        await process(ready, known)
    once = [] if preloaded else ["stored"]
    async with Pipeline(settings(**ON)) as fresh:
        asked = vault_statements(fresh)
        await process(fresh, [message(p, "192.0.2.1", devices[0]) for p in people])
        assert asked == once
        await process(fresh, [message(p, "192.0.2.0", d) for p in people for d in devices])
        assert asked == once
        await process(fresh, [message("ann", "192.0.2.77")])
        assert asked == [*once, "stored", "missing", "value"]
    assert rows(database, "SELECT count(*) FROM pii.value")[0][0] == 10 * len(people) + 1


async def test_of_a_person_with_many_values_none_is_stored_twice_or_lost(
    pipeline: Assemble,
    settings: Callable[..., Settings],
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a process learns at once has a bound: it asks for the others by name."""
    monkeypatch.setattr("sqs2pg.vault.seal.ValueSealer.preload", nothing)
    async with pipeline(**ON) as ready:
        await process(ready, [message("bot", f"192.0.2.{n}", "0") for n in range(150)])
    assert len(bytes(rows(database, ALL_HASHES)[0][0])) == 64 * 8
    async with Pipeline(settings(**ON)) as fresh:
        await process(fresh, [message("bot", f"192.0.2.{n}", "0") for n in range(160)])
    assert rows(database, COUNTS) == [(1, 161, 310)]
    assert assert_every_value_opens(settings(**ON), database) == 161


@pytest.mark.parametrize("pipelines", [1, 2])
async def test_the_only_pipeline_of_a_process_reads_ahead(
    pipeline: Assemble,
    settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    pipelines: int,
) -> None:
    async with pipeline(**ON):
        pass
    called: list[object] = []

    async def noting(*arguments: object) -> None:
        called.append(arguments)

    monkeypatch.setattr("sqs2pg.native.EXTENSION", native.extension())
    monkeypatch.setenv("SQS2PG_NATIVE", "1")
    monkeypatch.setattr("sqs2pg.vault.seal.ValueSealer.preload", noting)
    chosen = settings(**ON)
    shared = Shared(chosen.process, [chosen] * pipelines)
    try:
        async with Pipeline(chosen, shared=shared):
            assert len(called) == (pipelines == 1)
    finally:
        await shared.close()


@pytest.mark.parametrize("bits", [0, 4, 8])
async def test_slices_have_each_value_once(pipeline: Assemble, database: str, bits: int) -> None:
    async with pipeline(**ON) as ready:
        await process(ready, [message(f"u{n}", f"192.0.2.{n}", str(n)) for n in range(100)])
    slices = rows(
        database,
        f"SELECT pii.stored_slice(n, {bits}) FROM generate_series(0, {(1 << bits) - 1}) AS n",
    )
    [(everything,)] = rows(database, ALL_HASHES)
    hashes = [bytes(one)[at : at + 8] for (one,) in slices if one for at in range(0, len(one), 8)]
    assert len(hashes) == 200
    assert set(hashes) == {everything[at : at + 8] for at in range(0, 1600, 8)}
    for number, of in ((1 << bits, bits), (-1, bits), (0, 1), (0, 128)):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            rows(database, f"SELECT pii.stored_slice({number}, {of})")


async def test_what_a_transaction_stored_and_lost_is_stored_again(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(**ON) as ready:
        sink = ready.processors[0].sink
        commit, failures = getattr(sink, "_commit"), [1]  # noqa: B009  mypy has no such name

        async def failing(*arguments: Any, **named: Any) -> None:
            if failures:
                failures.clear()
                raise psycopg.errors.SerializationFailure
            await commit(*arguments, **named)

        setattr(sink, "_commit", failing)  # noqa: B010
        one = message("ann")
        assert await process(ready, [one]) == [Outcome.RELEASED]
        assert rows(database, COUNTS) == [(0, 0, 0)]
        assert await process(ready, [one]) == [Outcome.WRITTEN]
    assert rows(database, COUNTS) == [(1, 2, 1)]


async def test_without_the_vault_nothing_is_stored(pipeline: Assemble, database: str) -> None:
    async with pipeline() as ready:
        await process(ready, [message("ann")])
    assert rows(database, COUNTS) == [(0, 0, 1)]


async def test_slow_path_seals_what_is_written_and_nothing_else(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(**ON) as ready:
        rows(database, "ALTER TABLE user_logins ADD CHECK (locale <> 'XX')")
        first = message("ann")
        await process(ready, [first])
        batch = [first, message("bob", locale="XX"), message("eve", "192.0.2.1"), message("")]
        assert await process(ready, batch) == [
            Outcome.DUPLICATE,
            Outcome.QUARANTINED,
            Outcome.WRITTEN,
            Outcome.QUARANTINED,
        ]
    assert rows(database, COUNTS) == [(2, 4, 2)]


async def test_the_fast_path_seals_what_python_seals(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [message(f"u{i}", f"192.0.2.{i % 7}", str(i % 5)) for i in range(60)]
    odd = [message("Zoë"), message("u1", "::ffff:192.0.2.1"), message("", "192.0.2.9")]
    found = []
    monkeypatch.setenv("SQS2PG_NATIVE", "1")
    for extension in (native.extension(), None):
        monkeypatch.setattr("sqs2pg.native.EXTENSION", extension)
        async with pipeline(**ON) as ready:
            assert isinstance(ready.processors[0].plan.encoder, NativeEncoder) == (
                extension is not None
            )
            outcomes = await process(ready, [*batch[:30], *odd, *batch[30:]])
        assert outcomes.count(Outcome.WRITTEN) == 62
        found.append(rows(database, "SELECT subject, field, token FROM pii.value ORDER BY 1, 2, 3"))
        assert len(found[-1]) == 61 * 2
        if extension:
            # The same messages again, by Python, after an empty vault.
            rows(database, "TRUNCATE pii.value, pii.subject_key; DELETE FROM sqs2pg.delivery")
            rows(database, "TRUNCATE sqs2pg.tally, sqs2pg.quarantine, user_logins")
    assert found[0] == found[1]


async def test_a_value_stored_for_one_field_is_also_sealed_for_another(
    pipeline: Assemble, database: str
) -> None:
    secret = {"column": "ip", "mask": "pseudonymize", "kind": "ip", "recover": True}
    person = {"source": "user_id", "column": "user_id"}
    routes = [
        {
            "table": f"t_{source}",
            "when": {"field": "type", "equals": source},
            "field": [person, secret | {"source": source}],
        }
        for source in ("ip", "client_ip")
    ]
    async with pipeline(name="two", route=routes, **ON) as ready:
        for source in ("ip", "client_ip"):
            body = json.dumps({"type": source, "user_id": "ann", source: "192.0.2.1"})
            one = Message(str(uuid.uuid4()), "-", body, SystemAttributes(1_764_000_000_000))
            assert await process(ready, [one]) == [Outcome.WRITTEN]
    written = rows(
        database, "SELECT 'client_ip', ip FROM t_client_ip UNION SELECT 'ip', ip FROM t_ip"
    )
    assert len({token for _, token in written}) == 2
    assert rows(database, "SELECT field, token FROM pii.value ORDER BY 1") == sorted(written)


async def test_values_of_a_person_whom_another_process_gave_a_key_first_open_too(
    pipeline: Assemble, settings: Callable[..., Settings], database: str
) -> None:
    async with AsyncExitStack() as stack:
        ready = await stack.enter_async_context(pipeline(**ON))
        other = await stack.enter_async_context(Pipeline(settings(**ON)))
        session = ready.processors[0].sink.session
        execute, first = session.execute, [message("ann", "192.0.2.9"), message("bob")]

        async def second(statement: str, parameters: Any = None) -> Any:
            if "open_subjects" in statement and first:
                batch = [first.pop(), first.pop()]
                assert await process(other, batch) == [Outcome.WRITTEN] * 2
            return await execute(statement, parameters)

        session.execute = second  # type: ignore[method-assign]
        batch = [message("ann"), message("eve"), message("bob", device="2")]
        assert await process(ready, batch) == [Outcome.WRITTEN] * 3
        assert not first
        # What it remembers of them is the other's key.
        again = [message("ann", "192.0.2.10"), message("bob", "192.0.2.11")]
        assert await process(ready, again) == [Outcome.WRITTEN] * 2
    assert rows(database, COUNTS) == [(3, 10, 7)]
    assert assert_every_value_opens(settings(**ON), database) == 10


async def test_a_search_for_a_token_reads_few_of_many_values(
    pipeline: Assemble, database: str
) -> None:
    """What is vacuumed by the index's filters, and what is not yet one by one."""
    async with pipeline(**ON) as ready:
        await process(
            ready, [message(f"u{n}", f"198.51.100.{n % 200}", f"d{n}") for n in range(3_000)]
        )
        rows(database, "VACUUM ANALYZE pii.value")
        await process(ready, [message("late", "192.0.2.99", "late")])
        for person in ("u7", "late"):
            token = (
                "SELECT v.token FROM pii.value v JOIN user_logins u ON u.masked_device_id = v.token"
                f" WHERE u.user_id = '{person}'"
            )
            [(found,)] = rows(database, token)
            search = (
                "SELECT count(*) FROM pii.value"
                f" WHERE token = '{found}' AND token_hash = hashtextextended('{found}', 0)"
            )
            # Of so few pages a scan would be quicker.
            with psycopg.connect(database, options="-c enable_seqscan=off") as by_index:
                assert by_index.execute(search.encode()).fetchall() == [(1,)]
                plan = by_index.execute(f"EXPLAIN (COSTS OFF) {search}".encode()).fetchall()
            assert "Bitmap Index Scan on value_token" in "\n".join(line for (line,) in plan)
