"""The native extension, always compiled from the checkout, beside the Python executor."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import platform
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import msgspec

from hatch_build import FLAGS, NAME, ROOT, SOURCES, compile_extension, find_compiler
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import compile_mapping
from sqs2pg.mapping.compile_encoder import compile_encoder
from sqs2pg.mapping.encoder import NONE_UNREAD, Encoded, Encoder, UnitFault
from sqs2pg.mapping.fast_path import compile_fast_path
from sqs2pg.mapping.json_slices import DEPTH_MAX
from sqs2pg.mapping.key_marks import mark_operators
from sqs2pg.mapping.ledger_key import EventKeys
from sqs2pg.mapping.line_units import LineUnits
from sqs2pg.mapping.native_encoder import KEYINGS, FastPath, Packed, rows_of
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.pseudonymize import pseudonymize
from sqs2pg.mask.registry import compile_operator
from sqs2pg.message import Message, Row, SystemAttributes
from sqs2pg.settings import Settings
from sqs2pg.settings.staged_fields import staged_fields
from tests.logins import TARGET, whole_login

BUILD = ROOT / "build" / "tests"
SENT_MS = 1_795_384_388_351
KEY = b"k" * 32
BY_DEFAULT = Settings()
QUEUE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


@functools.cache
def extension() -> ModuleType:
    """Load it, once per process; compile it, once for these sources."""
    spec = importlib.util.spec_from_file_location("sqs2pg._native", _compiled())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compiled() -> Path:
    """Compile the sources, unless it was done before; the first of several processes does it."""
    compiler = find_compiler()
    state = hashlib.sha256(repr((compiler, FLAGS, sys.version, platform.platform())).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        state.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    BUILD.mkdir(parents=True, exist_ok=True)
    made = BUILD / state.hexdigest()[:16] / NAME
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=BUILD) as folder:
                draft = Path(folder) / NAME
                assert not compile_extension(draft, compiler, FLAGS)
                draft.replace(made)
    return made


def masks_of(settings: Settings, key: bytes = KEY) -> list[list[Operator | None]]:
    return [
        [
            pseudonymize(1, key, CANONICAL[field.mask_kind])
            if field.mask == "pseudonymize"
            else None
            if field.mask == "keep" and field.kind == "text"
            else compile_operator(field.mask, kind=field.mask_kind, domain="d", keyring=None)
            for field in target.fields
        ]
        for target in settings.targets
    ]


class Both:
    """One mapping in both executors, C and Python. `columns[t]` are those of target t."""

    def __init__(
        self, settings: Settings = BY_DEFAULT, columns: Sequence[Sequence[Column]] = (TARGET,)
    ) -> None:
        masks = masks_of(settings)
        for target, its_columns, its_masks in zip(settings.targets, columns, masks, strict=True):
            if target.write.delete_when:
                count = len(staged_fields(target))
                plain = msgspec.structs.replace(target, fields=target.fields[:-count])
                its_masks[-count:] = mark_operators(plain, its_columns[:-count], KEY)
        events = EventKeys(KEY, 7) if settings.ledger.dedupe_key else None
        self._given, self._events = (settings, columns, masks), events
        self.slow = compile_mapping(settings, columns, masks)
        self.fast_or_none = compile_fast_path(settings, columns, masks, extension(), events)
        self.encoders = {
            name: compile_encoder(settings, columns, masks, module, dedupe=events)
            for name, module in (("native", extension()), ("python", None))
        }

    @property
    def fast(self) -> FastPath:
        assert self.fast_or_none is not None
        return self.fast_or_none

    def pack(self, units: Sequence[Message]) -> Packed | None:
        """Return what C makes of a batch."""
        packed = self.fast.pack(units, b"1\n", KEYINGS["dated"], False, b"")
        return None if packed is None else Packed(*packed)

    def rows(self, messages: Sequence[Message]) -> list[Row | None]:
        """Return the native rows; None of messages that are left to Python."""
        units = [with_queue_id(message, number) for number, message in enumerate(messages)]
        made: list[Row | None] = [None] * len(units)
        if packed := self.pack(units):
            keys = [unit.message_id for unit in units]
            for row in rows_of(units, keys, packed):
                made[keys.index(row.key)] = row
        return made

    def row(self, message: Message) -> Row | None:
        """Return Python's row; None where the message is a fault."""
        try:
            [row] = self.slow.rows([message.message_id], [message], [self.slow.decode(message)])
        except PermanentFault:
            return None
        return None if isinstance(row, PermanentFault) else row

    def check_message(self, message: Message) -> Row | None:
        """Return the native row, after checking that it is None or equals Python's."""
        [row] = self.rows([message])
        if row is None:
            return None
        expected = self.row(with_queue_id(message, 0))
        assert expected is not None, row.text
        assert msgspec.to_builtins(row) == msgspec.to_builtins(expected)
        return row

    def check_batch(
        self, units: Sequence[Message], unread: Mapping[str, PermanentFault] = NONE_UNREAD
    ) -> Encoded:
        """Return what the native executor makes of a batch, after checking that it is Python's."""
        encoders = self.of_lines if isinstance(units, LineUnits) else self.encoders
        native, python = (
            encoders[name].encode(units, "1\n", unread) for name in ("native", "python")
        )
        assert native.count == python.count
        assert native.keys == python.keys
        assert native.ledger == python.ledger
        assert native.oldest_ms == python.oldest_ms
        assert native.dropped == python.dropped
        assert native.dropped_fields == python.dropped_fields
        assert native.unknown == python.unknown
        assert list(native.repeats) == list(python.repeats)
        assert list(map(_about, native.faults)) == list(map(_about, python.faults))
        rows = [sorted(map(msgspec.to_builtins, one.rows), key=str) for one in (native, python)]
        assert rows[0] == rows[1]
        for of_native, of_python in zip(native.targets, python.targets, strict=True):
            assert of_native.rows == of_python.rows
            # The rows that C leaves come last.
            lines = [sorted(one.text.splitlines(keepends=True)) for one in (of_native, of_python)]
            assert lines[0] == lines[1]
        packed = None if isinstance(units, LineUnits) else self.pack(units)
        if packed is not None and not packed.left and len(packed.verdicts) == len(native.faults):
            assert list(native.targets) == list(python.targets)
        return native

    @functools.cached_property
    def of_lines(self) -> Mapping[str, Encoder]:
        """Both executors for lines of archives."""
        return {
            name: compile_encoder(*self._given, module, keying="lines", dedupe=self._events)
            for name, module in (("native", extension()), ("python", None))
        }

    def python(self, message: Message) -> str | None:
        row = self.row(message)
        return None if row is None else row.text

    def check(self, body: str, sent_ms: int = SENT_MS) -> str | None:
        """As `check_message`, for a body; return the lines for the first target, or None."""
        row = self.check_message(Message("m", "h", body, SystemAttributes(sent_ms)))
        return None if row is None else row.text


