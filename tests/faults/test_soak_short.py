"""The soak in its short form: `make soak` runs the long one."""

from __future__ import annotations

from benchmarks.soak import SoakPlan, soak


def test_nothing_is_lost_and_nothing_doubled() -> None:
    plan = SoakPlan(messages=3_000, seconds=12, kills=4, restarts=2, cuts=12, seed=7)
    tally, well = soak(plan)
    assert well
    assert (tally.messages, tally.lost, tally.doubled) == (3_000, 0, 0)
    assert tally.kills == 4
    assert tally.restarts == 2
    assert tally.cuts >= 5, "connections were really cut"
