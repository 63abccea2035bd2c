"""Binary arrays, as a real server reads them."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from sqs2pg.postgres.binary_arrays import (
    bytea_array,
    integer_array_of,
    integer_elements,
    register_dumpers,
    text_array_of,
    text_elements,
    uuid_array,
)

UUIDS = [uuid.UUID(int=number) for number in (0, 1, 2**127, 2**128 - 1)]
TEXTS = ["a", 'q"{,}\\', "NULL", "", "Zoë 🙂"]
TOKENS = ["v1_ab", "v2_cd"]
NUMBERS = [1, -1, 2**31 - 1, -(2**31)]
ARRAYS = [
    (uuid_array([one.hex for one in UUIDS]), "uuid[]", UUIDS),
    (uuid_array([]), "uuid[]", []),
    (bytea_array([b"\0\1", b"ab"]), "bytea[]", [b"\0\1", b"ab"]),
    (bytea_array([b"", b"\xff" * 300, b"x"]), "bytea[]", [b"", b"\xff" * 300, b"x"]),
    (bytea_array([]), "bytea[]", []),
    (text_array_of(5, text_elements(TEXTS)), "text[]", TEXTS),
    (text_array_of(2, text_elements(TOKENS)), "text[]", TOKENS),
    (text_array_of(0, text_elements([])), "text[]", []),
    (integer_array_of(4, integer_elements(NUMBERS)), "integer[]", NUMBERS),
    (integer_array_of(0, integer_elements([])), "integer[]", []),
]


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        register_dumpers(connection.adapters)
        yield connection


def test_the_server_reads_what_was_given(connection: psycopg.Connection[Any]) -> None:
    for given, type_, expected in ARRAYS:
        asked = connection.execute(
            f"SELECT %s, pg_typeof(%s)::text, cardinality(%s::{type_})", [given] * 3
        )
        assert asked.fetchall() == [(expected, type_, len(expected))]


def test_what_the_types_cannot_hold_is_refused_here() -> None:
    with pytest.raises(UnicodeEncodeError):
        text_elements(["\ud800"])
    with pytest.raises(struct.error):
        integer_elements([2**31])
