"""The memory of keys just committed: what it knows, what it forgets, whom it asks about."""

from __future__ import annotations

from collections.abc import Sequence

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline.recent_keys import RecentKeys


def message(name: str, receives: int = 2) -> Message:
    return Message(name, "-", "{}", SystemAttributes(0, receives))


def key(name: str) -> str:
    return f"{name:k>36}"


def keys(messages: Sequence[Message]) -> list[str]:
    return [key(one.message_id) for one in messages]


def ledger(*names: str) -> bytes:
    return "".join(f"{key(name)}\t{name}\t1\twritten\t\\N\n" for name in names).encode()


def test_a_message_that_was_committed_is_found_when_it_comes_again() -> None:
    recent = RecentKeys()
    assert recent.find([message("a")], keys) == set()
    recent.add(2, ledger("a", "b"))
    recent.add(1, ledger("c"))
    assert recent.find([message("x"), message("c"), message("a"), message("d")], keys) == {1, 2}
    assert recent.find([message("x"), message("b")], keys) == {1}


def test_another_id_under_the_same_key_is_not_taken_for_it() -> None:
    recent = RecentKeys()
    recent.add(1, ledger("a"))
    pair = [message("b"), message("c")]
    assert recent.find(pair, lambda _: [key("a"), key("c")]) == set()


def test_a_first_delivery_is_not_asked_about() -> None:
    recent = RecentKeys()
    recent.add(1, ledger("a"))
    assert recent.find([message("a", 1), message("b", 2)], keys) == set()


def test_the_oldest_commits_are_forgotten() -> None:
    recent = RecentKeys(keys_max=4)
    for name in "abcdef":
        recent.add(1, ledger(name))
    found = recent.find([message(name) for name in "abcdefx"], keys)
    assert found >= {4, 5}
    assert found.isdisjoint({0, 1, 6})


def test_a_key_that_was_asked_for_is_forgotten_in_its_turn() -> None:
    recent = RecentKeys(keys_max=4)
    for number in range(20):
        recent.add(1, ledger(f"m{number}"))
        assert recent.find([message(f"m{number}"), message(f"m{number - 4}")], keys) == {0}


def test_each_line_of_a_batch_is_found_however_often_it_is_asked_for() -> None:
    recent = RecentKeys()
    names = [f"{number:x}" * (1 + number % 3) for number in range(0, 200, 2)]
    recent.add(len(names), b"".join(sorted(ledger(*names).splitlines(keepends=True))))
    for _ in range(3):
        for name in names:
            assert recent.find([message(name), message(f"{name}-"), message("1")], keys) == {0}
    assert recent.find([message(name) for name in names], keys) == set(range(len(names)))


def test_a_batch_without_lines_is_not_remembered() -> None:
    recent = RecentKeys(keys_max=2)
    recent.add(2, ledger("a", "b"))
    recent.add(0, b"")
    assert recent.find([message("a"), message("b")], keys) == {0, 1}
