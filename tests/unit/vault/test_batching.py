"""The size of a rotation's batches, and how their parts overlap."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from sqs2pg.vault import batching
from sqs2pg.vault.batching import BATCH_ROWS_MAX, BatchSize, overlapped, parts

Rows = Sequence[tuple[int, int]]


def test_batches_grow_while_they_are_quick_and_shrink_where_they_are_slow() -> None:
    size = BatchSize(1_000)
    for _ in range(3):
        size.observe(0.2)
    assert size.rows == 8_000
    size.observe(1.0)
    assert size.rows == 8_000
    size.observe(2.5)
    assert size.rows == 4_000
    for _ in range(9):
        size.observe(9.0)
    assert size.rows == 1_000
    for _ in range(9):
        size.observe(0.0)
    assert size.rows == BATCH_ROWS_MAX


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (4, [4]), (5, [3, 2]), (9, [3, 3, 3]), (13, [4, 3, 3, 3])],
)
def test_parts_are_of_about_one_size(
    monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(batching, "PART_ROWS", 4)
    rows = [(number,) for number in range(count)]
    found = list(parts(rows))
    assert [len(part) for part in found] == sizes
    assert [row for part in found for row in part] == rows


def test_a_part_never_splits_rows_that_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PART_ROWS", 4)
    for ends in ([5, 6, 12], [1, 12], [12], [4, 8, 12]):
        rows = [(at, sum(at >= end for end in ends)) for at in range(12)]
        found = list(parts(rows, whole=1))
        assert [row for part in found for row in part] == rows
        kinds = [{row[1] for row in part} for part in found]
        assert sum(map(len, kinds)) == len(set.union(*kinds))


async def test_a_part_is_worked_while_the_one_before_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "PART_ROWS", 2)
    begun = [threading.Event() for _ in range(3)]
    written: list[int] = []

    def work(rows: Rows) -> int:
        number = rows[0][0] // 2
        begun[number].set()
        return number

    async def write(number: int) -> None:
        if number < 2:
            assert begun[number + 1].wait(30)  # else it would begin after this
        written.append(number)

    await overlapped([(number, 0) for number in range(6)], work, write)
    assert written == [0, 1, 2]


@pytest.mark.parametrize("who", ["work", "write", "both"])
async def test_a_failure_is_raised_once_the_thread_is_done(
    monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(batching, "PART_ROWS", 1)
    done: list[int] = []

    def work(rows: Rows) -> int:
        done.append(rows[0][0])
        if rows[0][0] == 1 and who != "write":
            raise KeyError
        return rows[0][0]

    async def write(number: int) -> None:
        if who != "work":
            raise LookupError

    with pytest.raises(KeyError if who == "work" else LookupError):
        await overlapped([(number, 0) for number in range(5)], work, write)
    assert done == [0, 1]
