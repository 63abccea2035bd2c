"""Counts with their nouns."""

from __future__ import annotations

import pytest

from sqs2pg.cli.options import counted


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
