"""The ledger's key: RFC 9562's layout, and the same key for every delivery of a message."""

from __future__ import annotations

import hashlib
import hmac
import random
import uuid
from datetime import UTC, date, datetime

import pytest

from sqs2pg.mapping.ledger_key import (
    DAY_MS,
    UNDATED_MS,
    EventKeys,
    day_of,
    delivery_key,
    delivery_keys,
    line_id,
    line_keys,
    line_mark,
    sent_ms_of,
    today,
)

SENT_MS = 1_700_000_000_123
MESSAGE_ID = "5fea7756-0ea4-451a-a703-a558b933e274"

NOT_UUIDS = [
    pytest.param("", id="empty"),
    pytest.param("not-a-uuid", id="word"),
    pytest.param(MESSAGE_ID.upper(), id="upper case"),
    pytest.param(MESSAGE_ID.replace("-", ""), id="no hyphens"),
    pytest.param("{" + MESSAGE_ID + "}", id="braces"),
    pytest.param(MESSAGE_ID + "\n", id="trailing newline"),
    pytest.param(MESSAGE_ID[:-1], id="short"),
    pytest.param(MESSAGE_ID + "0", id="long"),
    pytest.param("5fea7756-0ea4-451a-0703-a558b933e274", id="another variant"),
    pytest.param("5fea7756-0ea4-451a-c703-a558b933e274", id="Microsoft's variant"),
    pytest.param("\u0665fea7756-0ea4-451a-a703-a558b933e274", id="a digit that is not ASCII"),
    pytest.param("🔑" * 40, id="emoji"),
    pytest.param("\ud800", id="lone surrogate"),
    pytest.param("x" * 100_000, id="huge"),
]


def test_the_key_of_a_uuid_is_frozen() -> None:
    assert delivery_key(MESSAGE_ID, SENT_MS) == "018bcfe5-687b-751a-a703-a558b933e274"


def test_the_key_of_another_id_is_frozen() -> None:
    assert delivery_key("not-a-uuid", SENT_MS) == "018bcfe5-687b-7218-a32a-3bae6ad756d7"


def test_a_uuid_of_version_4_keeps_its_last_74_random_bits() -> None:
    ours, theirs = uuid.UUID(delivery_key(MESSAGE_ID, SENT_MS)), uuid.UUID(MESSAGE_ID)
    kept = (0xFFF << 64) | (2**64 - 1)
    assert ours.int & kept == theirs.int & kept


@pytest.mark.parametrize("message_id", NOT_UUIDS)
def test_another_id_gives_the_leading_bits_of_its_sha256(message_id: str) -> None:
    digest = int(hashlib.sha256(message_id.encode("utf-8", "surrogatepass")).hexdigest()[:20], 16)
    key = uuid.UUID(delivery_key(message_id, SENT_MS)).int
    assert (key >> 64) & 0xFFF == digest >> 68
    assert key & (2**62 - 1) == digest & (2**62 - 1)


@pytest.mark.parametrize("message_id", [MESSAGE_ID, *NOT_UUIDS])
def test_every_key_has_the_layout_of_version_7(message_id: str) -> None:
    for sent_ms in (0, 1, SENT_MS, 253_402_300_799_999, 2**48 - 1):
        text = delivery_key(message_id, sent_ms)
        key = uuid.UUID(text)
        assert str(key) == text  # canonical text: what PostgreSQL gives back compares equal
        assert key.version == 7
        assert key.variant == uuid.RFC_4122
        assert key.int >> 80 == sent_ms == sent_ms_of(text)


def test_redeliveries_have_one_key_and_other_messages_or_times_another() -> None:
    key = delivery_key(MESSAGE_ID, SENT_MS)
    assert key == delivery_key(MESSAGE_ID, SENT_MS)
    assert key != delivery_key(MESSAGE_ID, SENT_MS + 1)
    assert key != delivery_key(MESSAGE_ID[:-1] + "5", SENT_MS)
    assert key != delivery_key(MESSAGE_ID.upper(), SENT_MS)


def test_two_uuids_of_version_4_that_differ_before_their_last_74_bits_share_a_key() -> None:
    other = "00000000-0000-4" + MESSAGE_ID[15:]
    assert delivery_key(other, SENT_MS) == delivery_key(MESSAGE_ID, SENT_MS)


@pytest.mark.parametrize("version", [v for v in range(16) if v != 4])
def test_ids_of_another_version_that_differ_in_their_time_alone_have_keys_of_their_own(
    version: int,
) -> None:
    # RFC 9562, section 5.1: the last bits of version 1 are a clock sequence and a node, the same
    # for every id that one machine makes.
    ids = [f"{ticks:08x}-0ea4-{version:x}51a-a703-a558b933e274" for ticks in range(40)]
    keys = [delivery_key(message_id, SENT_MS) for message_id in ids]
    assert len(set(keys)) == 40
    assert delivery_keys(ids, [SENT_MS] * 40) == keys
    assert delivery_keys([*ids, MESSAGE_ID], [SENT_MS] * 41)[:40] == keys


def test_the_key_of_a_uuid_of_version_1_is_frozen() -> None:
    key = delivery_key("c232ab00-9414-11ec-b3c8-9f6bdeced846", SENT_MS)
    assert key == "018bcfe5-687b-70e2-8bfc-743a87af3d73"


def test_the_key_of_an_archived_line_is_frozen() -> None:
    mark = line_mark(1, "sha256:00")
    assert line_keys([line_id(mark, 2)], [SENT_MS]) == ["018bcfe5-687b-7bd1-87d1-360f00000002"]


