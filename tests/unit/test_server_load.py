"""Whether the local queue server is noticed as the limit."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from sqs2pg.cli.embedded import server_load
from sqs2pg.cli.embedded.server_load import Load, busy_seconds, telling_of_limit


@pytest.mark.parametrize(
    ("server", "ours", "limit"),
    [
        (0.97, 0.05, True),
        (0.75, 0.2, True),
        (1.4, 0.6, False),
        (0.5, 0.01, False),
        (0.0, 0.0, False),
    ],
)
def test_a_server_is_the_limit_if_it_is_busy_and_we_wait(
    server: float, ours: float, limit: bool
) -> None:
    assert Load(server, ours).server_is_limit is limit


async def test_it_is_told_once_and_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = 0.0, asyncio.Event()
    loads: list[Load] = []

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    def tell(load: Load) -> None:
        loads.append(load)
        told.set()

    async def work() -> int:
        await asyncio.wait_for(told.wait(), 10)
        for _ in range(20):
            await asyncio.sleep(0)
        return 7

    monkeypatch.setattr(server_load.time, "monotonic", clock)
    waiting = iter([False, False])

    async def wait_after_two() -> bool:
        return next(waiting, True)

    busy = telling_of_limit(
        work(),
        1,
        tell,
        wait_after_two,
        every_s=0.0,
        busy_s=lambda pid: 0.9 * now if pid == 1 else 0.0,
    )
    assert await busy == 7
    assert loads == [Load(pytest.approx(0.9), 0.0)]


async def test_a_busy_server_is_no_limit_where_nothing_waits() -> None:
    asked, now = asyncio.Event(), 0.0

    async def nothing_waits() -> bool:
        asked.set()
        return False

    def busy_s(pid: int) -> float:
        nonlocal now
        now += 1.0
        return now if pid == 1 else 0.0

    async def work() -> int:
        await asyncio.wait_for(asked.wait(), 10)
        for _ in range(20):
            await asyncio.sleep(0)
        return 7

    said = telling_of_limit(
        work(), 1, lambda _: pytest.fail("told"), nothing_waits, every_s=0.0, busy_s=busy_s
    )
    assert await said == 7


async def test_where_the_system_does_not_say_nothing_is_told() -> None:
    async def work() -> int:
        for _ in range(20):
            await asyncio.sleep(0)
        return 7

    async def asked() -> bool:
        pytest.fail("asked")

    said = telling_of_limit(
        work(), 1, lambda _: pytest.fail("told"), asked, every_s=0.0, busy_s=lambda _: None
    )
    assert await said == 7


def test_the_time_at_work_of_a_process_is_read_and_of_one_that_has_ended_not() -> None:
    mine = busy_seconds(os.getpid())
    assert mine is not None
    assert mine > 0
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert busy_seconds(gone.pid) is None
