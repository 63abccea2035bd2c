"""What C code seals of new people opens as what Python seals does."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from sqs2pg.keys.aead import WRAPS_PER_KEY, WrappingKey
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.vault.crypto import (
    contexts_of_new_people,
    open_subject,
    open_value,
    references_of_many,
    unwrap_data_key,
)
from sqs2pg.vault.value_keys import NewPeople, PackedValueKeys, SealedValues, absent_of, keys_of
from tests.native import SENT_MS, Both, extension, with_queue_id
from tests.unit.mapping.test_packed_originals import mapping, records_in

KEK, REFERENCE_KEY = b"w" * 32, b"r" * 32
BODIES: list[dict[str, Any]] = [
    {"user_id": "ann", "ip": "192.0.2.1", "device_id": "d\\1\t"},
    {"user_id": "ann", "ip": "192.0.2.2", "device_id": "d\\1\t"},
    {"user_id": "bob", "device_id": "é"},
    {"user_id": "c" * 500, "ip": "192.0.2.1", "device_id": ""},
]


def keys_in(bodies: Sequence[dict[str, Any]], both: Both | None = None) -> PackedValueKeys:
    batch = [
        with_queue_id(Message("m", "h", json.dumps(body), SystemAttributes(SENT_MS)), number)
        for number, body in enumerate(bodies)
    ]
    originals = (both or mapping()).encoders["native"].encode(batch, "1\n").originals
    assert originals is not None
    part = originals.parts[0]
    keys = keys_of(part, records_in(part), references_of_many(REFERENCE_KEY), REFERENCE_KEY)
    assert isinstance(keys, PackedValueKeys)
    return keys


def elements(joined: bytes) -> list[bytes]:
    """Cut the elements of a binary array."""
    found, end = [], 0
    while end < len(joined):
        begin = end + 4
        end = begin + int.from_bytes(joined[end:begin])
        found.append(joined[begin:end])
    return found


def opened(people: NewPeople, values: SealedValues) -> dict[str, set[tuple[str, str]]]:
    """Return each person's fields and values, after opening all."""
    data_keys, found = {}, {}
    kek, referring = WrappingKey(KEK), references_of_many(REFERENCE_KEY)
    wrapped_keys, ids = elements(people.wrapped), elements(people.ids)
    references = [one.hex() for one in elements(people.references)]
    assert len(references) == people.size == len(set(references))
    for reference, wrapped, sealed in zip(references, wrapped_keys, ids, strict=True):
        key = unwrap_data_key(kek, wrapped, reference, 1)
        subject = open_subject(key, sealed, reference)
        assert referring([subject]) == {subject: reference}
        data_keys[reference], found[reference] = key, (subject, set[tuple[str, str]]())
    columns = (values.references, values.fields, values.tokens, values.sealed)
    lines = list(zip(*map(elements, columns), strict=True))
    assert len(lines) == values.size == len({line[:3] for line in lines})
    for reference_bytes, field, token, sealed in lines:
        reference = reference_bytes.hex()
        about = field.decode(), token.decode(), reference
        found[reference][1].add((field.decode(), open_value(data_keys[reference], sealed, *about)))
    return dict(found.values())


def test_each_value_of_a_new_person_is_sealed_once_under_their_key() -> None:
    keys = keys_in(BODIES)
    assert keys.seals
    kek = WrappingKey(KEK)
    people, values = keys.seal_new(range(keys.asked.size), kek)
    assert opened(people, values) == {
        "ann": {("ip", "192.0.2.1"), ("ip", "192.0.2.2"), ("device_id", "d\\1\t")},
        "bob": {("device_id", "é")},
        "c" * 500: {("ip", "192.0.2.1"), ("device_id", "")},
    }
    assert elements(people.generations) == [b"\0\0\0\1"] * 3
    assert elements(values.generations) == [b"\0\0\0\1"] * 6
    again, more = keys.seal_new(range(keys.asked.size), kek)
    assert not {*elements(people.wrapped)} & {*elements(again.wrapped)}
    assert not {*elements(values.sealed)} & {*elements(more.sealed)}, "keys and nonces are new"


def test_many_values_of_one_person_take_no_longer_than_those_of_many() -> None:
    """A bot's first batch."""
    count = 6_000

    def seconds(name: str) -> float:
        keys = keys_in(
            [
                {"user_id": name.format(i), "ip": "192.0.2.1", "device_id": str(i)}
                for i in range(count)
            ]
        )
        began = time.process_time()
        _, values = keys.seal_new(range(keys.asked.size), WrappingKey(KEK))
        took = time.process_time() - began
        assert values.size == (2 * count if "{}" in name else count + 1)
        return took

    many = seconds("p{}")
    assert seconds("p") < 5 * many


