"""Field types: one record per type, and what is derived from it."""

from __future__ import annotations

from typing import get_args

import pytest

from sqs2pg.mapping.columns import Column, column_for, match, sql_type
from sqs2pg.mapping.field_types import FIELD_TYPES, type_of_column
from sqs2pg.settings import Field
from sqs2pg.settings.fields import TypeName


def test_every_type_of_the_settings_has_a_record() -> None:
    assert list(FIELD_TYPES) == list(get_args(TypeName))


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_the_column_that_migrate_makes_takes_the_field(name: str) -> None:
    field = Field(column="v", source="v", type=name)
    column = column_for(field)
    assert match([field], {"v": column}, "t") == [column]


@pytest.mark.parametrize(
    ("catalog_name", "name"),
    [
        ("int2", "integer"),
        ("int4", "integer"),
        ("int8", "bigint"),
        ("numeric", "numeric"),
        ("float4", "double"),
        ("float8", "double"),
        ("bool", "boolean"),
        ("date", "date"),
        ("timestamp", "timestamptz"),
        ("timestamptz", "timestamptz"),
        ("uuid", "uuid"),
        ("inet", "inet"),
        ("json", "jsonb"),
        ("jsonb", "jsonb"),
        ("varchar", "text"),
        ("bytea", "bytea"),
        ("interval", "interval"),
        ("tsvector", "text"),
        ("_text", "text[]"),
        ("_varchar", "text[]"),
        ("_mood", "text[]"),
        ("_int2", "integer[]"),
        ("_float8", "double[]"),
        ("_timestamptz", "timestamptz[]"),
        ("_uuid", "uuid[]"),
    ],
)
def test_a_column_is_read_as_a_type(catalog_name: str, name: str) -> None:
    assert type_of_column(catalog_name) == name


def test_a_text_column_has_the_length_of_the_field() -> None:
    kept = Field(column="v", source="v", length_max=9)
    masked = Field(column="v", source="v", type="bigint", mask="pseudonymize", length_max=40)
    assert sql_type(kept) == "varchar(9)"
    assert column_for(kept) == Column("v", "varchar", 9)
    texts = Field(column="v", source="v", type="text[]", length_max=9)
    tokens = Field(column="v", source="v", type="uuid[]", mask="pseudonymize")
    assert sql_type(texts) == "varchar(9)[]"
    assert column_for(texts) == Column("v", "_varchar", 9)
    assert sql_type(tokens) == "text[]"
    assert column_for(tokens) == Column("v", "_text")
    assert sql_type(masked) == "varchar(40)"
    assert sql_type(Field(column="v", source="v", type="double", length_max=9)) == (
        "double precision"
    )
