"""The native extension, always compiled from the checkout, beside the Python executor."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from hatch_build import NAME, compile_extension, find_compiler
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping import fast_path
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import FlatMapping
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.pseudonymize import pseudonymize
from sqs2pg.message import Message, SystemAttributes
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


def masks_of(settings: Settings, key: bytes = KEY) -> list[Operator | None]:
    return [
        pseudonymize(1, key, CANONICAL[field.kind]) if field.mask == "pseudonymize" else None
        for field in settings.fields
    ]


class Both:
    """One mapping in both executors, C and Python."""

    def __init__(self, settings: Settings = BY_DEFAULT, columns: Sequence[Column] = TARGET) -> None:
        self.slow = FlatMapping(settings, columns, masks_of(settings))
        lines = fast_path.compile_fast_path(settings, columns, masks_of(settings), extension())
        assert lines is not None
        self.fast = lines

    def python(self, message: Message) -> str | None:
        try:
            [row] = self.slow.rows(["k"], [message], [self.slow.decode(message)])
        except PermanentFault:
            return None
        return None if isinstance(row, PermanentFault) else row.text

    def check(self, body: str, sent_ms: int = SENT_MS) -> str | None:
        """Return the native line, after checking that it is None or equals Python's."""
        message = Message("m", "h", body, SystemAttributes(sent_ms))
        [line] = self.fast.lines([message])
        assert line is None or line == self.python(message)
        return line


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
    '{"user_id":"u","x":1e9}',
    '{"user_id":"u","x":-}',
    '{"user_id":"u","x":1.}',
    '{"user_id":"u","x":nul}',
    '{"user_id":"u","x":[1]}',
    '{"user_id":"u","x":{"y":1}}',
    '{"user_id":"u\\n"}',
    '{"user_\\u0069d":"u"}',
    '{"user_id":"u\x7f"}',
    '{"user_id":"\x00"}',
    whole_login(user_id=None),
    whole_login(user_id=""),
    whole_login(user_id=...),
    whole_login(user_id=7),
    whole_login(user_id="x" * 129),
    whole_login(locale="é"),
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
    whole_login(create_date="2024-01-01T00:00:00Z"),
    whole_login(create_date=""),
]
