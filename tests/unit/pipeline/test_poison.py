"""A suspect is alone in its batch."""

from __future__ import annotations

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline.poison import Suspects


def message(number: int, receives: int, group: str | None = None) -> Message:
    attributes = SystemAttributes(
        1_764_000_000_000,
        receives,
        message_group_id=group,
        sequence_number=str(number) if group else None,
    )
    return Message(f"m{number}", "-", "{}", attributes)


def names(parts: list[list[Message]]) -> list[list[str]]:
    return [[one.message_id for one in part] for part in parts]


def test_a_batch_without_suspects_stays_whole() -> None:
    suspects = Suspects(3)
    assert suspects.split([]) == []
    assert names(suspects.split([message(1, 1), message(2, 2)])) == [["m1", "m2"]]


def test_each_suspect_stands_alone_after_the_others() -> None:
    batch = [message(1, 3), message(2, 1), message(3, 9), message(4, 2)]
    assert names(Suspects(3).split(batch)) == [["m2", "m4"], ["m1"], ["m3"]]
    assert names(Suspects(3).split([message(1, 3)])) == [["m1"]]


def test_on_a_fifo_queue_the_order_is_kept() -> None:
    batch = [message(n, 3 if n == 2 else 1, "g") for n in (3, 2, 1)]
    assert names(Suspects(3, fifo=True).split(batch)) == [["m1"], ["m2"], ["m3"]]
    assert names(Suspects(9, fifo=True).split(batch)) == [["m1", "m2", "m3"]]


def test_groups_of_a_standard_queue_say_nothing_of_the_order() -> None:
    batch = [message(n, 3 if n == 2 else 1, "g") for n in (3, 2, 1)]
    assert names(Suspects(3).split(batch)) == [["m3", "m1"], ["m2"]]
    assert names(Suspects(9).split(batch)) == [["m3", "m2", "m1"]]
