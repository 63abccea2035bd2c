"""What the periodic readings make of their answers."""

from __future__ import annotations

import inspect
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sqs2pg.settings import Settings
from sqs2pg.status import probes
from sqs2pg.status.probes import ANSWER_S, ProbeResults, Probes
from sqs2pg.telemetry.liveness import Liveness, ReadinessCheck
from sqs2pg.telemetry.metrics import Metrics

NOW = 1_800_000_000.0


class Queue:
    """A queue with as many messages as one says: visible, in flight and delayed."""

    queue_url = "https://sqs.eu-central-1.amazonaws.com/1/q"

    def __init__(self) -> None:
        self.holds = (0, 0, 0)

    async def depth(self) -> tuple[int, int, int]:
        return self.holds


@pytest.mark.parametrize(
    ("holds", "age_s"), [((7, 0, 0), 40.0), ((0, 3, 0), 40.0), ((0, 0, 5), 0.0), ((0, 0, 0), 0.0)]
)
async def test_no_message_is_older_than_the_time_since_the_queue_was_empty(
    holds: tuple[int, int, int], age_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(time=lambda: NOW, monotonic=time.monotonic)
    monkeypatch.setattr(probes, "time", clock)
    metrics, queue = Metrics(), Queue()
    given = dict.fromkeys(inspect.signature(Probes).parameters) | {
        "source": queue,
        "metrics": metrics,
        "liveness": Liveness(Settings()),
        "counts": SimpleNamespace(received=0),
        "every_s": 5.0,
        "cloudwatch": False,
    }
    made = Probes(**cast("Any", given))

    def age() -> float | None:
        return metrics.registry.get_sample_value("sqs2pg_queue_oldest_age_seconds")

    metrics.oldest_sent_ms = int((NOW - 3_600) * 1000)  # of a batch that is written
    await made.read_queue()
    assert age() == 0
    clock.time = lambda: NOW + 40
    queue.holds = holds
    await made.read_queue()
    assert age() == age_s
    clock.time = lambda: NOW + 60
    queue.holds = (1, 0, 0)
    await made.read_queue()
    assert age() == (60.0 if age_s else 20.0)


@pytest.mark.parametrize(
    ("ok", "asked_ago_s", "paused", "expected"),
    [
        (True, 0.0, False, (True, "")),
        (True, ANSWER_S + 1, False, (False, "it does not answer")),
        (True, 0.0, True, (False, "writes fail; messages are held")),
        (False, 0.0, False, (False, "no such role")),
        (False, ANSWER_S + 1, True, (False, "no such role")),
    ],
)
def test_a_database_is_ready_that_answers_in_time_and_takes_writes(
    ok: bool, asked_ago_s: float, paused: bool, expected: tuple[bool, str]
) -> None:
    results = ProbeResults()
    results.database = ReadinessCheck(ok=ok, detail="" if ok else "no such role")
    results.database_asked_at = time.monotonic() - asked_ago_s
    found = results.checks(paused=paused)["database"]
    assert (found.ok, found.detail) == expected
