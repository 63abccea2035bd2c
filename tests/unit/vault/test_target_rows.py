"""How the ids of people may be spelt in a column that says whose a row is."""

from __future__ import annotations

import pytest

from sqs2pg.vault.target_rows import PersonColumns, spellings

UUID = "5f0c8b9e-6a1d-4c1e-9d7b-2f3a4b5c6d7e"


@pytest.mark.parametrize(
    ("base", "fitting", "others"),
    [
        ("text", ["", "1", "é", "not a number"], ["a\0b"]),
        ("int2", ["-32768", "32767"], ["-32769", "32768", "1_0", "\u0661", "1.0", "x", ""]),
        ("int8", [str(2**63 - 1)], [str(2**63), "x"]),
        ("numeric", ["1", "-1.5", "1e3"], ["x", "", "NaN", "Infinity", "1_0", "\u0661"]),
        ("uuid", [UUID, UUID.upper()], ["x", UUID[1:], ""]),
    ],
)
def test_a_spelling_that_the_column_cannot_hold_is_left_out(
    base: str, fitting: list[str], others: list[str]
) -> None:
    columns = PersonColumns("logins", "user_id", lambda id_: [id_], (), base=base)
    assert spellings(columns, [*others, *fitting]) == [(id_, id_) for id_ in fitting]
