"""`check` runs all of its checks, whatever happens in one of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest

from sqs2pg.cli.doctor.check_basics import check_settings
from sqs2pg.cli.doctor.check_keys import check_keys
from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.finding import DoctorCheck, Finding, fail, ok, warn
from sqs2pg.cli.doctor.runner import run
from sqs2pg.errors import FatalFault

CANARY = "canary-7f3a"


async def fine(_context: Context) -> Finding:
    return ok("fine", "as it should be")


async def several(_context: Context) -> list[Finding]:
    return [warn("one", "odd", "look"), fail("two", "broken", "mend")]


async def refused(_context: Context) -> NoReturn:
    raise FatalFault("the door is shut", code="shut", hint="knock")


async def unforeseen(_context: Context) -> NoReturn:
    raise ValueError(CANARY)


async def stuck(_context: Context) -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


async def not_made(_context: Context) -> NoReturn:
    raise NotChecked("something else is missing")


async def findings(*checks: DoctorCheck) -> list[Finding]:
    async with Context() as context:
        return [finding async for finding in run(checks, context)]


async def test_each_check_is_made_whatever_the_others_found() -> None:
    found = await findings(
        DoctorCheck("refused", refused),
        DoctorCheck("unforeseen", unforeseen),
        DoctorCheck("stuck", stuck, limit_s=0.05),
        DoctorCheck("not made", not_made),
        DoctorCheck("several", several),
        DoctorCheck("fine", fine),
    )
    assert [(f.name, f.status) for f in found] == [
        ("refused", "fail"),
        ("unforeseen", "fail"),
        ("stuck", "fail"),
        ("not made", "warn"),
        ("one", "warn"),
        ("two", "fail"),
        ("fine", "ok"),
    ]
    assert (found[0].detail, found[0].remedy) == ("the door is shut", "knock")
    assert found[1].detail == "the check itself failed: ValueError"
    assert "within 0.05 s" in found[2].detail
    assert found[3].detail == "not checked: something else is missing"
    assert all(f.remedy for f in found if f.status != "ok")
    assert CANARY not in f"{found}"


async def test_wrong_settings_are_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "sqs2pg.toml"
    file.write_text("[source]\nqueeu = 'a'\n")
    async with Context(file) as context:
        checks = [DoctorCheck("settings", check_settings), DoctorCheck("keys", check_keys)]
        found = [finding async for finding in run(checks, context)]
    assert [(f.name, f.status) for f in found] == [("settings", "fail"), ("keys", "warn")]
    assert "did you mean source.queue?" in found[0].remedy
    assert found[1].detail == "not checked: the settings could not be read"
