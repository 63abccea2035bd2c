"""What a process remembers of the values that are stored."""

from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.mapping.packed_originals import PackedOriginals
from sqs2pg.vault.known_values import HashedValues, KnownValues
from tests.native import extension
from tests.unit.mapping.test_packed_originals import BODIES, KEY, mapping, messages, packed_part


def hashes(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}Q", *numbers)


def numbers_in(found: bytes) -> list[int]:
    return memoryview(found).cast("I").tolist()


def part() -> PackedOriginals:
    return packed_part(mapping().encoders["native"].encode(messages(*BODIES), "1\n").originals)


@given(st.lists(st.lists(st.integers(1, 50), max_size=20), max_size=20), st.integers(1, 60))
def test_a_set_with_room_holds_what_was_added(added: list[list[int]], asked: int) -> None:
    known = extension().KnownValues(4096)
    for one in added:
        known.add(hashes(*one))
    everything = {hash_ for one in added for hash_ in one}
    assert len(known) == len(everything)
    assert numbers_in(known.unknown(hashes(asked))) == [0] * (asked not in everything)


def test_a_record_is_known_if_all_its_values_are() -> None:
    known = extension().KnownValues(4096)
    known.add(hashes(1, 2, 3))
    four = hashes(1, 2, 3, 4, 0, 0, 0, 4)
    assert numbers_in(known.unknown(four, 2)) == [1, 3]
    assert numbers_in(known.unknown(four, 2, array("I", [3, 0]).tobytes())) == [3]
    known.add(four, 2, array("I", [3]).tobytes())
    assert numbers_in(known.unknown(four, 2)) == []
    known.clear()
    assert (len(known), numbers_in(known.unknown(four, 2))) == (0, [0, 1, 3])


def test_a_set_grows_to_its_bound_and_then_forgets() -> None:
    known, places = extension().KnownValues(2**16), 2**16
    for begin in range(1, 2 * places, 1000):
        known.add(hashes(*range(begin, begin + 1000)))
    assert 0.95 * places < len(known) <= places
    latest = hashes(*range(2 * places - 4000, 2 * places))
    assert len(numbers_in(known.unknown(latest))) < 4000 * 0.3


def test_a_set_that_is_half_full_forgets_next_to_nothing() -> None:
    known, places = extension().KnownValues(2**18), 2**18
    everything = hashes(*(n * 0x9E3779B97F4A7C15 % 2**64 for n in range(1, places // 2)))
    known.add(everything)
    assert len(numbers_in(known.unknown(everything))) < places / 10_000


@pytest.mark.parametrize(
    ("given", "columns", "chosen"),
    [
        (b"1234567", 1, None),
        (hashes(1), 2, None),
        (hashes(1), 0, None),
        (hashes(1), 1, b"\1\0\0\0"),
    ],
)
def test_hashes_of_another_form_are_refused(
    given: bytes, columns: int, chosen: bytes | None
) -> None:
    known = extension().KnownValues(4096)
    for call in (known.add, known.unknown):
        with pytest.raises(ValueError, match=r"hashes|record"):
            call(given, columns, chosen)


def test_a_set_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="one hash or more"):
        extension().KnownValues(0)


def test_what_a_transaction_has_read_is_known_once_it_is_remembered() -> None:
    """It may have read what it has stored itself."""
    known = KnownValues(KEY)
    first = known.unknown(part())
    assert isinstance(first, HashedValues)
    assert first.records == [0, 1, 2]
    everything, _ = part().value_hashes(KEY)
    first.learn(everything)
    assert first.records == []
    assert known.unknown(part()).records == [0, 1, 2]
    first.remember()
    assert known.unknown(part()).records == []
    known.clear()
    assert (len(known), known.unknown(part()).records) == (0, [0, 1, 2])


def test_only_what_is_chosen_is_remembered() -> None:
    known, batch = KnownValues(KEY), messages(*BODIES)
    one = packed_part(mapping().encoders["native"].encode(batch, "1\n").originals)
    found = known.unknown(one, {batch[1].message_id})
    assert found.records == [1]
    found.remember()
    assert known.unknown(one).records == [0, 2]
    left_out = {0: {batch[2].message_id: {0}}}
    assert known.unknown(one, None, left_out).records == [0]