def _about(faulty: UnitFault) -> tuple[int, str, str, str, str, str]:
    unit, key, fault = faulty
    return unit, key, fault.code, fault.detail, fault.stage, fault.table


def with_queue_id(message: Message, number: int) -> Message:
    """Return a message with an id such as a queue gives, if it has none."""
    if QUEUE_ID.match(message.message_id):
        return message
    return msgspec.structs.replace(
        message, message_id=f"00000000-0000-4000-8000-{number:012x}", payload=None
    )


@functools.cache
def both() -> Both:
    """The built-in mapping in both executors."""
    return Both()


TAKEN = [
    whole_login(locale=None),
    whole_login(ip=None, device_id=..., app_version=None, device_type=None),
    whole_login(device_id=""),
    whole_login(device_id="x" * 1_000),
    whole_login(user_id="x" * 128),
    whole_login(create_date="2024-02-29"),
    whole_login(create_date=None),
    whole_login(app_version="2146.999.999"),
    whole_login(app_version="0002.003"),
    whole_login(more="x", count=12, share=-0.5, ok=True, no=False, nothing=None),
    '\n\t {"user_id" :\r"u" , "ip":null}  ',
    '{"user_id":"u","x":1e9}',
    '{"user_id":"u","x":[1]}',
    '{"user_id":"u","x":{"y":1}}',
    '{"user_id":"u\\n"}',
    '{"user_\\u0069d":"u"}',
    '{"user_id":"u\x7f"}',
    whole_login(locale="é"),
    whole_login(create_date="2024-01-01T00:00:00Z"),
    whole_login(locale="é", user_id="日本語", device_id="\U0001f600"),
    whole_login(user_id='a\tb\n\r"/\b\f\\'),
    whole_login(device_id="Zoë"),
    '{"user_id":"\\ud83d\\ude00\\/"}',
    '{"user_id":"u","x":[1,{"y":[null,true,"\\u00e9",-0.5e-3]}],"z":{}}',
    whole_login(create_date="2024-01-01T23:30:00.5-02:00"),
    '{"user_id":"u"}',
    '{"user_id":"u","x":1e400}',
    '{"user_id":"u","x":1234567890123456789}',
    '{"user_id":"u","x":' + "[" * (DEPTH_MAX - 1) + "]" * (DEPTH_MAX - 1) + "}",
]
LEFT = [
    "",
    "{}",
    "[]",
    "null",
    '"x"',
    '{"user_id":"u"',
    '{"user_id":"u",}',
    '{"user_id":"u"}}',
    '{"user_id":"u"} x',
    '{"user_id" "u"}',
    '{"user_id":"u",,"ip":null}',
    '{"user_id":"u","user_id":"v"}',
    '{"user_id":"u","x":01}',
    '{"user_id":"u","x":-}',
    '{"user_id":"u","x":1.}',
    '{"user_id":"u","x":nul}',
    '{"user_id":"\x00"}',
    whole_login(user_id=None),
    whole_login(user_id=""),
    whole_login(user_id=...),
    whole_login(user_id=7),
    whole_login(user_id="x" * 129),
    whole_login(locale=False),
    whole_login(ip="1.2.3"),
    whole_login(ip="1.2.3.4.5"),
    whole_login(ip="1.2.3.256"),
    whole_login(ip="01.2.3.4"),
    whole_login(ip="1.2.3.4 "),
    whole_login(ip=""),
    whole_login(ip="::1"),
    whole_login(ip="::ffff:1.2.3.4"),
    whole_login(app_version="1.1000"),
    whole_login(app_version="2147"),
    whole_login(app_version="1.2.3.4"),
    whole_login(app_version="1."),
    whole_login(app_version=".1"),
    whole_login(app_version="1.x"),
    whole_login(app_version=""),
    whole_login(create_date="2023-02-29"),
    whole_login(create_date="0000-01-01"),
    whole_login(create_date="2024-13-01"),
    whole_login(create_date="2024-1-01"),
    whole_login(create_date=""),
    '{"user_id":"\\ud83d"}',
    '{"user_id":"\\ude00"}',
    '{"user_id":"\\ud83d\\u0061"}',
    '{"user_id":"\\u0000"}',
    '{"user_id":"\ud800"}',
    '{"user_id":"u\\x"}',
    '{"user_id":"u\\u00g0"}',
    '{"user_id":"u\\',
    '{"user_id":"u","x":[1,]}',
    '{"user_id":"u","x":{"y":1,}}',
    '{"user_id":"u","x":[1}',
    '{"user_id":"u","x":{1:1}}',
    '{"user_id":"u","x":' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}",
    '\ufeff{"user_id":"u"}',
    '{"user_id":"u"}\u00a0',
    whole_login(device_id="e\u0301"),
    whole_login(create_date="2016-12-31T23:59:60Z"),
]