def test_only_what_is_absent_is_sealed_in_any_order() -> None:
    keys = keys_in(BODIES)
    chosen = [n for n in range(keys.asked.size) if next(iter(keys.values([n])))[1] == "ann"]
    entries = b"".join((number + 1).to_bytes(4) for number in reversed(chosen))
    [absent] = absent_of([keys], [(entries, 1, None, 0)])
    assert (absent.numbers, absent.seals) == (chosen, True)
    assert opened(*keys.seal_new(absent.numbers, WrappingKey(KEK))).keys() == {"ann"}
    for row in ((entries, 2, None, 0), (entries, 1, b"wrapped", 1)):
        [other] = absent_of([keys], [row])
        assert not other.seals, "somebody who was erased, or has a key, is left to Python"


def test_parts_have_numbers_of_their_own() -> None:
    first, second = keys_in(BODIES), keys_in(BODIES[:1])
    size = first.asked.size
    entries = b"".join(number.to_bytes(4) for number in (size + 1, 2, size))
    found = list(absent_of([first, second], [(entries, 1, None, 0)]))
    assert [(one.keys, one.numbers) for one in found] == [(first, [1, size - 1]), (second, [0])]


def test_a_derived_key_wraps_so_many_keys() -> None:
    kek = WrappingKey(KEK)
    [first], [same] = kek.lend(WRAPS_PER_KEY - 1), kek.lend(1)
    assert first == same
    [(key, half)] = kek.lend(1)
    assert (key, half) != first


@pytest.mark.parametrize("wraps", [0, 1, WRAPS_PER_KEY, WRAPS_PER_KEY + 1, 3 * WRAPS_PER_KEY])
def test_no_more_wraps_are_lent_of_one_derived_key(wraps: int) -> None:
    kek = WrappingKey(KEK)
    lent = kek.lend(wraps)
    assert len(set(lent)) == len(lent) == -(-wraps // WRAPS_PER_KEY)
    assert all(key == kek.derived(first) for key, first in lent)
    left = -wraps % WRAPS_PER_KEY
    assert all(kek.lend(1) == lent[-1:] for _ in range(left))
    assert kek.lend(1)[0] not in lent


def test_data_keys_of_many_new_people_are_wrapped_under_several_derived_keys() -> None:
    count = 2 * WRAPS_PER_KEY + 1
    keys = keys_in([{"user_id": f"p{i}", "ip": "192.0.2.1"} for i in range(count)])
    people, values = keys.seal_new(range(keys.asked.size), WrappingKey(KEK))
    assert len(opened(people, values)) == people.size == count
    of_a_key = Counter(wrapped[1:13] for wrapped in elements(people.wrapped))
    assert sorted(of_a_key.values()) == [1, WRAPS_PER_KEY, WRAPS_PER_KEY]


@pytest.mark.parametrize("change", range(13))
def test_what_cannot_be_sealed_is_refused(change: int) -> None:
    both = mapping()
    keys = keys_in(BODIES, both)
    packed = list(getattr(keys, "_keys").packed)  # noqa: B009  mypy has no such name
    contexts = contexts_of_new_people(["ip", "device_id"])
    given: list[Any] = [
        packed,
        bytes(3) + b"\1",
        bytes(200),
        ((KEK, bytes(12)),),
        4096,
        contexts,
        (b"ip", b"device_id"),
    ]
    native = extension()
    native.seal_new_people(tuple(packed), *given[1:])
    match change:
        case 0:
            given[1] = (keys.asked.size).to_bytes(4)
        case 1:
            given[1] = b"\0\0\0"
        case 2:
            given[2] = bytes(67)
        case 3:
            given[3] = ((KEK[1:], bytes(12)),)
        case 4:
            given[3] = ((KEK, bytes(11)),)
        case 5:
            given[5] = (*contexts[:3], contexts[3][:1])
        case 6:
            given[6] = ("ip", "device_id")
        case 7:
            packed[1] = (2**40).to_bytes(8, "little") * (len(packed[1]) // 8)
        case 8:
            packed[3] = packed[3][1:]
        case 9:
            given[3] = ()
        case 10:
            given[3] = (KEK,)
        case 11:
            given[3] = ((KEK, "a text of 12"),)
        case 12:
            given[4] = 0
    with pytest.raises(ValueError, match="no originals"):
        native.seal_new_people(tuple(packed), *given[1:])
