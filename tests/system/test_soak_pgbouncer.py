"""The short soak through PgBouncer in transaction mode, with restarts of the server behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import SoakPlan, soak
from benchmarks.soak_faults import FaultPlan

pytestmark = pytest.mark.system


def test_nothing_is_lost_and_nothing_doubled(pgbouncer: str, cluster: Any, tmp_path: Path) -> None:
    faults = FaultPlan(kills=4, restarts=2, cuts=12, hangs=1, damages=1, erasures=2)
    plan = SoakPlan(3_000, seconds=20, faults=faults, seed=8, dsn=pgbouncer, logs=tmp_path / "logs")
    result, well = soak(plan, cluster.server)
    assert well
    assert (result.messages, result.lost, result.doubled) == (3_000, 0, 0)
    assert (result.kills, result.restarts, result.hangs) == (4, 2, 1)
    assert (result.erased_people, result.left_behind, result.ended) == (2, 0, 0)
    assert result.cuts >= 5, "connections were really cut"
