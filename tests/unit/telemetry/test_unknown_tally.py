"""The tally of unknown fields is bounded, and what is taken is not counted twice."""

from __future__ import annotations

from sqs2pg.telemetry.unknown_tally import PLACES_MAX, UnknownTally


def test_counts_add_up_until_they_are_taken() -> None:
    tally = UnknownTally()
    tally.add({("a", "text"): 1, ("b", "number"): 2})
    tally.add({("a", "text"): 3})
    taken = tally.take()
    assert taken == {("a", "text"): 4, ("b", "number"): 2}
    assert tally.take() == {}
    tally.add(taken)  # it could not be recorded
    tally.add({("a", "text"): 1})
    assert tally.take()["a", "text"] == 5


def test_past_the_bound_only_types_are_counted_and_no_name_is_shown() -> None:
    tally = UnknownTally()
    tally.add({(f"name{i}", "text"): 1 for i in range(PLACES_MAX + 5)})
    assert "name" not in repr(tally)
    taken = tally.take()
    assert len(taken) == PLACES_MAX + 1
    assert taken["", "text"] == 5
