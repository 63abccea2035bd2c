"""Whether an SQLSTATE is about one row, which may be quarantined, or systemic."""

from __future__ import annotations

import pytest

from sqs2pg.postgres.sqlstate import is_row_state


@pytest.mark.parametrize(
    ("sqlstate", "of_the_row"),
    [
        ("22001", True),
        ("23505", True),
        ("54000", True),  # an index row, or a value of its type, is too large
        ("54001", False),  # statement_too_complex: the server's stack
        ("54011", False),  # too_many_columns
        ("54023", False),  # too_many_arguments
        ("53200", False),
        ("57P01", False),
        ("P0001", True),
        ("U0001", True),  # a trigger's own class
    ],
)
def test_an_sqlstate_is_about_the_row_or_systemic(sqlstate: str, of_the_row: bool) -> None:
    assert is_row_state(sqlstate) is of_the_row
