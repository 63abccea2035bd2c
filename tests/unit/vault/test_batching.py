"""The size of a rotation's batches."""

from __future__ import annotations

from sqs2pg.vault.batching import BATCH_ROWS_MAX, BatchSize


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
