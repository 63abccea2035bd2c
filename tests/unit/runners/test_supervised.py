"""A supervised pipeline and what happens while it opens."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sqs2pg.runners import supervised
from sqs2pg.runners.supervised import Supervised
from sqs2pg.settings import Settings, load


class Opening:
    """Stands for ReloadingPipeline: opens once it is let."""

    def __init__(self, settings: Settings, *_: Any, **__: Any) -> None:
        self.settings = settings
        self.begun, self.let = asyncio.Event(), asyncio.Event()
        self.reloads = 0
        made.append(self)

    async def __aenter__(self) -> None:
        self.begun.set()
        await self.let.wait()

    async def __aexit__(self, *_: object) -> None:
        pass

    def request_reload(self) -> None:
        self.reloads += 1


made: list[Opening] = []


@pytest.mark.parametrize("changed", [True, False])
async def test_settings_that_come_while_it_opens_are_followed(
    monkeypatch: pytest.MonkeyPatch, *, changed: bool
) -> None:
    made.clear()
    monkeypatch.setattr(supervised, "ReloadingPipeline", Opening)
    old = load(environ={}, discover=False)
    new = msgspec.structs.replace(old, shutdown_grace_s=7)
    shared: Any = None
    member = Supervised(old, shared, alone=False, refused=lambda *_: None, opened=lambda _: None)
    opening = asyncio.create_task(member.open())
    while not made:
        await asyncio.sleep(0)
    await made[0].begun.wait()
    if changed:
        member.follow(new)
    made[0].let.set()
    await opening
    assert made[0].settings == old
    assert made[0].reloads == (1 if changed else 0)
