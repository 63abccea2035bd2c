"""The vault gets the same originals from the C code as from Python."""

from __future__ import annotations

import hashlib
import hmac
import json
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile_encoder import compile_encoder
from sqs2pg.mapping.native_encoder import NativeEncoder
from sqs2pg.mapping.originals import OriginalColumns, Originals, OriginalsPart
from sqs2pg.mapping.packed_originals import PackedOriginals
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import load
from sqs2pg.vault.crypto import references_of_many
from sqs2pg.vault.value_keys import keys_of
from tests.native import SENT_MS, Both, extension, with_queue_id

FIELDS: list[dict[str, Any]] = [
    {"source": "user_id", "column": "user_id"},
    {"source": "ip", "column": "masked_ip", "mask": "pseudonymize", "kind": "ip", "recover": True},
    {"source": "locale", "column": "locale"},
    {"source": "device_id", "column": "device", "mask": "pseudonymize", "recover": True},
]
KEY, NAMES = b"r" * 32, (b"ip", b"device_id")


def mapping(**others: Any) -> Both:
    overrides = {"field": FIELDS, "vault": {"enabled": True}, **others}
    settings = load(environ={}, discover=False, overrides=overrides)
    return Both(settings, [[Column(field.column, "text") for field in settings.fields]])


def messages(*bodies: dict[str, Any]) -> list[Message]:
    return [
        with_queue_id(Message("m", "h", json.dumps(body), SystemAttributes(SENT_MS)), number)
        for number, body in enumerate(bodies)
    ]


BODIES: list[dict[str, Any]] = [
    {"user_id": "ann", "ip": "192.0.2.1", "device_id": "d\\1\t", "locale": "a\tb"},
    {"user_id": "bob", "device_id": "", "other": [1, {"ip": 5}]},
    {"user_id": "ann", "ip": "192.0.2.1", "device_id": "d\\1\t"},
    {"user_id": "Zoë", "ip": "192.0.2.2"},
    {"ip": "192.0.2.3"},
    {"user_id": "eve", "ip": None, "device_id": None},
]


def found(originals: Originals | None, chosen: set[str] | None = None) -> set[tuple[str, ...]]:
    assert originals is not None
    return {entry for part in originals.parts for entry in part.originals(records_in(part, chosen))}


def records_in(part: OriginalsPart, chosen: set[str] | None = None) -> list[int]:
    """Return the numbers of a part's chosen records."""
    if not isinstance(part, PackedOriginals):
        assert isinstance(part, OriginalColumns)
        return list(part.hashes(b"salt", chosen).values())
    _, references = part.value_hashes(KEY)
    numbers = array("I", range(len(references) // 16)).tobytes()
    return memoryview(part.chosen(numbers, chosen, None)).cast("I").tolist()


def packed_part(originals: Originals | None) -> PackedOriginals:
    assert originals is not None
    part, *_ = originals.parts
    assert isinstance(part, PackedOriginals)
    return part


def test_the_c_code_keeps_the_originals_that_python_finds() -> None:
    batch = messages(*BODIES)
    native, python = (
        mapping().encoders[name].encode(batch, "1\n").originals for name in ("native", "python")
    )
    assert found(native) == found(python)
    values = {(subject, field, value) for subject, field, _, value in found(native)}
    assert values == {
        ("ann", "ip", "192.0.2.1"),
        ("ann", "device_id", "d\\1\t"),
        ("bob", "device_id", ""),
        ("Zoë", "ip", "192.0.2.2"),
    }
    # A message with an unusual id, or without one, is left to Python.
    packed = packed_part(native)
    assert len(records_in(packed)) == 4
    assert found(native, {batch[1].message_id}) == {
        entry for entry in found(python) if entry[0] == "bob"
    }


@pytest.mark.parametrize("executor", ["native", "python"])
def test_a_message_at_fault_leaves_nothing_to_seal(executor: str) -> None:
    bad = {"user_id": "ann", "ip": "no address", "device_id": "d1"}
    good = {"user_id": "bob", "ip": "192.0.2.1", "device_id": "d2"}
    encoded = mapping().encoders[executor].encode(messages(bad, good), "1\n")
    assert [(unit.unit, unit.fault.code) for unit in encoded.faults] == [(0, "bad_ip")]
    assert {entry[0] for entry in found(encoded.originals)} == {"bob"}


def test_a_replayed_message_at_fault_leaves_nothing_to_seal() -> None:
    bad = {"user_id": "ann", "ip": "no address", "device_id": "d1"}
    good = {"user_id": "bob", "ip": "192.0.2.1", "device_id": "d2"}
    batch, replayed, originals = messages(bad, good), mapping().slow, Originals()
    units = [replayed.decode(message) for message in batch]
    rows = replayed.rows(["k0", "k1"], batch, units, originals)
    assert [getattr(row, "code", "") for row in rows] == ["bad_ip", ""]
    assert {entry[0] for entry in found(originals)} == {"bob"}


@pytest.mark.parametrize("executor", ["native", "python"])
def test_nor_does_one_whose_envelope_adds_attributes(executor: str) -> None:
    def wrapped(body: dict[str, Any]) -> dict[str, Any]:
        said = {"Type": "Notification", "MessageId": "n", "TopicArn": "t", "Timestamp": "now"}
        return {**said, "Message": json.dumps(body)}

    bad = {"user_id": "ann", "ip": "no address", "device_id": "d1"}
    good = {"user_id": "bob", "ip": "192.0.2.1", "device_id": "d2"}
    topic = {"source": "attribute:sns.TopicArn", "column": "topic"}
    both = mapping(field=[*FIELDS, topic], envelope={"layers": ["sns"]})
    batch = messages(wrapped(bad), wrapped(good))
    encoded = both.encoders[executor].encode(batch, "1\n")
    assert [(unit.unit, unit.fault.code) for unit in encoded.faults] == [(0, "bad_ip")]
    assert {entry[0] for entry in found(encoded.originals)} == {"bob"}


def test_a_repeated_message_has_its_originals_once() -> None:
    [one, *_] = messages(*BODIES)
    batch = [one, one]
    encoded = mapping().encoders["native"].encode(batch, "1\n")
    assert list(encoded.repeats) == [1]
    assert len(records_in(packed_part(encoded.originals))) == 1


BODY = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.one_of(st.none(), st.text(max_size=3)),
        "ip": st.one_of(st.none(), st.sampled_from(["192.0.2.1", "::1", "x"])),
        "device_id": st.one_of(st.none(), st.text(max_size=20)),
        "locale": st.text(max_size=2),
    },
)


