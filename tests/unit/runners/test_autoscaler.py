"""How many consumers a backlog needs."""

from __future__ import annotations

from sqs2pg.runners.autoscaler import Load, Scaler


def follow(scaler: Scaler, readings: list[tuple[int, int, float]], running: int) -> list[int]:
    """Give readings (backlog, settled by all, at); each answer is followed at once."""
    answers = []
    before: tuple[int, float] | None = None
    for backlog, settled, at_s in readings:
        rate = None
        if before is not None and at_s > before[1]:
            rate = (settled - before[0]) / (at_s - before[1]) / running
        running = scaler.wanted(Load(backlog, rate, at_s, running), running)
        answers.append(running)
        before = settled, at_s
    return answers


def test_scaling_starts_at_the_minimum_or_at_one_if_there_is_work() -> None:
    assert follow(Scaler(least=0, most=8, catch_up_s=10), [(0, 0, 0)], 0) == [0]
    assert follow(Scaler(least=0, most=8, catch_up_s=10), [(5, 0, 0)], 0) == [1]
    assert follow(Scaler(least=3, most=8, catch_up_s=10), [(0, 0, 0)], 0) == [3]


def test_scaling_grows_to_what_the_measured_rate_needs_but_at_most_doubles() -> None:
    scaler = Scaler(least=1, most=100, catch_up_s=10)
    # One consumer settles 100 per second and 9,000 are left: nine consumers for ten seconds.
    answers = follow(scaler, [(10_000, 0, 0), (9_900, 100, 1), (9_700, 300, 2)], 1)
    assert answers == [1, 2, 4]
    assert scaler.rate == 100
    assert follow(scaler, [(9_000, 700, 3), (8_000, 1_500, 4)], 4) == [8, 8]


def test_scaling_stays_within_its_bounds() -> None:
    scaler = Scaler(least=2, most=3, catch_up_s=1)
    assert follow(scaler, [(10**9, 0, 0), (10**9, 10, 1), (10**9, 20, 2)], 2) == [2, 3, 3]
    assert follow(scaler, [(0, 20, 3), (0, 20, 99), (0, 20, 999), (0, 20, 9_999)], 3) == [
        3,
        2,
        2,
        2,
    ]


def test_scaling_shrinks_one_at_a_time_and_only_after_a_quiet_period() -> None:
    scaler = Scaler(least=1, most=8, catch_up_s=10, quiet_s=5)
    follow(scaler, [(8_000, 0, 0), (8_000, 400, 1)], 4)
    answers = follow(scaler, [(0, 8_000, t) for t in range(10, 22)], 4)
    assert answers == [4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 2, 2]


def test_a_burst_in_the_quiet_begins_the_quiet_anew() -> None:
    scaler = Scaler(least=1, most=4, catch_up_s=10, quiet_s=3)
    follow(scaler, [(4_000, 0, 0), (4_000, 400, 1)], 4)
    readings = [(0, 400, 2), (0, 400, 4), (4_000, 400, 4.5), (0, 400, 5), (0, 400, 7), (0, 400, 8)]
    assert follow(scaler, readings, 4) == [4, 4, 4, 4, 4, 3]


def test_idle_consumers_are_not_taken_for_slow_ones() -> None:
    scaler = Scaler(least=1, most=8, catch_up_s=10)
    follow(scaler, [(10_000, 0, 0), (10_000, 400, 1)], 4)
    assert scaler.rate == 100
    # Ten messages per second come in and are settled at once.
    follow(scaler, [(0, 400 + 10 * t, 1 + t) for t in range(1, 60)], 4)
    assert scaler.rate == 100


def test_scaling_without_a_new_rate_uses_the_last_one() -> None:
    scaler = Scaler(least=1, most=8, catch_up_s=10)
    # No consumer has answered twice yet; later none answers in time: the last rate stays in use.
    assert scaler.wanted(Load(10_000, None, 1, 0), 1) == 1
    assert scaler.wanted(Load(10_000, 100.0, 2, 1), 1) == 2
    assert scaler.wanted(Load(10_000, None, 3, 2), 2) == 4
    assert scaler.rate == 100


def test_consumers_that_really_became_slow_are_noticed() -> None:
    scaler = Scaler(least=1, most=4, catch_up_s=10)
    follow(scaler, [(10_000, 0, 0), (10_000, 400, 1)], 4)
    follow(scaler, [(10_000, 400 + 40 * t, 1 + t) for t in range(1, 20)], 4)
    assert 9 < scaler.rate < 12


def test_a_paused_pipeline_is_not_scaled_and_its_rest_does_not_count_as_slow() -> None:
    scaler = Scaler(least=1, most=8, catch_up_s=10, quiet_s=5)
    follow(scaler, [(1_000, 0, 0), (900, 100, 1)], 1)
    rate = scaler.rate
    assert rate == 100
    for at_s in range(2, 60):
        assert scaler.wanted(Load(10**6, 0.0, at_s, 2, paused=True), 2) == 2
    assert scaler.rate == rate
    assert scaler.wanted(Load(10**6, None, 60, 2), 2) == 4
