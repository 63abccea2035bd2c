"""What the queues of a process may hold together."""

from __future__ import annotations

from sqs2pg.sqs.in_flight import InFlight


def test_one_queue_has_all_of_it() -> None:
    budget, one = InFlight(1000), object()
    budget.join(one)
    assert budget.has_room(one, 1000)
    assert not budget.has_room(one, 1001)


def test_a_queue_that_holds_all_it_may_leaves_each_other_one_its_own_half() -> None:
    budget, queues = InFlight(1000), [object() for _ in range(5)]
    for queue in queues:
        budget.join(queue)
    greedy, *others = queues  # 100 for each, 500 for whoever asks
    assert budget.has_room(greedy, 600)
    assert not budget.has_room(greedy, 601)
    budget.note(greedy, 600)
    for other in others:
        assert budget.has_room(other, 100)
        assert not budget.has_room(other, 101)
        budget.note(other, 100)
    assert budget.bytes == 1000


def test_those_who_wait_are_woken_in_order_once_others_hold_less() -> None:
    budget, woken = InFlight(1000), list[str]()
    greedy, one, other = object(), object(), object()
    for queue in (greedy, one, other):
        budget.join(queue)
    budget.note(greedy, 600)
    assert not budget.has_room(one, 700)
    budget.wait(one, lambda: woken.append("one"))
    budget.wait(other, lambda: woken.append("other"))
    budget.note(greedy, 590)
    assert woken == ["one", "other"]
    budget.note(greedy, 0)
    assert woken == ["one", "other"], "nobody waits any more"
    assert budget.has_room(one, 666)


def test_a_queue_that_leaves_gives_back_what_it_held() -> None:
    budget, gone, stays = InFlight(1000), object(), object()
    for queue in (gone, stays):
        budget.join(queue)
    budget.note(gone, 750)
    assert not budget.has_room(stays, 700)
    budget.leave(gone)
    budget.leave(gone)
    budget.note(gone, 750)  # a late answer
    assert (budget.bytes, budget.queues) == (0, 1)
    assert budget.has_room(stays, 1000)
