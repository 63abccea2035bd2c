"""SIGHUP under load: a running consumer takes new settings, or keeps the old ones."""

from __future__ import annotations

import json
import signal

import pytest

from tests.waiting import until

from .world import World, users

COUNT = 200
REFUSED, IN_FORCE = "new settings are refused", "settings are in force"


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_takes_settings_that_are_right_and_keeps_the_old_ones_otherwise(
    world: World, workers: int
) -> None:
    file = world.folder / "sqs2pg.toml"
    file.write_text("[sink]\nlinger_ms = 20\n")
    process = world.spawn("-c", str(file), "--workers", str(workers))
    log = world.stderr_of(0)
    serving = 1 if workers == 1 else 1 + workers  # the parent has a status of its own
    await until(lambda: log.read_text().count('"event": "status"') == serving)

    async def told(text: str, times: int) -> None:
        process.send_signal(signal.SIGHUP)
        await until(lambda: log.read_text().count(text) == times * workers)

    world.send_logins(users(COUNT))
    await world.deleted(1)
    for times, wrong in enumerate(
        ["no TOML", "[sink]\nlinger = 20\n", '[sink]\ntable = "not_there"\n'], start=1
    ):
        file.write_text(wrong)
        await told(REFUSED, times)
    world.send_logins(users(COUNT, "late"))
    file.write_text("[sink]\nlinger_ms = 30\nconnections = 1\n")
    await told(IN_FORCE, 1)
    world.send_logins(users(COUNT, "last"))
    await world.deleted(3 * COUNT)
    process.terminate()
    totals = world.finish(process)
    assert totals["written"] == 3 * COUNT, "of both pipelines"
    refused = [json.loads(line) for line in log.read_text().splitlines() if REFUSED in line]
    assert {line["level"] for line in refused} == {"error"}
    assert sorted(line["code"] for line in refused) == sorted(
        ["settings", "unknown_setting", "migrate"] * workers
    )
    assert all(line["hint"] for line in refused), "each says what is wrong"
    await world.check([*users(COUNT), *users(COUNT, "late"), *users(COUNT, "last")])
