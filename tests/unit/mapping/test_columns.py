"""Columns: a mapping whose values the table cannot take is refused at start."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.columns import Column, match
from sqs2pg.mapping.field_types import INTEGER_RANGES, TEXT_TYPES
from sqs2pg.mask.registry import OPERATORS, compile_operator, mask_length
from sqs2pg.settings import USER_LOGINS, Field
from tests.logins import TARGET


class Roots:
    """A keyring of one root, at the largest version."""

    def active(self, series: str, /) -> int:
        return 9_999

    def root(self, series: str, version: int, /) -> bytes:
        return bytes(range(32))


def table(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


def refused(field: Field, *columns: Column) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        match([field], table(*columns), "t")
    error = caught.value
    assert error.code == "target_column"
    assert error.exit_code == 2
    assert error.hint
    return error


def test_the_built_in_mapping_takes_texts_as_long_as_its_table_does() -> None:
    lengths = {field.column: field.length_max for field in USER_LOGINS if field.length_max}
    assert lengths == {column.name: column.length_max for column in TARGET if column.length_max}
    assert lengths["user_id"] == 128


def test_the_built_in_mapping_fits_the_table_its_users_have() -> None:
    assert match(USER_LOGINS, table(*TARGET), "user_logins") == [*TARGET]


def test_columns_come_in_the_order_of_the_fields_and_others_may_be_there() -> None:
    extra = [Column("id", "int8", nullable=False, filled=True), Column("note", "text")]
    columns = table(*extra, *reversed(TARGET))
    assert match(USER_LOGINS, columns, "t") == [*TARGET]


@pytest.mark.parametrize("missing", [column.name for column in TARGET])
def test_a_missing_column_is_named(missing: str) -> None:
    columns = table(*(column for column in TARGET if column.name != missing))
    with pytest.raises(SettingsError, match=f"table t has no column '{missing}'"):
        match(USER_LOGINS, columns, "t")


@pytest.mark.parametrize("narrow", [column.name for column in TARGET if column.length_max])
def test_a_narrower_column_is_named_with_both_lengths(narrow: str) -> None:
    columns = table(*TARGET)
    length = columns[narrow].length_max or 0
    columns[narrow] = Column(narrow, "varchar", length - 1)
    with pytest.raises(SettingsError) as caught:
        match(USER_LOGINS, columns, "t")
    assert narrow in caught.value.what
    assert f"holds {length - 1} characters" in caught.value.what
    assert f"may need {length}" in caught.value.what


@pytest.mark.parametrize("wide", [column.name for column in TARGET if column.length_max])
def test_a_wider_column_is_accepted(wide: str) -> None:
    for column in (Column(wide, "varchar", 10_000), Column(wide, "varchar"), Column(wide, "text")):
        assert column in match(USER_LOGINS, table(*TARGET) | {wide: column}, "t")


def test_a_column_that_must_be_filled_needs_a_field() -> None:
    field = Field(source="a", column="a")
    full = Column("b", "text", nullable=False)
    assert "'b' of table t is NOT NULL" in refused(field, Column("a", "text"), full).what
    filled = Column("b", "text", nullable=False, filled=True)
    assert len(match([field], table(Column("a", "text"), filled), "t")) == 1


def test_a_generated_column_takes_nothing() -> None:
    column = Column("a", "text", filled=True, generated=True)
    assert "is generated" in refused(Field(source="a", column="a"), column).what


MASKS = [name for name in OPERATORS if name not in ("keep", "nullify")]


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_goes_to_text_only(mask: str) -> None:
    field = Field(source="a", column="a", mask=mask)
    for other in (*INTEGER_RANGES, "date", "numeric", "uuid", "inet", "jsonb", "bytea"):
        if (mask, other) == ("truncate_ip", "inet"):
            continue
        assert "gives masked text" in refused(field, Column("a", other)).what
    for text in TEXT_TYPES:
        assert match([field], table(Column("a", text)), "t")


@pytest.mark.parametrize(
    ("mask", "type_"), [("truncate_ip", "inet"), ("fpe_ff1", "inet"), ("fpe_ff1", "uuid")]
)
def test_a_mask_of_the_value_s_form_goes_to_its_type(mask: str, type_: str) -> None:
    kind: Any = "ip" if type_ == "inet" else "uuid"
    field = Field(source="a", column="a", mask=mask, kind=kind)
    assert match([field], table(Column("a", type_)), "t")


@pytest.mark.parametrize("type_", ["text", "int4", "uuid", "date"])
def test_null_goes_anywhere_but_to_not_null(type_: str) -> None:
    for kind in ("text", "version", "date"):
        field = Field(source="a", column="a", mask="nullify", type=kind)  # type: ignore[arg-type]
        assert match([field], table(Column("a", type_)), "t")
        full = Column("a", type_, nullable=False)
        assert "is NOT NULL, but field 'a' is nullified" in refused(field, full).what


LONGEST = {
    "ip": ["ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "ffff:ffff::1", "255.255.255.255"],
    "uuid": ["urn:uuid:424cdd21-063a-43a7-b91b-7ca1a833afae"],
    "phone": ["123456789012345"],
    "text": ["9" * 63],
}


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        (mask, kind)
        for mask in MASKS
        for kind in LONGEST
        if kind in OPERATORS[mask].properties.kinds
        and (mask, kind) not in {("fpe_ff1", "text"), ("truncate_ip", "text")}
    ],
)
def test_a_column_must_hold_the_longest_mask(mask: str, kind: Any) -> None:
    operator = compile_operator(mask, kind=kind, domain="d", keyring=Roots())
    needed = max(len(operator(value) or "") for value in LONGEST[kind])
    longest = mask_length(mask, kind)
    # The length of an encrypted address or UUID varies with each draw: no value gives the longest.
    assert longest == needed or (mask, kind) in {("fpe_ff1", "ip"), ("encrypt", "phone")}
    assert longest >= needed
    field = Field(source="a", column="a", mask=mask, kind=kind)
    assert match([field], table(Column("a", "varchar", longest)), "t")
    assert f"may need {longest}" in refused(field, Column("a", "varchar", longest - 1)).what
    short = Field(source="a", column="a", mask=mask, kind=kind, length_max=longest - 1)
    assert f"its length_max is {longest - 1}" in refused(short, Column("a", "text")).what


@pytest.mark.parametrize("type_", ["version", "major"])
def test_versions_go_to_numbers(type_: str) -> None:
    field = Field(source="a", column="a", type=type_)  # type: ignore[arg-type]
    for number in (*INTEGER_RANGES, "numeric", "float4", "float8"):
        assert match([field], table(Column("a", number)), "t")
    for other in (*TEXT_TYPES, "date", "bool", "uuid"):
        assert (
            f"is {other}, but field 'a' gives type '{type_}'"
            in refused(field, Column("a", other)).what
        )


def test_dates_go_to_dates_and_texts_of_ten_characters() -> None:
    field = Field(source="a", column="a", type="date")
    for type_ in ("date", "timestamp", "timestamptz", *TEXT_TYPES):
        assert match([field], table(Column("a", type_)), "t")
    assert match([field], table(Column("a", "varchar", 10)), "t")
    assert "may need 10" in refused(field, Column("a", "varchar", 9)).what
    assert "gives type 'date'" in refused(field, Column("a", "int4")).what


@pytest.mark.parametrize("type_", ["text", "int4", "uuid", "jsonb", "timestamptz", "bool"])
def test_a_kept_text_goes_anywhere(type_: str) -> None:
    assert match([Field(source="a", column="a")], table(Column("a", type_)), "t")


def test_a_refusal_shows_names_but_no_default() -> None:
    secret = base64.b64encode(bytes(32)).decode()
    field = Field(source="a", column="missing", default=secret)
    assert secret not in f"{refused(field, Column('a', 'text'))!r}"
