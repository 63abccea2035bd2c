"""The short soak through PgBouncer in transaction mode, with restarts of the server behind it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.soak import SoakPlan, soak

pytestmark = pytest.mark.system


def test_nothing_is_lost_and_nothing_doubled(pgbouncer: str, cluster: Any) -> None:
    def restart() -> None:
        cluster.server.stop("immediate")
        cluster.server.start()

    plan = SoakPlan(messages=3_000, seconds=20, kills=4, restarts=2, cuts=12, seed=8, dsn=pgbouncer)
    tally, well = soak(plan, restart)
    assert well
    assert (tally.messages, tally.lost, tally.doubled) == (3_000, 0, 0)
    assert (tally.kills, tally.restarts) == (4, 2)
    assert tally.cuts >= 5, "connections were really cut"
