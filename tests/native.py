"""The native extension, always compiled from the checkout, beside the Python executor."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import msgspec

from hatch_build import NAME, compile_extension, find_compiler
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import compile_mapping
from sqs2pg.mapping.fast_path import FastPath, compile_fast_path, row_of
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.pseudonymize import pseudonymize
from sqs2pg.mask.registry import compile_operator
from sqs2pg.message import Message, Row, SystemAttributes
from sqs2pg.settings import Settings
from tests.logins import TARGET, whole_login

SENT_MS = 1_795_384_388_351
KEY = b"k" * 32
BY_DEFAULT = Settings()


@functools.cache
def extension() -> ModuleType:
    """Compile and load it, once per process."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / NAME
        assert not compile_extension(made, find_compiler())
        spec = importlib.util.spec_from_file_location("sqs2pg._native", made)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def masks_of(settings: Settings, key: bytes = KEY) -> list[list[Operator | None]]:
    return [
        [
            pseudonymize(1, key, CANONICAL[field.kind])
            if field.mask == "pseudonymize"
            else None
            if field.mask == "keep" and field.kind == "text"
            else compile_operator(field.mask, kind=field.kind, domain="d", keyring=None)
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
        self.slow = compile_mapping(settings, columns, masks)
        self.fast_or_none = compile_fast_path(settings, columns, masks, extension())

    @property
    def fast(self) -> FastPath:
        assert self.fast_or_none is not None
        return self.fast_or_none

    def row(self, message: Message) -> Row | None:
        """Return Python's row; None where the message is a fault."""
        try:
            [row] = self.slow.rows([message.message_id], [message], [self.slow.decode(message)])
        except PermanentFault:
            return None
        return None if isinstance(row, PermanentFault) else row

    def check_message(self, message: Message) -> Row | None:
        """Return the native row, after checking that it is None or equals Python's."""
        [parts] = self.fast.lines([message])
        if parts is None:
            return None
        row = row_of(message.message_id, message.message_id, parts)
        expected = self.row(message)
        assert expected is not None, parts
        assert msgspec.to_builtins(row) == msgspec.to_builtins(expected)
        return row

    def python(self, message: Message) -> str | None:
        row = self.row(message)
        return None if row is None else row.text

    def check(self, body: str, sent_ms: int = SENT_MS) -> str | None:
        """As `check_message`, for a body; return the lines for the first target, or None."""
        row = self.check_message(Message("m", "h", body, SystemAttributes(sent_ms)))
        return None if row is None else row.text


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
    '{"user_id":"u","x":1e400}',
    '{"user_id":"u","x":1234567890123456789}',
    '{"user_id":"u","x":' + "[" * 100 + "]" * 100 + "}",
    '\ufeff{"user_id":"u"}',
    '{"user_id":"u"}\u00a0',
    whole_login(device_id="e\u0301"),
    whole_login(create_date="2016-12-31T23:59:60Z"),
]
