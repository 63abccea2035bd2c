"""The vault gets the same originals from the fast path as from Python."""

from __future__ import annotations

import json

import pytest

from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import compile_mapping
from sqs2pg.mapping.compile_encoder import compile_encoder
from sqs2pg.mapping.fast_path_originals import FastPathOriginals
from sqs2pg.mapping.native_encoder import NativeEncoder
from sqs2pg.mapping.originals import Originals
from sqs2pg.message import Message, Row, SystemAttributes
from sqs2pg.settings import load
from tests import native

FIELDS = [
    {"source": "user_id", "column": "user_id"},
    {"source": "ip", "column": "masked_ip", "mask": "pseudonymize", "kind": "ip", "recover": True},
    {"source": "locale", "column": "locale"},
    {"source": "device_id", "column": "device", "mask": "pseudonymize", "recover": True},
]


def message(number: int, **fields: object) -> Message:
    return Message(f"m{number}", "-", json.dumps(fields), SystemAttributes(0))


MESSAGES = [
    message(0, user_id="ann", ip="192.0.2.1", device_id="d\\1", locale="a\tb"),
    message(1, user_id="bob", device_id="", other=[1, {"ip": 5}]),
    message(2, user_id="ann", ip="192.0.2.1", device_id="d\\1"),
    message(3, user_id="Zoë", ip="192.0.2.2"),
    message(4, ip="192.0.2.3"),
    message(5, user_id="eve", ip=None, device_id=None),
]


def found(originals: Originals, chosen: set[str] | None = None) -> set[tuple[str, ...]]:
    return {
        entry
        for part in originals.parts
        for entry in part.originals(list(part.hashes(1, chosen).values()))
    }


def test_the_fast_path_finds_the_originals_that_python_finds() -> None:
    overrides = {"field": FIELDS, "vault": {"enabled": True}}
    settings = load(environ={}, discover=False, overrides=overrides)
    columns = [Column(field.column, "text") for field in settings.fields]
    masks = [None, lambda v: f"ip\\{v}", None, lambda v: f"<{v}>"]
    mapping = compile_mapping(settings, [columns], [masks])
    by_python, by_fast_path = Originals(), Originals()
    decoded = [mapping.decode(message) for message in MESSAGES]
    keys = [m.message_id for m in MESSAGES]
    rows = mapping.rows(keys, MESSAGES, decoded, by_python)
    lines = [row.text if isinstance(row, Row) else None for row in rows]
    assert [line is None for line in lines] == [False] * 4 + [True, False]

    kept = FastPathOriginals(settings.fields, "user_id").take(MESSAGES, lines, by_fast_path)
    # A message with an unusual id, or without one, is left to Python.
    assert [line is None for line in kept] == [False] * 3 + [True, True, False]
    assert found(by_fast_path) == found(by_python, {"m0", "m1", "m2", "m5"})
    assert ("ann", "ip", "ip\\192.0.2.1", "192.0.2.1") in found(by_fast_path)
    assert len(found(by_fast_path)) == 3
    [short], [long] = by_fast_path.parts, by_python.parts
    assert short.hashes(1, None).keys() < long.hashes(1, None).keys(), "both executors hash alike"


@pytest.mark.parametrize(
    ("kind", "enabled", "taken"),
    [("version", True, False), ("version", False, True), ("text", True, True)],
)
def test_there_is_no_fast_path_if_the_vault_s_subject_is_converted(
    kind: str, enabled: bool, taken: bool
) -> None:
    fields = [{"source": "user_id", "column": "user_id", "type": kind}, FIELDS[2]]
    overrides = {"field": fields, "vault": {"enabled": enabled}}
    settings = load(environ={}, discover=False, overrides=overrides)
    columns = [Column("user_id", "int8" if kind == "version" else "text"), Column("locale", "text")]
    encoder = compile_encoder(settings, [columns], [[None, None]], native.extension())
    assert isinstance(encoder, NativeEncoder) == taken
