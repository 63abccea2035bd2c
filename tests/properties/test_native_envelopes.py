"""Compressed bodies: both executors make the same of what is in them, whatever that is."""

from __future__ import annotations

import base64
import functools
import gzip
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.mapping.native_encoder import Packed
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.settings import EnvelopeSettings, Field, Settings
from tests.logins import TARGET, login, whole_login
from tests.native import SENT_MS, Both

SNS = '{"Type":"Notification","MessageId":"m","TopicArn":"t","Timestamp":"s","Message":%s}'


def packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 1, mtime=0)).decode()


def messages(bodies: Sequence[str], **attributes: str) -> list[Message]:
    given = {name: MessageAttribute("String", text) for name, text in attributes.items()}
    sent = SystemAttributes(SENT_MS)
    return [
        Message(f"00000000-0000-4000-8000-{number:012}", "-", body, sent, given or None)
        for number, body in enumerate(bodies)
    ]


def settings_of(*layers: Any, records: Any = "one") -> Settings:
    return Settings(envelope=EnvelopeSettings(layers=layers, records=records))


@functools.cache
def gzip_of_both() -> Both:
    return Both(settings_of("gzip"))


@given(st.one_of(st.binary(max_size=12), st.text(max_size=6).map(str.encode)), st.integers(0, 40))
def test_only_utf_8_is_taken(inside: bytes, before: int) -> None:
    """The check is eight bytes at a time: what stands before decides where it begins."""
    content = b'{"user_id":"u' + b"x" * before + inside.translate(None, b'"\\\x00') + b'"}'
    [body] = messages([packed(content)])
    gzip_of_both().check_message(body)


@pytest.mark.parametrize(
    "bad",
    [
        *(b"\x80", b"\xc1\xbf", b"\xc3", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xe2\x82"),
        *(b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xf0\x9f\x98"),
    ],
)
def test_what_is_no_utf_8_is_left(bad: bytes) -> None:
    good = "ü€\U0001f600".encode()
    for content in (good + bad, bad + good, bad, b"x" * 30 + bad + b"x" * 30):
        [body] = messages([packed(b'{"user_id":"' + content + b'"}')])
        assert gzip_of_both().check_message(body) is None
    [body] = messages([packed(b'{"user_id":"' + good + b'"}')])
    assert gzip_of_both().check_message(body) is not None


@pytest.mark.parametrize(
    ("layers", "records"),
    [
        (("gzip",), "one"),
        (("gzip",), "array"),
        (("gzip",), "lines"),
        (("auto",), "auto"),
        (("content_encoding", "base64"), "one"),
        (("sns", "gzip"), "auto"),
        (("s3", "base64"), "one"),
    ],
)
def test_both_executors_agree_on_compressed_bodies(layers: Any, records: Any) -> None:
    both = Both(settings_of(*layers, records=records))
    one, more = login("a"), whole_login(locale="ü\U0001f600")
    contents = [
        *(one, more, f"[{one},{more}]", "[]", f"{one}\n{more}\n", "", "\ufeff" + one),
        *('{"user_id":3}', "no json", f"[{one},3]", f"{one}\n[]", '{"note":"s3BucketName"}'),
    ]
    bodies = [packed(content.encode()) for content in contents]
    bodies += [*contents, *(base64.b64encode(content.encode()).decode() for content in contents)]
    bodies += [SNS % f'"{body}"' for body in bodies[:6]]
    units = messages(bodies)
    units[3].payload = base64.b64encode(one.encode())
    native = both.check_batch(units)
    assert native.taken == len(units)
    assert both.check_batch(messages(bodies, **{"Content-Encoding": "gzip"})).taken == len(units)
    assert 0 < native.count < len(units)


def test_what_an_envelope_says_is_left_to_python() -> None:
    said = Field(column="locale", default="attribute:sns.Subject")
    fields = (*settings_of().fields[:4], said)
    for layers, fast in ((("gzip",), True), (("auto",), False), (("sns", "zstd"), False)):
        settings = Settings(field=fields, envelope=EnvelopeSettings(layers=layers))
        both = Both(settings, [TARGET[:5]])
        assert (both.fast_or_none is not None) is fast
        if fast:
            both.check_batch(messages([packed(login("a").encode()), login("b")]))


def test_a_part_ends_with_the_unit_that_reaches_a_bound() -> None:
    both = Both(settings_of("gzip", records="array"))
    units = messages([packed(f"[{login('a')},{login('b')}]".encode()), packed(b"[3]")] * 4)
    alone = both.pack(units[:1])
    assert alone is not None
    used = len(f"[{login('a')},{login('b')}]") + len(alone.targets[0][0])
    for bounds, taken in (
        ((0, 0), 8),
        ((1, 0), 1),
        ((0, 1), 1),
        ((0, 3), 2),
        ((0, 10**6), 8),
        ((used, 0), 1),
        ((used + 1, 0), 2),
        ((10**6, 10**6), 8),
    ):
        found = both.fast.pack(units, b"1\n", 0, False, b"", *bounds)
        assert found is not None
        packed_units = Packed(*found)
        assert packed_units.taken == taken, bounds
        assert len(packed_units.left) == taken // 2


def test_the_lines_of_one_unit_have_a_bound() -> None:
    both = Both()
    units = messages([login("a"), whole_login(), login("b")])
    found = both.fast.pack(units, b"1\n", 0, False, b"", 0, 0, len(login("a")) + 60)
    assert found is not None
    assert Packed(*found).left == (1,)


def test_an_envelope_that_raises_ends_the_batch() -> None:
    def refuse(_: Message) -> str:
        raise MemoryError

    plain = Both()
    with pytest.raises(MemoryError):
        plain.fast.pack(messages([login("a")]), b"1\n", 0, False, b"", 0, 0, 0, refuse)  # type: ignore[call-arg]


def test_c_reads_what_is_in_compressed_bodies() -> None:
    found = gzip_of_both().pack(messages([packed(whole_login().encode())]))
    assert found is not None
    assert not found.left
