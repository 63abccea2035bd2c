"""The soak in its short form: `make soak` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import SoakPlan, soak
from benchmarks.soak_faults import FaultPlan

FAULTS = FaultPlan(kills=4, restarts=2, cuts=12, hangs=1, damages=1, erasures=2)
FEWER = FaultPlan(kills=2, restarts=1, cuts=6, hangs=1, damages=1, erasures=1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("state", "messages", "seconds", "faults"),
    [
        pytest.param(False, 1_500, 6, FEWER, id="a log"),
        pytest.param(True, 3_000, 12, FAULTS, id="a log and a state table"),
    ],
)
def test_nothing_is_lost_and_nothing_doubled(
    tmp_path: Path, *, state: bool, messages: int, seconds: float, faults: FaultPlan
) -> None:
    """With a state table beside the log, too: it ends as a model that sorts by version says."""
    plan = SoakPlan(
        messages, seconds=seconds, faults=faults, seed=7, logs=tmp_path / "logs", state=state
    )
    result, well = soak(plan)
    assert well
    assert (result.messages, result.lost, result.doubled) == (messages, 0, 0)
    assert (result.kills, result.restarts) == (faults.kills, faults.restarts)
    assert (result.hangs, result.erased_people) == (faults.hangs, faults.erasures)
    assert (result.left_behind, result.ended) == (0, 0)
    assert result.state_differs == 0
    assert (result.state_rows > 0, result.state_deleted > 0) == (state, state)
    assert result.cuts >= 5 * faults.cuts // 12, "connections were really cut"
    consumers = len(list(plan.logs.iterdir()))
    assert consumers == 4 + faults.kills, "each consumer keeps its log"
