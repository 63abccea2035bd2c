"""The leases of the held messages, in C and in Python."""

from __future__ import annotations

import random

import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.sqs import leases as python
from sqs2pg.sqs.leases import Lease, Leases
from tests.native import extension


def message(number: int, body: str = "{}", handle: str = "h") -> Message:
    return Message(f"m{number}", handle, body, SystemAttributes(1_700_000_000_000))


@pytest.fixture(params=["native", "python"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Leases:
    native = extension() if request.param == "native" else None
    monkeypatch.setattr("sqs2pg.native.EXTENSION", native)
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


def test_the_native_and_the_python_leases_agree() -> None:
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
def test_the_native_functions_refuse_wrong_types(arguments: tuple[object, ...]) -> None:
    native = extension()
    for of in (native.hold_messages, native.release_messages):
        with pytest.raises(TypeError):
            of(*arguments)


def test_the_native_functions_raise_what_a_message_raises() -> None:
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
