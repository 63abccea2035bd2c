"""The built-in mapping and the table that its users already have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sqs2pg.settings.fields import USER_LOGINS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("shown_in", ["deploy/compose/user_logins.sql", "README.md"])
def test_a_text_may_be_as_long_as_its_column(shown_in: str) -> None:
    text = (ROOT / shown_in).read_text(encoding="utf-8")
    table = text.partition("CREATE TABLE user_logins (")[2].partition(");")[0]
    lengths = {name: int(length) for name, length in re.findall(r"(\w+)\s+varchar\((\d+)\)", table)}
    assert lengths == {one.column: one.length_max for one in USER_LOGINS if one.length_max}
    assert len(lengths) == 5
