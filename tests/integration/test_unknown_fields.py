"""Drift as a report: what messages had that no mapping names, on the page and in `check`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sqs2pg.cli.doctor.check_unknown_fields import check_unknown_fields, suggest_fields
from sqs2pg.cli.doctor.context import Context
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.unknown_fields import PATHS_MAX, UnknownField, UnknownFieldRegistry
from tests.integration.support import Assemble, rows, send
from tests.logins import login

EXTRA = {"plan": "gold", "score": 7, "contact_email": "canary@example.org", "seen": None}
RECORDED = "SELECT path, type, seen FROM sqs2pg.unknown_field ORDER BY path, type"


async def drained(pipeline: Assemble, *, names: bool) -> list[UnknownField]:
    """Send ten messages, four with more than the mapping names; return what the page has."""
    async with pipeline(report_unknown=names) as ready:
        await send(ready, [login(i, **(EXTRA if i < 4 else {})) for i in range(10)])
        await ready.consumer.run(drain_settle_s=0.5)
        await ready.probes.read_database()
        found = ready.snapshot().unknown
        value = ready.metrics.registry.get_sample_value
        assert value("sqs2pg_fields_unknown_total", {"type": "text"}) == 8
        assert value("sqs2pg_fields_unknown_total", {"type": "number"}) == 4
    return found


async def test_names_are_recorded_where_the_settings_say_so(
    pipeline: Assemble, database: str
) -> None:
    found = await drained(pipeline, names=True)
    types = ("text", "number", "text", "null")
    expected = {(name, type_) for name, type_ in zip(EXTRA, types, strict=True)}
    assert {(one.path, one.type, one.seen) for one in found} == {(*one, 4) for one in expected}
    assert len(rows(database, RECORDED)) == 4
    assert "canary" not in str(rows(database, "SELECT u::text FROM sqs2pg.unknown_field u"))


async def test_without_the_setting_only_types_are_recorded(
    pipeline: Assemble, database: str
) -> None:
    await drained(pipeline, names=False)
    assert rows(database, RECORDED) == [("", "null", 4), ("", "number", 4), ("", "text", 8)]


@pytest.mark.parametrize("names", [True, False])
async def test_check_reports_them_with_the_lines_to_add(
    pipeline: Assemble, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: bool
) -> None:
    await drained(pipeline, names=names)
    file = tmp_path / "sqs2pg.toml"
    file.write_text(f"report_unknown = {str(names).lower()}\n")
    monkeypatch.setenv("DATABASE_URL", database)
    async with Context(file) as context:
        context.load_settings()
        [finding] = await check_unknown_fields(context)
    assert finding.status == "warn"
    if not names:
        assert "report_unknown = true" in finding.remedy
        assert "plan" not in finding.detail
        return
    assert "score number 4" in finding.detail
    fields = tomllib.loads(finding.remedy.partition("\n")[2])["field"]
    assert {one["source"]: one.get("mask", "kept") for one in fields} == {
        "plan": "kept", "score": "kept", "contact_email": "pseudonymize", "seen": "kept",
    }  # fmt: skip
    assert next(one for one in fields if one["source"] == "score")["type"] == "numeric"
    # What is mapped by now is not reported any more.
    text = finding.remedy.partition("\n")[2]
    file.write_text(f'name = "user_logins"\nreport_unknown = true\n{text}')
    async with Context(file) as context:
        context.load_settings()
        [finding] = await check_unknown_fields(context)
    assert (finding.status, finding.detail) == ("ok", "none was seen")


async def test_the_record_is_bounded_and_forgets_earlier_mappings(
    migrated_database: str,
) -> None:
    session = await Session.connect(migrated_database)
    registry = UnknownFieldRegistry(1, "now", names=True)
    many = {(f"n{i}", "text"): 1 for i in range(PATHS_MAX + 50)}
    await UnknownFieldRegistry(1, "before", names=True).add(session, {("old", "text"): 1})
    await session.execute("UPDATE sqs2pg.unknown_field SET last_at = now() - interval '2 days'")
    await registry.add(session, many)
    await registry.add(session, {("n0", "text"): 5, ("late", "number"): 1})
    found = {(path, type_): seen for path, type_, seen in rows(migrated_database, RECORDED)}
    await session.close()
    assert found["n0", "text"] == 6
    assert found["", "text"] == 50
    assert found["", "number"] == 1
    assert len(found) == PATHS_MAX + 2
    assert ("old", "text") not in found


def test_the_lines_are_settings() -> None:
    found = [
        UnknownField("a.b", "text", 1, 0), UnknownField("a.b", "number", 1, 0),
        UnknownField("['x.y']", "boolean", 1, 0), UnknownField("items[].password", "text", 1, 0),
        UnknownField("geo.lat", "number", 1, 0),
    ]  # fmt: skip
    assert tomllib.loads(suggest_fields(found, routed=False))["field"] == [
        {"source": "a.b", "column": "a_b", "type": "jsonb"},
        {"source": "['x.y']", "column": "x_y", "type": "boolean"},
        {"source": "items[].password", "mask": "drop"},
        {"source": "geo.lat", "mask": "drop"},
    ]
    assert "[[route.field]]" in suggest_fields(found, routed=True)
