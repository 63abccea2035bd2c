"""Polling waits for what another task, process or server brings about."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
import urllib.request
from collections.abc import Callable
from typing import Any

WAIT_S = 120.0
"""The longest wait: only a test that fails waits so long, on a machine that does much else."""
_PAUSE_S = 0.02
_PAUSE_S_MAX = 0.2
_SHARE = 8
"""A pause is so many times as long as the look before it, which may be a connection of its own."""
BLOCKED = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'"""
"""How many sessions of this database wait for a lock."""


async def until(
    holds: Callable[[], Any], seconds: float = WAIT_S, *, during: asyncio.Task[Any] | None = None
) -> None:
    """Return once `holds()` is true. Fails after `seconds`, or when the task `during` ends."""
    async with asyncio.timeout(seconds):
        looked_at = time.monotonic()
        while not holds():
            assert during is None or not during.done(), during.exception()
            await asyncio.sleep(_pause_since(looked_at))
            looked_at = time.monotonic()


def wait_until(
    holds: Callable[[], Any],
    seconds: float = WAIT_S,
    *,
    during: subprocess.Popen[Any] | None = None,
) -> None:
    """Return once `holds()` is true. Fails after `seconds`, or when the process `during` ends."""
    looked_at = time.monotonic()
    deadline = looked_at + seconds
    while not holds():
        assert during is None or during.poll() is None, f"ended: {during.communicate()}"
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {seconds:g} s")
        time.sleep(_pause_since(looked_at))
        looked_at = time.monotonic()


def _pause_since(looked_at: float) -> float:
    """Return how long to wait after a look that began then."""
    return min(max(_PAUSE_S, (time.monotonic() - looked_at) * _SHARE), _PAUSE_S_MAX)


def answer_of(url: str, **headers: str) -> str | None:
    """The text at `url`; None while there is no answer, or an error."""
    request = urllib.request.Request(url, headers=headers)
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())
    return None


def wait_for_answer(url: str, enough: Callable[[str], bool], **headers: str) -> str:
    """Ask `url` until its answer is the expected one; return it."""
    answers: list[str] = []

    def answered() -> bool:
        answer = answer_of(url, **headers)
        answers.append(answer or "")
        return answer is not None and enough(answer)

    wait_until(answered)
    return answers[-1]
