"""Transform: every rule of the built-in mapping, and PostgreSQL's COPY text format.

Lines are read back by a small reader of the format written from PostgreSQL's documentation, and
tokens are computed here from RFC 5869 and RFC 2104, so that nothing is compared with itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault, SettingsError, Stage
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.transform import Transformer
from sqs2pg.mask.opening import open_mask
from sqs2pg.mask.registry import compile_operator
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import USER_LOGINS, Field
from tests.copy_text import read_copy
from tests.logins import TARGET
from tests.records import columns_of

SENT_MS = 1_683_356_889_000  # 2023-05-06T07:08:09Z
SENT_DAY = "2023-05-06"
ROOT = bytes(range(32))


class Roots:
    """A keyring of one root."""

    def active(self, series: str, /) -> int:
        return 1

    def root(self, series: str, version: int, /) -> bytes:
        return ROOT


def compiled(
    fields: Sequence[Field] = USER_LOGINS, columns: Sequence[Column] = TARGET
) -> tuple[Sequence[Field], Transformer]:
    masks = [
        None
        if f.mask == "keep"
        else compile_operator(f.mask, kind=f.kind, domain=f.domain or f.source, keyring=Roots())
        for f in fields
    ]
    return fields, Transformer(fields, columns, masks)


BUILT_IN = compiled()


def message(body: str = "", sent_ms: int = SENT_MS) -> Message:
    return Message(
        "5fea7756-0ea4-451a-a703-a558b933e274", "handle", body, SystemAttributes(sent_ms)
    )


def lines(
    *records: dict[str, Any],
    plan: tuple[Sequence[Field], Transformer] = BUILT_IN,
    sent_ms: int = SENT_MS,
) -> list[str | PermanentFault]:
    fields, transformer = plan
    messages = [message(sent_ms=sent_ms) for _ in records]
    return transformer.lines(messages, columns_of(fields, records))


def row(sent_ms: int = SENT_MS, **values: Any) -> dict[str, str | None]:
    [line] = lines({"user_id": "u", **values}, sent_ms=sent_ms)
    return dict(zip((column.name for column in TARGET), read_copy(line), strict=True))


def fault(**values: Any) -> PermanentFault:
    [line] = lines({"user_id": "u", **values})
    assert isinstance(line, PermanentFault)
    assert line.stage is Stage.MASK
    return line


def pseudonym(domain: str, canonical: bytes) -> str:
    """The derivation of docs/reference/masking.md; one block of HKDF is enough."""
    pseudorandom = hmac.digest(bytes(32), ROOT, "sha256")
    key = hmac.digest(pseudorandom, f"sqs2pg/1/pseudonym/{domain}".encode() + b"\x01", "sha256")
    return "v1_" + hmac.digest(key, canonical, "sha256")[:16].hex()


def test_a_login_as_its_users_send_it() -> None:
    assert row(
        user_id="424cdd21-063a-43a7-b91b-7ca1a833afae",
        app_version="2.3.0",
        device_type="android",
        ip="199.172.111.135",
        locale="RU",
        device_id="593-47-5928",
    ) == {
        "user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae",
        "device_type": "android",
        "masked_ip": pseudonym("ip", bytes([199, 172, 111, 135])),
        "masked_device_id": pseudonym("device_id", b"593-47-5928"),
        "locale": "RU",
        "app_version": "2003000",
        "create_date": SENT_DAY,
    }


def test_a_missing_or_null_field_is_null_but_the_date() -> None:
    nothing = {column.name: None for column in TARGET}
    expected = {**nothing, "user_id": "u", "create_date": SENT_DAY}
    assert row() == expected
    assert row(**{f.source: None for f in USER_LOGINS if not f.required}) == expected


def test_an_empty_text_is_not_null() -> None:
    found = row(device_type="", locale="", device_id="")
    assert (found["device_type"], found["locale"]) == ("", "")
    assert found["masked_device_id"] == pseudonym("device_id", b"")


@pytest.mark.parametrize("character", ["x", "é", "漢", "😀", "\\", "\t", "\u0301"])
def test_a_text_s_length_is_counted_in_characters(character: str) -> None:
    for source, limit in (("user_id", 128), ("device_type", 32), ("locale", 32)):
        assert row(**{source: character * limit})[source] == character * limit
        found = fault(**{source: character * (limit + 1)})
        assert (found.code, found.detail) == ("too_long", source)


def test_a_masked_value_may_be_of_any_length() -> None:
    assert row(device_id="x" * 300)["masked_device_id"] == pseudonym("device_id", b"x" * 300)


@pytest.mark.parametrize("source", ["ip", "device_id"])
def test_a_field_s_value_is_in_no_cell_but_its_mask(source: str) -> None:
    value = "199.172.111.135"
    assert not any(value in (cell or "") for cell in row(**{source: value}).values())


IPS = [
    ("199.172.111.135", inet_pton(AF_INET, "199.172.111.135")),
    ("0.0.0.0", bytes(4)),
    ("255.255.255.255", b"\xff" * 4),
    ("::", bytes(16)),
    ("::1", bytes(15) + b"\x01"),
    ("2001:DB8::1", inet_pton(AF_INET6, "2001:db8::1")),
    ("2001:db8:0:0:0:0:0:1", inet_pton(AF_INET6, "2001:db8::1")),
    ("::ffff:199.172.111.135", bytes([199, 172, 111, 135])),
    ("::FFFF:C7AC:6F87", bytes([199, 172, 111, 135])),
]


@pytest.mark.parametrize(("ip", "canonical"), IPS)
def test_equal_addresses_have_equal_masks_however_they_are_written(
    ip: str, canonical: bytes
) -> None:
    assert row(ip=ip)["masked_ip"] == pseudonym("ip", canonical)


@pytest.mark.parametrize(
    "ip",
    [
        *(
            "",
            " ",
            "300.1.2.3",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4 ",
            " 1.2.3.4",
            "1.2.3.4\n",
            "1.2.3.04",
        ),
        *(
            "0x7f.0.0.1",
            "2130706433",
            "1.2.3.-4",
            "1.2.3.4:80",
            "1.2.3.4/32",
            "localhost",
            "1.2.3.4\x00",
        ),
        *(":", ":::", "1::2::3", "fe80::1%eth0", "[::1]", "::1/128", "::ffff:1.2.3", "12345::"),
        *("\u0661.2.3.4", "1\u30022\u30023\u30024", "\U0001f511", "android"),
    ],
)
def test_an_ip_that_inet_pton_refuses_is_a_fault(ip: str) -> None:
    found = fault(ip=ip)
    assert (found.code, found.detail) == ("bad_ip", "ip")


@pytest.mark.parametrize(
    ("value", "number"), [("2", "2000000"), ("2.3", "2003000"), ("2146.999.999", "2146999999")]
)
def test_app_version_is_an_integer(value: str, number: str) -> None:
    assert row(app_version=value)["app_version"] == number


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "bad_version"),
        ("latest", "bad_version"),
        ("1.2.3.4", "bad_version"),
        ("1.2.3\t4", "bad_version"),
        ("1.1000", "version_range"),
        ("2147", "version_range"),
    ],
)
def test_another_app_version_is_a_fault(value: str, code: str) -> None:
    found = fault(app_version=value)
    assert (found.code, found.detail) == (code, "app_version")


@pytest.mark.parametrize(
    ("sent_ms", "day"),
    [
        (1_683_331_199_999, "2023-05-05"),
        (1_683_331_200_000, "2023-05-06"),
        (1_683_417_599_999, "2023-05-06"),
        (1_683_417_600_000, "2023-05-07"),
        (1_709_164_800_000, "2024-02-29"),
        (0, "1970-01-01"),
    ],
)
def test_without_a_date_create_date_is_the_utc_day_of_sending(sent_ms: int, day: str) -> None:
    assert row(sent_ms)["create_date"] == day
    assert row(sent_ms, create_date=None)["create_date"] == day


@pytest.mark.parametrize(
    ("value", "day"),
    [("2020-02-29", "2020-02-29"), ("2020-01-01T00:30:00+01:00", "2019-12-31")],
)
def test_create_date_is_the_day_that_the_message_gives(value: str, day: str) -> None:
    assert row(create_date=value)["create_date"] == day


@pytest.mark.parametrize(
    "value", ["", "2023-02-29", "2023-W18-6", "20230506", "sent_date", "today"]
)
def test_another_date_is_a_fault(value: str) -> None:
    found = fault(create_date=value)
    assert (found.code, found.detail) == ("bad_date", "create_date")


def test_each_message_of_a_batch_has_its_own_day() -> None:
    fields, transformer = BUILT_IN
    times = [0, 86_400_000, 2 * 86_400_000]
    columns = columns_of(fields, [{"user_id": "u"}] * 3)
    found = transformer.lines([message(sent_ms=ms) for ms in times], columns)
    assert [read_copy(line)[-1] for line in found] == ["1970-01-01", "1970-01-02", "1970-01-03"]


AWKWARD = [
    *("\\", "\\\\", "\\N", "\\n", "\\.", "\\t", "\\x41", "\\101", "a\\", "\\\t", "N", "\\\\N"),
    *("\t", "\n", "\r", "\r\n", "\b", "\f", "\v", "\x7f", "\x1b[31m", "a\tb\nc\rd\\e"),
    *('"', "'", '""', ",", "NULL", "null", "--", "'; DROP TABLE user_logins; --", "$1", "%s", "{}"),
    *(
        "😀",
        "👩‍👩‍👧",
        "e\u0301",
        "é",
        "\ufeff",
        "\u200b",
        "\u2028\u2029",
        "\x85\xa0",
        "\uffff",
        "\U0001d7da",
    ),
    *(" ", "  a  ", "", "\u202e", "ﷺ", "a" * 32),
]


@pytest.mark.parametrize("value", AWKWARD)
def test_text_survives_copy_unchanged(value: str) -> None:
    for source in ("user_id", "device_type", "locale"):
        if value or source != "user_id":
            assert row(**{source: value})[source] == value


def test_awkward_texts_of_one_batch_come_back_each_in_its_row() -> None:
    batch = [{"user_id": f"u{i}", "locale": value} for i, value in enumerate(AWKWARD)]
    found = [read_copy(line) for line in lines(*batch)]
    assert [(cells[0], cells[4]) for cells in found] == [
        (f"u{i}", value) for i, value in enumerate(AWKWARD)
    ]


@pytest.mark.parametrize("source", ["user_id", "device_type", "locale"])
@pytest.mark.parametrize("value", ["\x00", "a\x00b", "\x00\\"])
def test_a_nul_cannot_be_stored(source: str, value: str) -> None:
    found = fault(**{source: value})
    assert (found.code, found.detail) == ("nul_character", source)


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\udc00\ud800", "\ud800\\"])
def test_a_lone_surrogate_cannot_be_stored(value: str) -> None:
    # The decoder already refuses them; this second check is for records made otherwise.
    for source in ("user_id", "device_id"):
        [found] = lines({"user_id": "u", source: value})
        assert isinstance(found, PermanentFault)
        assert (found.code, found.detail) == ("bad_unicode", source)


def test_surrogate_halves_in_two_rows_are_both_faults() -> None:
    found = lines({"user_id": "\ud83d"}, {"user_id": "\ude00"})
    assert [getattr(line, "code", line) for line in found] == ["bad_unicode"] * 2


def test_a_fault_stays_in_its_row() -> None:
    good = {"user_id": "good", "ip": "1.2.3.4", "app_version": "1"}
    found = lines(good, {"user_id": "bad", "ip": "x"}, good, {"user_id": "bad", "app_version": "x"})
    assert found[0] == found[2]
    assert read_copy(found[0])[0] == "good"
    assert [getattr(line, "detail", None) for line in found] == [None, "ip", None, "app_version"]


def test_of_several_faults_in_a_row_the_first_column_s_is_raised() -> None:
    assert fault(locale="x" * 33, ip="x", app_version="x", create_date="x").detail == "ip"


def test_an_empty_batch_has_no_lines() -> None:
    assert lines() == []


def test_a_fault_holds_nothing_of_the_value() -> None:
    canary = "canary-4711\x00" + "x" * 128
    for source in ("user_id", "locale", "device_type", "ip", "app_version", "create_date"):
        found = fault(**{source: canary})
        assert "4711" not in f"{found!r} {found.args} {vars(found)}"
        assert found.__context__ is None


def one(
    value: Any, field: Field, column: Column, *, given: bool = True
) -> str | PermanentFault | None:
    [line] = lines({"a": value} if given else {}, plan=compiled([field], [column]))
    return line if isinstance(line, PermanentFault) else read_copy(line)[0]


@pytest.mark.parametrize(
    ("type_", "low", "high"),
    [("int2", -(2**15), 2**15 - 1), ("int4", -(2**31), 2**31 - 1), ("int8", -(2**63), 2**63 - 1)],
)
def test_a_number_s_range_is_checked_before_the_database_sees_it(
    type_: str, low: int, high: int
) -> None:
    field, column = Field(source="a", column="a"), Column("a", type_)
    for number in (low, high, 0, 1, -1):
        assert one(str(number), field, column) == str(number)
    for number in (low - 1, high + 1, 10**39, -(10**39)):
        found = one(str(number), field, column)
        assert isinstance(found, PermanentFault)
        assert (found.code, found.detail) == ("out_of_range", "a")


@pytest.mark.parametrize(
    "value", ["", " 1", "1 ", "1.0", "0x10", "1_000", "\u0661", "--1", "1\n", "x"]
)
def test_what_is_no_integer_does_not_go_to_an_integer_column(value: str) -> None:
    found = one(value, Field(source="a", column="a"), Column("a", "int4"))
    assert isinstance(found, PermanentFault)
    assert found.code == "bad_integer"


def test_the_narrower_of_field_and_column_decides() -> None:
    for field_max, column_max in ((3, None), (None, 3), (3, 9), (9, 3)):
        field = Field(source="a", column="a", length_max=field_max)
        column = Column("a", "varchar", column_max)
        assert one("abc", field, column) == "abc"
        found = one("abcd", field, column)
        assert isinstance(found, PermanentFault)
        assert found.code == "too_long"


def test_a_default_stands_for_a_missing_value_masked_and_escaped_like_any_other() -> None:
    column = Column("a", "text")
    assert one(None, Field(source="a", column="a", default="x\ty"), column) == "x\ty"
    assert one(None, Field(source="a", column="a", default=7), column, given=False) == "7"
    assert one("", Field(source="a", column="a", default="x"), column) == ""
    masked = Field(source="a", column="a", default="x", mask="pseudonymize")
    assert one(None, masked, column) == pseudonym("a", b"x")
    version = Field(source="a", column="a", default="1.2", type="version")
    assert one(None, version, Column("a", "int4")) == "1002000"
    dated = Field(source="a", column="a", default="2020-01-02", type="date")
    assert one(None, dated, Column("a", "date")) == "2020-01-02"


@pytest.mark.parametrize(
    ("field", "column"),
    [
        (Field(source="a", column="a", default="latest", type="version"), Column("a", "int4")),
        (Field(source="a", column="a", default="tomorrow", type="date"), Column("a", "date")),
        (Field(source="a", column="a", default="abcd"), Column("a", "varchar", 3)),
        (Field(source="a", column="a", default="x"), Column("a", "int4")),
        (Field(source="a", column="a", default=2**15), Column("a", "int2")),
        (Field(source="a", column="a", default="\x00"), Column("a", "text")),
        (Field(source="a", column="a", default="x", mask="redact", kind="ip"), Column("a", "text")),
    ],
)
def test_a_default_that_does_not_fit_is_reported_at_start(field: Field, column: Column) -> None:
    with pytest.raises(SettingsError, match="the default of field 'a' cannot be written"):
        compiled([field], [column])


def test_a_column_that_is_not_null_wants_a_value_or_a_default() -> None:
    column = Column("a", "text", nullable=False)
    found = one(None, Field(source="a", column="a"), column)
    assert isinstance(found, PermanentFault)
    assert (found.code, found.detail, found.stage) == ("missing_field", "a", Stage.MASK)
    assert one(None, Field(source="a", column="a", default="x"), column) == "x"
    assert one("y", Field(source="a", column="a"), column) == "y"
    sent = Field(source="a", column="a", type="date", default="sent_date")
    assert one(None, sent, Column("a", "date", nullable=False)) == SENT_DAY


def test_a_day_that_does_not_fit_its_column_is_a_fault() -> None:
    sent = Field(source="a", column="a", type="date", default="sent_date")
    found = one(None, sent, Column("a", "varchar", length_max=9))
    assert isinstance(found, PermanentFault)
    assert (found.code, found.detail) == ("too_long", "a")


def test_a_mask_that_gives_nothing_gives_null() -> None:
    plan = Transformer([Field(source="a", column="a")], [Column("a", "text")], [lambda _: None])
    assert plan.lines([message()], [["x"]]) == ["\\N\n"]


def test_each_distinct_value_of_a_batch_is_masked_once() -> None:
    seen: list[str] = []

    def mask(value: str) -> str:
        seen.append(value)
        return value.upper()

    fields, columns = [Field(source="a", column="a")], [Column("a", "text")]
    plan = Transformer(fields, columns, [mask])
    found = plan.lines([message()] * 300, [["xyz"[i % 3] for i in range(300)]])
    assert found == ["X\n", "Y\n", "Z\n"] * 100
    assert sorted(seen) == ["x", "y", "z"]


def test_a_fault_of_a_mask_is_not_passed_by() -> None:
    def broken(_value: str) -> str:
        raise RuntimeError

    fields, columns = [Field(source="a", column="a")], [Column("a", "text")]
    plan = Transformer(fields, columns, [broken])
    with pytest.raises(RuntimeError):  # stops the process: nothing is ever written unmasked
        plan.lines([message()], [["x"]])


def test_fields_that_share_a_domain_join_and_others_do_not() -> None:
    fields = [
        Field(source="a", column="a", mask="pseudonymize", domain="person"),
        Field(source="b", column="b", mask="pseudonymize", domain="person"),
        Field(source="c", column="c", mask="pseudonymize"),
    ]
    plan = compiled(fields, [Column(name, "text") for name in "abc"])
    [line] = lines({"a": "x", "b": "x", "c": "x"}, plan=plan)
    a, b, c = read_copy(line)
    assert a == b == pseudonym("person", b"x")
    assert c == pseudonym("c", b"x")


def test_sha256_is_that_of_the_raw_text() -> None:
    field = Field(source="a", column="a", mask="sha256", kind="ip")
    for ip in ("1.2.3.4", "::FFFF:1.2.3.4"):
        assert one(ip, field, Column("a", "text")) == hashlib.sha256(ip.encode()).hexdigest()
    found = one("x", field, Column("a", "text"))
    assert isinstance(found, PermanentFault)
    assert found.code == "bad_ip"


def encrypted(**values: Any) -> tuple[Sequence[Field], Transformer]:
    field = Field(source="a", column="a", mask="encrypt", domain="d", **values)
    operator = compile_operator("encrypt", kind="text", domain="d", keyring=Roots())
    column = Column("a", "varchar", 200)
    return [field], Transformer([field], [column], [operator])


def test_a_mask_that_draws_a_nonce_is_made_for_every_row() -> None:
    got = lines({"a": "x"}, {"a": "x"}, {"a": None}, {}, plan=encrypted())
    tokens = [str(line).rstrip("\n") for line in got]
    assert tokens[2:] == ["\\N", "\\N"]
    assert len(set(tokens[:2])) == 2
    for token in tokens[:2]:
        assert open_mask(token, kind="text", domain="d", keyring=Roots()) == "x"


def test_a_default_is_encrypted_apart_for_every_row_too() -> None:
    got = lines({}, {"a": None}, {"a": "x"}, plan=encrypted(default="x"))
    tokens = [str(line).rstrip("\n") for line in got]
    assert len(set(tokens)) == 3
    opened = {open_mask(t, kind="text", domain="d", keyring=Roots()) for t in tokens}
    assert opened == {"x"}


def test_an_encrypted_value_that_does_not_fit_is_a_fault_of_its_row_alone() -> None:
    got = lines({"a": "ok"}, {"a": "x" * 200}, {"a": "ok"}, plan=encrypted())
    assert [getattr(line, "code", "") for line in got] == ["", "too_long", ""]
    assert isinstance(got[1], PermanentFault)
    assert got[1].detail == "a"


def test_a_mask_of_null_writes_null_whatever_the_column() -> None:
    field = Field(source="a", column="a", mask="nullify", type="version")
    operator = compile_operator("nullify", kind="text", domain="d", keyring=None)
    plan = Transformer([field], [Column("a", "int4")], [operator])
    assert lines({"a": "1.2"}, {"a": "x"}, {}, plan=([field], plan)) == ["\\N\n"] * 3
