"""Quoting for SQL: names and texts that hold the quotes themselves."""

from __future__ import annotations

import pytest

from sqs2pg.postgres.identifiers import quote_identifier, quote_literal, quote_table


def test_a_qualified_name_is_quoted_part_by_part() -> None:
    assert quote_identifier("logins") == '"logins"'
    assert quote_identifier("s", 'a"b.c') == '"s"."a""b.c"'


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("logins", '"logins"'), ("s.logins", '"s"."logins"'), ("s.a.b", '"s"."a.b"')],
)
def test_the_first_dot_of_a_tables_name_ends_its_schema(name: str, quoted: str) -> None:
    assert quote_table(name) == quoted


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("plain", "'plain'"), ("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("", "''")],
)
def test_a_text_is_a_literal(text: str, quoted: str) -> None:
    assert quote_literal(text).strip() == quoted
