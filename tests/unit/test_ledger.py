"""The ledger's key: RFC 9562's layout, one for every delivery of a message, one each."""

from __future__ import annotations

import hashlib
import random
import uuid
from datetime import UTC, date, datetime

import pytest

from sqs2pg.ledger import DAY_MS, UNDATED_MS, day_of, delivery_key, sent_ms_of, today

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


def test_the_key_of_a_uuid_is_frozen():
    assert delivery_key(MESSAGE_ID, SENT_MS) == "018bcfe5-687b-751a-a703-a558b933e274"


def test_the_key_of_another_id_is_frozen():
    assert delivery_key("not-a-uuid", SENT_MS) == "018bcfe5-687b-7218-a32a-3bae6ad756d7"


def test_a_uuid_keeps_its_last_74_random_bits():
    ours, theirs = uuid.UUID(delivery_key(MESSAGE_ID, SENT_MS)), uuid.UUID(MESSAGE_ID)
    kept = (0xFFF << 64) | (2**64 - 1)
    assert ours.int & kept == theirs.int & kept


@pytest.mark.parametrize("message_id", NOT_UUIDS)
def test_another_id_gives_the_leading_bits_of_its_sha256(message_id: str):
    digest = int(hashlib.sha256(message_id.encode("utf-8", "surrogatepass")).hexdigest()[:20], 16)
    key = uuid.UUID(delivery_key(message_id, SENT_MS)).int
    assert (key >> 64) & 0xFFF == digest >> 68
    assert key & (2**62 - 1) == digest & (2**62 - 1)


@pytest.mark.parametrize("message_id", [MESSAGE_ID, *NOT_UUIDS])
@pytest.mark.parametrize("sent_ms", [0, 1, SENT_MS, 253_402_300_799_999, 2**48 - 1])
def test_every_key_has_the_layout_of_version_7(message_id: str, sent_ms: int):
    text = delivery_key(message_id, sent_ms)
    key = uuid.UUID(text)
    assert str(key) == text  # canonical text: what PostgreSQL gives back compares equal
    assert key.version == 7
    assert key.variant == uuid.RFC_4122
    assert key.int >> 80 == sent_ms == sent_ms_of(text)


def test_redeliveries_have_one_key_and_other_messages_or_times_another():
    key = delivery_key(MESSAGE_ID, SENT_MS)
    assert key == delivery_key(MESSAGE_ID, SENT_MS)
    assert key != delivery_key(MESSAGE_ID, SENT_MS + 1)
    assert key != delivery_key(MESSAGE_ID[:-1] + "5", SENT_MS)
    assert key != delivery_key(MESSAGE_ID.upper(), SENT_MS)


@pytest.mark.parametrize("version", range(16))
def test_only_the_version_and_variant_bits_of_a_uuid_are_lost(version: int):
    # Two UUIDs that differ in the first 48 bits or the version alone share a tail: SQS makes
    # version 4 ones, of which 74 random bits are left.
    message_id = f"00000000-0000-{version:x}51a-a703-a558b933e274"
    assert delivery_key(message_id, SENT_MS)[15:] == MESSAGE_ID[15:]


def test_a_million_ids_of_one_millisecond_do_not_collide():
    bits = random.Random(7).randbytes(9 * 900_000).hex()
    tails = (bits[i : i + 18] for i in range(0, len(bits), 18))
    ids = [f"5fea7756-0ea4-4{tail[:3]}-a{tail[3:6]}-{tail[6:]}" for tail in tails]
    ids += map(str, range(100_000))
    assert len({delivery_key(message_id, SENT_MS) for message_id in ids}) == 1_000_000


def test_keys_sort_by_time_as_text_and_as_uuids():
    rng = random.Random(11)
    times = [*range(SENT_MS, SENT_MS + 50), *(2**exponent for exponent in range(48))]
    stamped = [(ms, delivery_key(str(rng.random()), ms)) for ms in times]
    by_text = sorted(stamped, key=lambda pair: pair[1])
    assert by_text == sorted(stamped)
    assert by_text == sorted(stamped, key=lambda pair: uuid.UUID(pair[1]).int)


def test_a_day_s_keys_lie_between_its_bounds():
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
def test_the_day_is_the_utc_day(sent_ms: int, day: date):
    assert day_of(sent_ms) == day


def test_a_fifo_key_leaves_the_time_out():
    key = delivery_key(MESSAGE_ID, UNDATED_MS)
    assert key == "00000000-0000-751a-a703-a558b933e274"
    assert sent_ms_of(key) == UNDATED_MS


def test_today_is_the_utc_day():
    before = datetime.now(UTC).date()
    found = today()
    assert before <= found <= datetime.now(UTC).date()