def test_an_id_that_looks_like_an_archived_line_is_hashed_where_a_queue_gave_it() -> None:
    looks = line_id(line_mark(1, "sha256:00"), 2)
    assert delivery_keys([looks], [SENT_MS]) == [delivery_key(looks, SENT_MS)]
    assert delivery_keys([looks], [SENT_MS]) != line_keys([looks], [SENT_MS])


def test_keys_sort_by_time_as_text_and_as_uuids() -> None:
    rng = random.Random(11)
    times = [*range(SENT_MS, SENT_MS + 50), *(2**exponent for exponent in range(48))]
    stamped = [(ms, delivery_key(str(rng.random()), ms)) for ms in times]
    by_text = sorted(stamped, key=lambda pair: pair[1])
    assert by_text == sorted(stamped)
    assert by_text == sorted(stamped, key=lambda pair: uuid.UUID(pair[1]).int)


def test_a_day_s_keys_lie_between_its_bounds() -> None:
    midnight = SENT_MS // DAY_MS * DAY_MS
    low, high = (
        f"{ms:012x}"[:8] + f"-{ms:012x}"[0] + f"{ms:012x}"[8:] + "-0000-0000-000000000000"
        for ms in (midnight, midnight + DAY_MS)
    )
    ids = [MESSAGE_ID, "00000000-0000-4000-8000-000000000000", "x"]
    first = [delivery_key(i, midnight) for i in ids]
    last = [delivery_key(i, midnight + DAY_MS - 1) for i in ids]
    after = [delivery_key(i, midnight + DAY_MS) for i in ids]
    before = [delivery_key(i, midnight - 1) for i in ids]
    assert all(low <= key < high for key in (*first, *last))
    assert all(key >= high for key in after)
    assert all(key < low for key in before)


@pytest.mark.parametrize(
    ("sent_ms", "day"),
    [
        (0, date(1970, 1, 1)),
        (DAY_MS - 1, date(1970, 1, 1)),
        (DAY_MS, date(1970, 1, 2)),
        (1_709_164_799_999, date(2024, 2, 28)),
        (1_709_164_800_000, date(2024, 2, 29)),
        (1_709_251_199_999, date(2024, 2, 29)),
        (1_709_251_200_000, date(2024, 3, 1)),
        (253_402_300_799_999, date(9999, 12, 31)),
    ],
)
def test_the_day_is_the_utc_day(sent_ms: int, day: date) -> None:
    assert day_of(sent_ms) == day


def test_a_fifo_key_leaves_the_time_out() -> None:
    key = delivery_key(MESSAGE_ID, UNDATED_MS)
    assert key == "00000000-0000-751a-a703-a558b933e274"
    assert sent_ms_of(key) == UNDATED_MS


SECRET = bytes(range(32))


def test_the_key_of_a_named_event_is_frozen() -> None:
    mark = hmac.digest(SECRET, b"7\0order-1", "sha256").hex()
    key = EventKeys(SECRET, 7)("order-1")
    assert key[:19] == f"00000000-0000-7{mark[:3]}-"
    assert int(key[19:].replace("-", ""), 16) & (2**62 - 1) == int(mark[:20], 16) & (2**62 - 1)
    assert key == "00000000-0000-75e9-870d-43b9486fa175"


@pytest.mark.parametrize("name", ["", "a", "é" * 300, "\x00", "\ud800", MESSAGE_ID])
def test_a_named_event_s_key_has_the_layout_of_version_7_without_a_time(name: str) -> None:
    text = EventKeys(SECRET, 1)(name)
    key = uuid.UUID(text)
    assert (str(key), key.version, key.variant) == (text, 7, uuid.RFC_4122)
    assert sent_ms_of(text) == UNDATED_MS
    assert text not in (delivery_key(name, UNDATED_MS), delivery_key(name, SENT_MS))


def test_one_event_has_one_key_and_another_name_pipeline_or_secret_another() -> None:
    key = EventKeys(SECRET, 1)("order-1")
    assert key == EventKeys(SECRET, 1)("order-1")
    others = [EventKeys(SECRET, 1)("order-2"), EventKeys(SECRET, 2)("order-1")]
    others += [EventKeys(SECRET[::-1], 1)("order-1"), EventKeys(SECRET, 11)("order-1")]
    assert len({key, *others}) == 5
    assert EventKeys(SECRET, 1)("1\x00a") != EventKeys(SECRET, 11)("\x00a")


def test_today_is_the_utc_day() -> None:
    before = datetime.now(UTC).date()
    found = today()
    assert before <= found <= datetime.now(UTC).date()


def test_a_batch_of_keys_is_the_keys_one_by_one() -> None:
    ids = ["c2d2536d-3c4a-42c0-9c16-e1c2ed7da37f", "0ed29c78-dba6-40ab-bcad-34457c55b24a"]
    odd = ["c2d2536d-3c4a-12c0-9c16-e1c2ed7da37f"]
    odd += ["", "C2D2536D-3C4A-42C0-9C16-E1C2ED7DA37F", "x" * 36, ids[0][:-1], ids[0] + "0"]
    for batch in ([], ids, ids * 3, [*ids, *odd], odd, [ids[0][:-1], "0" + ids[1]]):
        times = [1_795_381_566_306 + index // 2 for index in range(len(batch))]
        one_by_one = [delivery_key(name, ms) for name, ms in zip(batch, times, strict=True)]
        assert delivery_keys(batch, times) == one_by_one
