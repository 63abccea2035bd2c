"""Running a command's coroutine: what Ctrl-C does to it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
import uvloop

from sqs2pg.cli.options import run_async


def test_ctrl_c_while_the_loop_is_made_leaves_no_open_loop(monkeypatch: Any) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    ran: list[str] = []
    make_loop = uvloop.new_event_loop

    def make_interrupted() -> asyncio.AbstractEventLoop:
        loops.append(make_loop())
        os.kill(os.getpid(), signal.SIGINT)
        return loops[0]

    async def work() -> None:
        await asyncio.sleep(0)
        ran.append("to its end")

    monkeypatch.setattr(uvloop, "new_event_loop", make_interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_async(work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert loops[0].is_closed()
    assert not ran
