"""The soak in its short form: `make soak` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import SoakPlan, soak
from benchmarks.soak_faults import FaultPlan


@pytest.mark.long
@pytest.mark.parametrize("state", [False, True])
def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path, *, state: bool) -> None:
    """With a state table beside the log, too: it ends as a model that sorts by version says."""
    faults = FaultPlan(kills=4, restarts=2, cuts=12, hangs=1, damages=1, erasures=2)
    plan = SoakPlan(3_000, seconds=12, faults=faults, seed=7, logs=tmp_path / "logs", state=state)
    result, well = soak(plan)
    assert well
    assert (result.messages, result.lost, result.doubled) == (3_000, 0, 0)
    assert (result.kills, result.restarts, result.hangs) == (4, 2, 1)
    assert (result.erased_people, result.left_behind, result.ended) == (2, 0, 0)
    assert result.state_differs == 0
    assert (result.state_rows > 0, result.state_deleted > 0) == (state, state)
    assert result.cuts >= 5, "connections were really cut"
    assert len(list(plan.logs.iterdir())) == 8, "each consumer keeps its log"
