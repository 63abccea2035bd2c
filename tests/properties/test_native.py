"""The native fast path gives the line that Python gives, or none: over generated, changed and
frozen bodies.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.errors import PermanentFault
from sqs2pg.keys.derive import pseudonym_key
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile_encoder import compile_encoder
from sqs2pg.mapping.ledger_key import line_mark
from sqs2pg.mapping.line_units import LineUnits
from sqs2pg.mapping.native_encoder import Keying, NativeEncoder, Packed
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.pseudonymize import pseudonymize
from sqs2pg.mask.registry import compile_operator
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.native import API
from sqs2pg.native import extension as usable
from sqs2pg.settings import Field, Settings
from tests.logins import TARGET, whole_login
from tests.native import (
    KEY,
    LEFT,
    SENT_MS,
    TAKEN,
    Both,
    both,
    extension,
    masks_of,
    with_queue_id,
)

NAME = "0dfaf1e2-87a4-4a5c-9f0c-5d9a1b2c3d4e"
VECTORS = Path(__file__).parents[1] / "vectors"


def test_the_extension_takes_a_usual_login() -> None:
    ip = hmac.digest(KEY, bytes([199, 172, 111, 135]), "sha256").hex()[:32]
    device = hmac.digest(KEY, b"593-47-5928", "sha256").hex()[:32]
    assert both().check(whole_login()) == (
        f"424cdd21-063a-43a7-b91b-7ca1a833afae\tandroid\tv1_{ip}\tv1_{device}\tRU\t2003000"
        "\t2026-11-22\n"
    )


@pytest.mark.parametrize("body", TAKEN)
def test_plain_bodies_are_taken(body: str) -> None:
    assert both().check(body)


@pytest.mark.parametrize("body", LEFT)
def test_an_unusual_body_is_left_to_python(body: str) -> None:
    assert both().check(body) is None


@pytest.mark.parametrize(
    ("escape", "taken"),
    [
        (r"\u0041", True),
        (r"\ud83d\ude00", True),
        (r"\u0000", False),  # no text of PostgreSQL
        (r"\ud83d", False),  # the first half of a character alone, and the second one
        (r"\ude00", False),
        (r"\ude00\ude00", False),
        (r"\ud83d\ud83d", False),
        (r"\ud83d\u0041", False),
        (r"\ud83dxude00", False),
        (r"\ud83d\n\ude00", False),
    ],
)
def test_escapes_of_characters_and_of_their_halves(escape: str, taken: bool) -> None:
    line = both().check(f'{{"user_id":"u","locale":"{escape}"}}')
    assert (line is not None) == taken


@given(sent_ms=st.integers(0, 253_402_300_799_999))
@example(951_782_400_000)  # 2000-02-29
@example(4_107_542_399_999)  # the last of 2100-02-28, which is followed by March
@example(0)
def test_the_extension_and_python_agree_on_the_day_of_sending(sent_ms: int) -> None:
    assert both().check('{"user_id":"u"}', sent_ms)


@pytest.mark.parametrize("sent_ms", [-1, 253_402_300_800_000, 2**63])
def test_a_time_beyond_every_date_is_left_to_python(sent_ms: int) -> None:
    assert both().check('{"user_id":"u"}', sent_ms) is None


VALUES = st.one_of(
    st.none(),
    st.text(max_size=140),
    st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=140),
    st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){0,4}", fullmatch=True),
    st.ip_addresses().map(str),
    st.dates().map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(st.integers(), max_size=2),
)
NAMES = [field.source for field in Settings().fields]


@given(st.dictionaries(st.sampled_from([*NAMES, "more", "user_id "]), VALUES), st.booleans())
def test_generated_bodies(body: Mapping[str, Any], ascii_only: bool) -> None:
    both().check(json.dumps(body, ensure_ascii=ascii_only))


@given(st.data())
def test_changed_bodies(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(TAKEN))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        drop = data.draw(st.integers(0, 2))
        put = data.draw(st.sampled_from(['"', "\\", "{", "}", ",", ":", "null", "0", ".", " ", ""]))
        body = body[:at] + put + body[at + drop :]
    both().check(body)


def test_many_generated_logins() -> None:
    lines = [both().check(body) for body in logins(3_000, seed=1, bad_share=0.05)]
    assert sum(line is not None for line in lines) > 2_500
    assert None in lines


@given(
    st.one_of(
        st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){1,4}", fullmatch=True),
        st.ip_addresses().map(str),
        st.text(max_size=20),
        st.text("ab:.0é\u0301\x00", max_size=20),
    ),
    st.sampled_from(["pseudonymize", "keep", "sha256", "redact"]),
)
def test_an_address_or_a_text_is_masked_alike(value: str, name: str) -> None:
    field = Field(source="v", column="v", mask=name, kind="ip", otherwise="text")
    ring = Keyring({1: bytes(range(32))})
    mask = compile_operator(name, kind=field.mask_kind, domain="v", keyring=ring)
    settings = Settings(field=(field,), i_accept_reversible=True)
    encoder = compile_encoder(settings, [[Column("v", "text")]], [[mask]], extension())
    python = compile_encoder(settings, [[Column("v", "text")]], [[mask]], None)
    assert isinstance(encoder, NativeEncoder)
    units = [Message(NAME, "h", json.dumps({"v": value}), SystemAttributes(SENT_MS))]
    native, reference = encoder.encode(units, "\n"), python.encode(units, "\n")
    assert native.targets == reference.targets
    assert [one.fault.code for one in native.faults] == [one.fault.code for one in reference.faults]
    if value.isascii() and ":" not in value and "\0" not in value:
        assert native.decoded_at is None, "by C alone"


def test_the_extension_gives_the_frozen_pseudonyms() -> None:
    frozen = json.loads((VECTORS / "pseudonym.json").read_text())
    ring = Keyring({int(version): bytes.fromhex(r) for version, r in frozen["roots"].items()})
    taken = 0
    for vector in frozen["vectors"]:
        if "token" not in vector:
            continue
        key = pseudonym_key(ring.root("pseudonym", vector["version"]), vector["domain"])
        more = {"otherwise": vector["otherwise"]} if "otherwise" in vector else {}
        field = Field(source="v", column="v", mask="pseudonymize", kind=vector["kind"], **more)
        mask = pseudonymize(vector["version"], key, CANONICAL[field.mask_kind])
        settings = Settings(field=(field,))
        encoder = compile_encoder(settings, [[Column("v", "text")]], [[mask]], extension())
        assert isinstance(encoder, NativeEncoder)
        body = json.dumps({"v": vector["value"]}, ensure_ascii=False)
        encoded = encoder.encode([Message(NAME, "h", body, SystemAttributes(SENT_MS))], "\n")
        taken += encoded.decoded_at is None  # by C alone
        assert encoded.targets == [(vector["token"].encode() + b"\n", 1)]
    assert taken >= 10


@given(key=st.binary(max_size=64), value=st.text(alphabet="a", max_size=300))
def test_hmac_of_every_length(key: bytes, value: str) -> None:
    settings = Settings(field=(Field(source="v", column="v", mask="pseudonymize"),))
    masks = masks_of(settings, key)
    encoder = compile_encoder(settings, [[Column("v", "text")]], masks, extension())
    body = json.dumps({"v": value})
    encoded = encoder.encode([Message(NAME, "h", body, SystemAttributes(SENT_MS))], "\n")
    token = f"v1_{hmac.digest(key, value.encode(), hashlib.sha256).hex()[:32]}\n"
    assert encoded.targets == [(token.encode(), 1)]
    assert encoded.decoded_at is None, "C made it alone"


ID = st.uuids(version=4).map(str)
LOGINS = list(logins(50, seed=9))


@given(
    st.lists(st.tuples(ID, st.integers(0, 2**48 - 1)), min_size=1, max_size=50, unique_by=str),
    st.booleans(),
)
def test_a_packed_batch_is_what_python_would_copy(
    sent: list[tuple[str, int]], in_order: bool
) -> None:
    sent = sorted(sent, key=lambda pair: pair[1]) if in_order else sent
    sent = [(message_id, min(ms, SENT_MS)) for message_id, ms in sent]
    messages = [
        Message(message_id, "h", body, SystemAttributes(ms))
        for (message_id, ms), body in zip(sent, LOGINS, strict=False)
    ]
    assert both().check_batch(messages).decoded_at is None, "C made it alone"


@pytest.mark.parametrize(
    "odd",
    [
        Message(NAME.upper(), "h", whole_login(), SystemAttributes(SENT_MS)),
        Message(NAME.replace("9f0c", "ff0c"), "h", whole_login(), SystemAttributes(SENT_MS)),
        Message(NAME[:-1], "h", whole_login(), SystemAttributes(SENT_MS)),
        Message(NAME + "0", "h", whole_login(), SystemAttributes(SENT_MS)),
        Message(NAME.replace("-", "_"), "h", whole_login(), SystemAttributes(SENT_MS)),
        Message(
            "\N{DIGIT ONE}" * 35 + "\N{SUPERSCRIPT TWO}", "h", whole_login(), SystemAttributes(1)
        ),
        Message(NAME, "h", whole_login(), SystemAttributes(-1)),
        Message(NAME, "h", whole_login(create_date="2026-01-01"), SystemAttributes(2**48)),
        # Another message with the same key: only the last 74 bits of the id are in it.
        Message("ffffffff-ffff-4" + NAME[15:], "h", whole_login(), SystemAttributes(SENT_MS)),
        Message("ffffffff-ffff-4" + NAME[15:], "h", "not json", SystemAttributes(SENT_MS)),
        # Versions whose last bits are not random: Python hashes the whole id.
        *(
            Message(f"ffffffff-ffff-{version}{NAME[15:]}", "h", whole_login(), SystemAttributes(1))
            for version in "01235678f"
        ),
    ],
)
def test_a_batch_with_an_unusual_message_id_is_not_packed(odd: Message) -> None:
    twin = Message("00000000-0000-4" + NAME[15:], "h", whole_login(), SystemAttributes(SENT_MS))
    assert both().pack([twin])
    assert both().pack([twin, odd]) is None
    assert both().pack([odd, twin]) is None


def test_a_batch_without_units_is_not_packed() -> None:
    assert both().pack([]) is None


def test_a_unit_that_comes_twice_has_one_row() -> None:
    first, second = (
        Message(NAME, handle, whole_login(), SystemAttributes(SENT_MS)) for handle in "ab"
    )
    other = Message(NAME.replace("0", "1"), "c", whole_login(), SystemAttributes(SENT_MS))
    bad = Message(NAME.replace("0", "2"), "d", "{}", SystemAttributes(SENT_MS))
    encoded = both().check_batch([first, bad, other, second, bad, first])
    assert (encoded.count, list(encoded.repeats)) == (2, [3, 4, 5])
    assert [fault.unit for fault in encoded.faults] == [1]


@pytest.mark.parametrize(("keying", "in_order"), [("undated", True), ("lines", False)])
def test_the_rows_of_fifo_queues_and_archives(keying: Keying, in_order: bool) -> None:
    ids = [NAME.replace("4a5c", f"{8 if keying == 'lines' else 4}{at:03x}") for at in (3, 1, 2)]
    units = [
        Message(name, "h", body, SystemAttributes(SENT_MS - number))
        for number, (name, body) in enumerate(zip(ids, LOGINS, strict=False))
    ]
    masks = masks_of(Settings())
    made = [
        compile_encoder(Settings(), [TARGET], masks, module, keying=keying).encode(units, "1\n")
        for module in (extension(), None)
    ]
    assert made[0].decoded_at is None, "C made it alone"
    assert made[0].ledger == made[1].ledger
    assert made[0].targets == made[1].targets
    assert [row.message_id for row in made[0].rows] == [row.message_id for row in made[1].rows]
    assert ([row.message_id for row in made[0].rows] == ids) is in_order


def test_units_that_must_be_left_are_left() -> None:
    units = [
        Message(NAME.replace("0", str(at)), "h", LOGINS[at], SystemAttributes(SENT_MS))
        for at in range(3)
    ]
    packed = both().fast.pack(units, b"1\n", 0, False, b"\0\1\0")
    assert packed is not None
    assert Packed(*packed).left == (1,)
    with pytest.raises(ValueError, match="mark"):
        both().fast.pack(units, b"1\n", 0, False, b"\0\1")
    with pytest.raises(ValueError, match="keying"):
        both().fast.pack(units, b"1\n", 3, False, b"")


def test_a_packed_batch_says_what_it_leaves() -> None:
    bodies = ["not json", LOGINS[0], "{}", whole_login(ip="::1"), LOGINS[1]]
    sent = [SENT_MS, SENT_MS - 2, SENT_MS - 1, SENT_MS - 3, SENT_MS - 4]
    messages = [
        Message(f"00000000-0000-4000-8000-00000000000{number}", "h", body, SystemAttributes(ms))
        for number, (body, ms) in enumerate(zip(bodies, sent, strict=True))
    ]
    packed = both().pack(messages)
    assert packed is not None
    assert packed.left == (3,)
    assert [verdict[0] for verdict in packed.verdicts] == [0, 2]
    assert [fault.unit for fault in both().check_batch(messages).faults] == [0, 2]


def test_a_batch_says_what_is_wrong_and_leaves_what_may_be_right() -> None:
    """Faults of both executors, in the order of their units, where C is certain of some."""
    version, address = whole_login(app_version="1.x"), whole_login(ip="1.2.3")
    odd = whole_login(create_date="2016-12-31T23:59:60Z")  # only Python reads a leap second
    bodies = [version, LOGINS[0], odd, '{"user_id":"\\u0000"}', address, "[", odd, LOGINS[1]]
    messages = [
        Message(
            f"00000000-0000-4000-8000-00000000000{number}", "h", body, SystemAttributes(SENT_MS)
        )
        for number, body in enumerate(bodies)
    ]
    packed = both().pack(messages)
    assert packed is not None
    assert packed.left == (3,)
    assert [verdict[0] for verdict in packed.verdicts] == [0, 2, 4, 5, 6]
    made = both().check_batch(messages)
    assert [(unit, fault.code, fault.detail) for unit, _, fault in made.faults] == [
        (0, "bad_version", "app_version"),
        (3, "nul_character", "user_id"),
        (4, "bad_ip", "ip"),
        (5, "not_json", ""),
    ]
    assert made.count == 4


def test_a_field_nobody_named_is_left_where_that_is_a_fault() -> None:
    both = Both(Settings(unknown_fields="quarantine"))
    assert both.check(whole_login())
    assert both.check(whole_login(more="x")) is None


def test_columns_that_take_no_null_leave_it() -> None:
    columns = [Column("a", "text", nullable=False), Column("b", "numeric"), Column("c", "text")]
    fields = (
        Field(source="a", column="a"),
        Field(source="v", column="b", type="version"),
        Field(source="a", column="c", length_max=3),
    )
    both = Both(Settings(field=fields), [columns])
    assert both.check('{"a":"x","v":"1.2"}') == "x\t1002000\tx\n"
    assert both.check('{"v":"1"}') is None
    assert both.check('{"a":"long"}') is None


def test_an_extension_that_is_older_or_turned_off_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sqs2pg.native.EXTENSION", extension())
    assert usable({}) is extension()
    assert usable({"SQS2PG_NATIVE": "0"}) is None
    older = type(extension())("older")
    older.API = API - 1
    monkeypatch.setattr("sqs2pg.native.EXTENSION", older)
    assert usable({}) is None


def test_an_object_that_is_not_a_message_raises() -> None:
    with pytest.raises(AttributeError):
        both().pack([object()])  # type: ignore[list-item]


def assigned() -> list[str]:
    """Every character that Unicode says something about: an eighth of all code points."""
    characters = map(chr, range(1, 0x110000))
    return [one for one in characters if unicodedata.category(one) not in {"Cn", "Co", "Cs"}]


def composing(characters: list[str]) -> set[str]:
    """The characters that a character before them may absorb in Normalization Form C."""
    found = set()
    for whole in filter(unicodedata.decomposition, characters):
        found |= set(unicodedata.normalize("NFD", whole)[1:])
    # Hangul's vowels and final consonants compose by a rule, not by a table.
    return found | set(map(chr, range(0x1160, 0x1200)))


def test_only_characters_that_every_neighbour_leaves_alone_are_masked_natively() -> None:
    settings = Settings(field=(Field(source="v", column="v", mask="pseudonymize"),))
    both = Both(settings, [[Column("v", "text")]])
    characters = assigned()
    messages = [
        Message("m", "h", json.dumps({"v": one}), SystemAttributes(SENT_MS)) for one in characters
    ]
    packed = both.pack([with_queue_id(message, at) for at, message in enumerate(messages)])
    assert packed is not None
    taken = set(characters) - {characters[at] for at in packed.left}
    assert len(taken) > 30_000
    assert taken >= set(map(chr, range(1, 0x300)))  # all of them are assigned
    assert not {c for c in taken if unicodedata.combining(c)}
    assert not {c for c in taken if unicodedata.normalize("NFC", c) != c}
    assert not taken & composing(characters)
    for character in "é한日🙂ж":
        both.check(json.dumps({"v": character}))


def test_lines_of_an_archive_are_packed_without_messages() -> None:
    bodies = [whole_login(user_id=f"u{number}").encode() for number in range(40)]
    bodies[3] = b"not json"
    bodies[5] = whole_login(user_id="\xe9").encode() + b" \r"
    bodies[7] = b'{"user_id": "\xff"}'
    bodies[9] = b'{"user_id": "\xed\xa0\x80"}'
    units = LineUnits(bodies, None, day_ms=SENT_MS, mark=line_mark(1, "sha256:0"), first=16)
    unread = {units.id_of(0): PermanentFault("csv_fields", "line 2")}
    found = both().check_batch(units, unread)
    assert [fault.unit for fault in found.faults] == [0, 3, 7, 9]
    assert (found.count, found.faults[0].fault.code) == (36, "csv_fields")
    pack_lines = both().fast.pack_lines
    assert pack_lines is not None
    rest = (None, SENT_MS, units.prefix.encode(), 16, b"1\n", b"")
    packed = pack_lines(units.content, *rest)
    assert packed is not None
    assert packed == pack_lines(b"\n".join(bodies), *rest)
    assert packed == pack_lines(b"\n".join(bodies) + b"\n", *rest)
    assert Packed(*packed).left == (7, 9)
    assert [verdict[0] for verdict in Packed(*packed).verdicts] == [3]
    prefix = units.prefix.encode()
    for wrong in (
        ((b"{}",), (1, 2), 0, prefix, 0, b"", b""),
        ((b"{}",), [1], 0, prefix, 0, b"", b""),
        ((b"{}",), None, 0, prefix + b"0", 0, b"", b""),
        ((b"{}",), None, 0, prefix, 0, b"", b"xx"),
        (("{}",), None, 0, prefix, 0, b"", b""),
        (((b"{}"),), ("1",), 0, prefix, 0, b"", b""),
    ):
        with pytest.raises((ValueError, TypeError)):
            pack_lines(*wrong)  # type: ignore[arg-type]
    # A time that no key can have, or a line over the last number: Python makes the batch.
    assert pack_lines((b"{}",), (-1,), 0, prefix, 0, b"", b"") is None
    assert pack_lines((), None, 0, prefix, 0, b"", b"") is None


def test_lines_have_the_attributes_of_their_object_in_both_executors() -> None:
    fields = (
        Field(source="id", column="id"),
        Field(column="key", default="attribute:s3.key"),
        Field(column="more", default="attribute:more"),
        Field(column="none", default="attribute:none"),
    )
    pair = Both(Settings(field=fields), [[Column(field.column, "text") for field in fields]])
    given = {
        "s3.key": MessageAttribute("String", "a\tb\N{EURO SIGN}"),
        "more": MessageAttribute("Binary", None, "YQ=="),
    }
    bodies = [b'{"id": "x"}', b'{"id": "y"}']
    mark = line_mark(1, "etag:0")
    units = LineUnits(bodies, None, day_ms=SENT_MS, mark=mark, first=3, attributes=given)
    found = pair.check_batch(units)
    assert found.targets[0].text.decode().splitlines() == [
        "x\ta\\tb\N{EURO SIGN}\tYQ==\t\\N",
        "y\ta\\tb\N{EURO SIGN}\tYQ==\t\\N",
    ]
    assert found.decoded_at is None, "C made it alone"
    assert pair.check_batch(units[1:]).targets[0].rows == 1
    # A text that PostgreSQL does not take: Python decides.
    odd = LineUnits(
        bodies,
        None,
        day_ms=SENT_MS,
        mark=mark,
        first=3,
        attributes={"s3.key": MessageAttribute("String", "\0")},
    )
    assert [fault.fault.code for fault in pair.check_batch(odd).faults] == ["nul_character"] * 2


def test_a_phone_number_has_at_most_fifteen_digits_in_both_executors() -> None:
    settings = Settings(field=(Field(source="v", column="v", mask="pseudonymize", kind="phone"),))
    pair = Both(settings, [[Column("v", "text")]])
    values = ["1", "1" * 15, "1" * 16, "+1 (234) 567-890.123/45", "+1 (234) 567-890.123/456"]
    messages = [
        with_queue_id(Message("m", "h", json.dumps({"v": value}), SystemAttributes(SENT_MS)), at)
        for at, value in enumerate(values)
    ]
    found = pair.check_batch(messages)
    assert [number for number, *_ in found.faults] == [2, 4]
    packed = pair.pack(messages)
    assert packed is not None
    assert not packed.left, "C alone decides"
