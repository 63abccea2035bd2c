"""The books of the messages in hand, by the native passes and by their twins."""

from __future__ import annotations

import random

import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.sqs import leases as python
from sqs2pg.sqs.leases import Hand, Lease
from tests.native import extension


def message(number: int, body: str = "{}", handle: str = "h") -> Message:
    return Message(f"m{number}", handle, body, SystemAttributes(1_700_000_000_000))


@pytest.fixture(params=["native", "python"])
def hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Hand:
    native = extension() if request.param == "native" else None
    monkeypatch.setattr("sqs2pg.native.EXTENSION", native)
    return Hand()


def test_a_reply_is_taken_whole_and_dropped_in_parts(hand: Hand) -> None:
    reply = [message(number, "x" * 100) for number in range(10)]
    assert hand.take(reply, 1.0, 31.0) is reply
    assert (len(hand.by_id), hand.bytes, hand.largest) == (10, 1_000, 100)
    hand.drop(reply[:4])
    hand.drop(reply[:4])
    [lease] = hand.leases
    assert (lease.left, hand.bytes, hand.messages()) == (6, 600, reply[4:])
    hand.drop([*reply, message(99)])
    assert (hand.by_id, hand.leases, hand.bytes) == ({}, {}, 0)


def test_a_character_beyond_ascii_counts_as_four_bytes(hand: Hand) -> None:
    hand.take([message(1, "é" * 10), message(2, "e" * 10)], 0.0, 30.0)
    assert (hand.bytes, hand.largest) == (50, 40)


def test_a_message_that_comes_again_brings_only_its_newer_handle(hand: Hand) -> None:
    first = [message(1), message(2)]
    hand.take(first, 0.0, 30.0)
    fresh = hand.take([message(3), message(1, handle="newer")], 5.0, 35.0)
    assert [m.message_id for m in fresh] == ["m3"]
    assert first[0].receipt_handle == "newer"
    assert {m.message_id for m in hand.messages()} == {"m1", "m2", "m3"}
    assert hand.bytes == 6
    old, new = hand.leases
    assert (hand.under(old), old.left, new.left) == ([first[1]], 1, 2)
    assert any(m is first[0] for m in hand.under(new))


def test_a_message_that_comes_twice_in_a_reply_is_one(hand: Hand) -> None:
    fresh = hand.take([message(1), message(1, handle="newer"), message(2)], 0.0, 30.0)
    assert [m.message_id for m in fresh] == ["m1", "m2"]
    assert fresh[0].receipt_handle == "newer"
    assert (len(hand.by_id), hand.bytes) == (2, 4)
    hand.drop(fresh)
    assert (hand.by_id, hand.leases, hand.bytes) == ({}, {}, 0)


def test_what_is_due_comes_soonest_first_and_what_is_left_out_never(hand: Hand) -> None:
    for number in range(4):
        hand.take([message(number)], float(number), 30.0 + number)
    lost, first, second, late = hand.leases
    hand.leave_out(lost)
    second.extending = True
    assert list(hand.due(32.5)) == [first]
    hand.put_last(first)
    second.extending = False
    assert list(hand.due(40.0)) == [second, late, first]
    hand.put_first(late)
    assert next(hand.due(40.0)) is late
    hand.drop([message(0)])
    assert hand.bytes == 6


def test_a_moved_message_is_under_its_new_lease_alone(hand: Hand) -> None:
    reply = [message(1), message(2)]
    hand.take(reply, 0.0, 30.0)
    [old] = hand.leases
    new = Lease([], 0.0, 9.0, old.share)
    hand.move(reply[0], new)
    assert (hand.under(old), hand.under(new), hand.bytes) == ([reply[1]], [reply[0]], 4)
    hand.move(reply[1], new)
    assert list(hand.leases) == [new]


def test_both_passes_say_the_same() -> None:
    draw = random.Random(5)
    native = extension()
    lease = [Lease([], 0.0, 0.0), Lease([], 0.0, 0.0)]
    for _ in range(500):
        held = {f"m{draw.randrange(20)}": draw.choice(lease) for _ in range(draw.randrange(12))}
        twin = dict(held)
        reply = [
            message(draw.randrange(30), draw.choice(["", "abc", "é", "日本", "😀" * 9]))
            for _ in range(draw.randrange(11))
        ]
        new = Lease(reply, 0.0, 0.0)
        assert native.hold_messages(held, reply, new) == python.hold_messages(twin, reply, new)
        assert held == twin
        gone = [message(draw.randrange(30)) for _ in range(draw.randrange(11))]
        assert native.release_messages(held, gone) == python.release_messages(twin, gone)
        assert held == twin


@pytest.mark.parametrize("arguments", [(), ({},), ([], []), ({}, ()), ({}, [], None, None)])
def test_the_native_passes_refuse_what_is_not_theirs(arguments: tuple[object, ...]) -> None:
    native = extension()
    for of in (native.hold_messages, native.release_messages):
        with pytest.raises(TypeError):
            of(*arguments)


def test_the_native_passes_pass_on_what_a_message_raises() -> None:
    class Odd:
        message_id = 7
        body = b""

    native = extension()
    held: dict[object, object] = {}
    with pytest.raises(TypeError, match="body is a text"):
        native.hold_messages(held, [Odd()], None)
    with pytest.raises(AttributeError):
        native.hold_messages(held, [object()], None)
    with pytest.raises(TypeError, match="id is a text"):
        native.release_messages(held, [Odd()])
    assert held == {}
