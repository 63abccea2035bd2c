"""The leases of the held messages."""

from __future__ import annotations

import random

import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.sqs.leases import Lease, Leases


def message(number: int, body: str = "{}", handle: str = "h") -> Message:
    return Message(f"m{number}", handle, body, SystemAttributes(1_700_000_000_000))


@pytest.fixture
def leases() -> Leases:
    return Leases()


def test_a_reply_is_taken_whole_and_dropped_in_parts(leases: Leases) -> None:
    reply = [message(number, "x" * 100) for number in range(10)]
    assert leases.hold(reply, 1.0, 31.0) is reply
    assert (len(leases.by_id), leases.bytes, leases.largest) == (10, 1_000, 100)
    leases.release(reply[:4])
    leases.release(reply[:4])
    [lease] = leases.by_expiry
    assert (lease.left, leases.bytes, leases.messages()) == (6, 600, reply[4:])
    leases.release([*reply, message(99)])
    assert (leases.by_id, leases.by_expiry, leases.bytes) == ({}, {}, 0)


def test_a_character_beyond_ascii_counts_as_four_bytes(leases: Leases) -> None:
    leases.hold([message(1, "é" * 10), message(2, "e" * 10)], 0.0, 30.0)
    assert (leases.bytes, leases.largest) == (50, 40)


def test_a_message_that_comes_again_brings_only_its_newer_handle(leases: Leases) -> None:
    first = [message(1), message(2)]
    leases.hold(first, 0.0, 30.0)
    fresh = leases.hold([message(3), message(1, handle="newer")], 5.0, 35.0)
    assert [m.message_id for m in fresh] == ["m3"]
    assert first[0].receipt_handle == "newer"
    assert {m.message_id for m in leases.messages()} == {"m1", "m2", "m3"}
    assert leases.bytes == 6
    old, new = leases.by_expiry
    assert (leases.under(old), old.left, new.left) == ([first[1]], 1, 2)
    assert any(m is first[0] for m in leases.under(new))


def test_a_message_that_comes_twice_in_a_reply_is_one(leases: Leases) -> None:
    fresh = leases.hold([message(1), message(1, handle="newer"), message(2)], 0.0, 30.0)
    assert [m.message_id for m in fresh] == ["m1", "m2"]
    assert fresh[0].receipt_handle == "newer"
    assert (len(leases.by_id), leases.bytes) == (2, 4)
    leases.release(fresh)
    assert (leases.by_id, leases.by_expiry, leases.bytes) == ({}, {}, 0)


def test_messages_that_come_twice_in_a_reply_and_again_are_one(leases: Leases) -> None:
    first = [message(1), message(2)]
    leases.hold(first, 0.0, 30.0)
    reply = [
        message(3),
        message(2, handle="new"),
        message(3, handle="new"),
        message(2, handle="newest"),
    ]
    fresh = leases.hold(reply, 5.0, 35.0)
    assert [(m.message_id, m.receipt_handle) for m in fresh] == [("m3", "new")]
    assert first[1].receipt_handle == "newest"
    old, new = leases.by_expiry
    assert (leases.under(old), leases.under(new)) == ([first[0]], [fresh[0], first[1]])
    assert (old.left, new.left, leases.bytes) == (1, 2, 6)


def test_messages_of_two_and_three_replies_are_dropped_together(leases: Leases) -> None:
    replies = [[message(3 * number + i) for i in range(3)] for number in range(3)]
    for reply in replies:
        leases.hold(reply, 0.0, 30.0)
    one, two, three = leases.by_expiry
    leases.release([replies[0][0], *replies[1][:2]])
    assert (one.left, two.left, three.left, leases.bytes) == (2, 1, 3, 12)
    leases.release([replies[0][1], replies[1][2], replies[2][0], message(99)])
    assert (one.left, two.left, three.left, leases.bytes) == (1, 0, 2, 6)
    assert list(leases.by_expiry) == [one, three]
    leases.release([])


def test_due_leases_come_in_order_of_expiry(leases: Leases) -> None:
    for number in range(4):
        leases.hold([message(number)], float(number), 30.0 + number)
    lost, first, second, late = leases.by_expiry
    leases.stop_extending(lost)
    second.extending = True
    assert list(leases.due(32.5)) == [first]
    leases.move_last(first)
    second.extending = False
    assert list(leases.due(40.0)) == [second, late, first]
    leases.move_first(late)
    assert next(leases.due(40.0)) is late
    leases.release([message(0)])
    assert leases.bytes == 6


def test_a_moved_message_is_under_its_new_lease_alone(leases: Leases) -> None:
    reply = [message(1), message(2)]
    leases.hold(reply, 0.0, 30.0)
    [old] = leases.by_expiry
    new = Lease([], 0.0, 9.0, old.share)
    leases.move(reply[0], new)
    assert (leases.under(old), leases.under(new), leases.bytes) == ([reply[1]], [reply[0]], 4)
    leases.move(reply[1], new)
    assert list(leases.by_expiry) == [new]


def size(body: str) -> int:
    return len(body) * (1 if body.isascii() else 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_books_are_right_whatever_comes_and_goes(leases: Leases, seed: int) -> None:
    draw = random.Random(seed)
    for turn in range(300):
        reply = [
            message(draw.randrange(60), draw.choice(["", "abc", "é", "日本", "😀" * 9]), f"h{turn}")
            for _ in range(draw.randrange(1, 11))
        ]
        before = set(leases.by_id)
        new = dict.fromkeys(m.message_id for m in reply if m.message_id not in before)
        fresh = leases.hold(reply, float(turn), turn + 30.0)
        assert [m.message_id for m in fresh] == list(new)
        assert leases.largest == max(size(m.body) for m in reply)
        assert set(leases.by_id) == before | {m.message_id for m in reply}
        gone = [message(draw.randrange(70)) for _ in range(draw.randrange(11))]
        held = draw.sample(leases.messages(), min(5, len(leases.by_id)))
        leases.release([*held, *gone])
        released = {m.message_id for m in [*held, *gone]}
        assert set(leases.by_id) == (before | {m.message_id for m in reply}) - released
        assert {m.message_id for m in leases.messages()} == set(leases.by_id)
        left = list(leases.by_id.values())
        assert set(leases.by_expiry) == set(left)
        assert all(lease.left == left.count(lease) for lease in leases.by_expiry)
        assert leases.bytes == sum(lease.share for lease in left)