@given(st.lists(BODY, min_size=1, max_size=8))
def test_generated_originals(bodies: list[dict[str, Any]]) -> None:
    batch = messages(*bodies)
    native = mapping().check_batch(batch)
    python = mapping().encoders["python"].encode(batch, "1\n")
    assert found(native.originals) == found(python.originals)


def test_keys_are_sorted_by_reference_and_lead_to_their_values() -> None:
    batch = messages(*(BODIES[0] | {"user_id": f"u{n}"} for n in range(50)), BODIES[1])
    part = packed_part(mapping().encoders["native"].encode(batch, "1\n").originals)
    records = records_in(part)
    for chosen in (records, records[3:7][::-1], []):
        keys = keys_of(part, chosen, references_of_many(KEY), KEY)
        values = list(keys.values(range(keys.asked.size)))
        assert {(id_, field, token, value) for (_, field, token), id_, value in values} == set(
            part.originals(sorted(chosen))
        )
        references = [reference for (reference, _, _), _, _ in values]
        assert references == sorted(references)
        for (reference, _, _), id_, _ in values:
            assert reference == hmac.digest(KEY, id_.encode(), hashlib.sha256).hex()[:32]
        elements = [keys.asked.references[at : at + 20] for at in range(0, 20 * len(values), 20)]
        assert elements == [b"\0\0\0\x10" + bytes.fromhex(one) for one in references]
        assert keys.asked.tokens == b"".join(
            len(token).to_bytes(4, "big") + token.encode() for (_, _, token), _, _ in values
        )


def test_what_is_no_originals_is_refused() -> None:
    packed = mapping().pack(messages(*BODIES))
    assert packed is not None
    native, whole = extension(), packed.originals
    last_record = 27
    for cut in range(1, last_record):
        with pytest.raises(ValueError, match="no originals"):
            native.value_hashes(whole[:-cut], KEY, NAMES)
        with pytest.raises(ValueError, match="no originals"):
            native.original_values(whole[:cut], (4).to_bytes(8, "little"), 40)
        with pytest.raises(ValueError, match="no originals"):
            native.original_keys(whole, (2**40 + cut).to_bytes(8, "little"), 2, KEY)


@pytest.mark.parametrize(
    "call",
    [
        lambda native: native.value_hashes(b"", KEY, ()),
        lambda native: native.value_hashes(b"", KEY, ("ip",)),
        lambda native: native.value_hashes(b"", b"k" * 65, NAMES),
        lambda native: native.distinct_references(bytes(32), (2).to_bytes(4, "little")),
        lambda native: native.original_keys(b"", b"1234", 2, KEY),
        lambda native: native.original_keys(b"", b"", 2, b"k" * 65),
        lambda native: native.original_values(b"", b"1234", 2),
    ],
)
def test_arguments_of_another_form_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match="no originals"):
        call(extension())


def test_references_are_sorted_and_come_once() -> None:
    references = [bytes([byte]) * 16 for byte in (3, 1, 3, 2)]
    numbers = array("I", [3, 2, 0, 2]).tobytes()
    found = extension().distinct_references(b"".join(references), numbers)
    assert found == (2, b"".join(b"\0\0\0\x10" + bytes([byte]) * 16 for byte in (2, 3)))
    assert extension().distinct_references(b"", b"") == (0, b"")


@pytest.mark.parametrize(
    ("kind", "enabled", "taken"),
    [("version", True, False), ("version", False, True), ("text", True, True)],
)
def test_there_is_no_fast_path_if_the_vault_s_subject_is_converted(
    kind: str, enabled: bool, taken: bool
) -> None:
    fields: list[dict[str, Any]] = [
        {"source": "user_id", "column": "user_id", "type": kind},
        FIELDS[2],
    ]
    overrides = {"field": fields, "vault": {"enabled": enabled}}
    settings = load(environ={}, discover=False, overrides=overrides)
    columns = [Column("user_id", "int8" if kind == "version" else "text"), Column("locale", "text")]
    encoder = compile_encoder(settings, [columns], [[None, None]], extension())
    assert isinstance(encoder, NativeEncoder) == taken
