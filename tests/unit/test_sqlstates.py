"""Whether an SQLSTATE is about one row, which may be quarantined, or systemic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sqs2pg.postgres.sqlstate import Verdict, diagnose, is_row_state


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


NAMES = ("schema_name", "table_name", "column_name", "constraint_name", "datatype_name", "context")


def error(sqlstate: str, detail: str = "", **names: str) -> Any:
    diag = dict.fromkeys(NAMES) | names
    return SimpleNamespace(sqlstate=sqlstate, diag=SimpleNamespace(message_detail=detail, **diag))


@pytest.mark.parametrize(
    ("detail", "day"),
    [
        ("Partition key of the failing row contains (d) = (2027-01-02).", "2027-01-02"),
        (
            "Partition key of the failing row contains (d) = (2027-01-02 03:04:05.6+00).",
            "2027-01-02",
        ),
        ("Partitionierungsschlüssel … enthält (d) = (2027-01-02).", "2027-01-02"),
        ("失敗した行のパーティションキーは(d) = (2027-01-02)を含みます。", ""),
        ("Partition key of the failing row contains (d) = (02.01.2027).", ""),
        ("Partition key of the failing row contains (name) = (Ada Lovelace).", ""),
        ("Partition key of the failing row contains (name) = (Ada 2027-01-02).", ""),
        ("Partition key of the failing row contains (name) = (2027-01-02 Ada).", ""),
        ("Partition key of the failing row contains (d, name) = (2027-01-02, Ada).", ""),
        ("Failing row contains (Ada, (d) = (2027-01-02)).", ""),
        ("", ""),
    ],
)
def test_of_a_missing_partition_nothing_but_the_day_is_taken(detail: str, day: str) -> None:
    names = {"schema_name": "public", "table_name": "logins"}
    fault = diagnose(error("23514", detail, **names))
    assert fault.verdict is Verdict.NO_TARGET_PARTITION
    assert (fault.table, fault.day, fault.detail) == ("public.logins", day, "23514 logins")


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"schema_name": "public", "table_name": "logins", "constraint_name": "adult"},
        {"schema_name": "public", "datatype_name": "named", "constraint_name": "named_check"},
    ],
)
def test_a_check_or_a_raise_of_the_same_sqlstate_is_about_the_row(names: dict[str, str]) -> None:
    assert diagnose(error("23514", **names)).verdict is Verdict.BAD_ROW
