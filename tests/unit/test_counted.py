"""What commands print: counts with their nouns, and rows as lines."""

from __future__ import annotations

import pytest

from sqs2pg.cli.options import aligned, counted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "message"), "1 message"),
        ((0, "message"), "0 messages"),
        ((2_000, "message"), "2,000 messages"),
        ((1, "person", "people"), "1 person"),
        ((3, "person", "people"), "3 people"),
    ],
)
def test_one_is_singular_and_all_else_plural(arguments: tuple[int, str], text: str) -> None:
    assert counted(*arguments) == text


def test_a_row_is_one_line_and_columns_are_aligned() -> None:
    rows = [["id", "reason", "detail"], ["1", "not_json", ""], ["22", "bad_ip", "x" * 200]]
    assert list(aligned(rows)) == [
        "id  reason    detail",
        "1   not_json",
        f"22  bad_ip    {'x' * 200}",
    ]
