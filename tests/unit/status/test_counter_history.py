"""The counts of workers that ended, were replaced or stopped answering."""

from __future__ import annotations

from operator import add

from sqs2pg.status.counter_history import CounterHistory
from sqs2pg.status.snapshot import Snapshot, StageTime, add_counts


def test_every_past_worker_counts_once() -> None:
    past: CounterHistory[int] = CounterHistory(add)
    assert past.update({"0": (1.0, 10), "1": (1.0, 20)}) == []
    assert past.update({"0": None, "1": (1.0, 21)}) == [10], "silent: its last counts stand"
    assert past.update({"0": (1.0, 12), "1": (1.0, 21)}) == [], "it answers again"
    assert past.update({"0": (2.0, 1), "1": (1.0, 22)}) == [12], "a new one in its place"
    assert past.update({"0": None, "1": None}) == [12, 1, 22]
    assert past.update({"0": (3.0, 5)}) == [12 + 1 + 22], "one more new, one ended"
    assert past.update({}) == [12 + 1 + 22 + 5]


def test_a_snapshot_takes_on_what_another_counted_and_none_of_its_gauges() -> None:
    to = Snapshot(
        1.0, 0.0, counts={"written": 1.0}, lag=[1.0, 2.0], stages={"mask": StageTime(1, 2)}
    )
    more = Snapshot(
        2.0,
        0.0,
        counts={"written": 2.0},
        faults={"mask bad_ip": 3.0},
        lag=[0.0, 4.0],
        stages={"mask": StageTime(3, 4)},
        gauges={"in_flight_messages": 7.0},
    )
    sums = add_counts(to, more)
    assert (sums.at, sums.counts, sums.faults) == (1.0, {"written": 3.0}, {"mask bad_ip": 3.0})
    assert (sums.lag, sums.stages, sums.gauges) == ([1.0, 6.0], {"mask": StageTime(4, 6)}, {})
    assert to.counts == {"written": 1.0}
