"""The native extension, compiled from the checkout whatever is installed, beside Python's way."""

from __future__ import annotations

import functools
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

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

SENT_MS = 1_795_384_388_351
KEY = b"k" * 32
BUILT_IN = (
    Column("user_id", "varchar", 128),
    Column("device_type", "varchar", 32),
    Column("masked_ip", "varchar", 256),
    Column("masked_device_id", "varchar", 256),
    Column("locale", "varchar", 32),
    Column("app_version", "int4"),
    Column("create_date", "date"),
)


BY_DEFAULT = Settings()


@functools.cache
def extension() -> ModuleType:
    """Compile and load it, once a process."""
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
    """One mapping, both ways."""

    def __init__(
        self, settings: Settings = BY_DEFAULT, columns: Sequence[Column] = BUILT_IN
    ) -> None:
        self.slow = FlatMapping(settings, columns, masks_of(settings))
        lines = fast_path.compile_lines(settings, columns, masks_of(settings), extension())
        assert lines is not None
        self.fast = lines

    def python(self, message: Message) -> str | None:
        try:
            [row] = self.slow.rows(["k"], [message], [self.slow.decode(message)])
        except PermanentFault:
            return None
        return None if isinstance(row, PermanentFault) else row.text

    def check(self, body: str, sent_ms: int = SENT_MS) -> str | None:
        """Return the native line, having seen that it is Python's or none."""
        message = Message("m", "h", body, SystemAttributes(sent_ms))
        [line] = self.fast.of([message])
        assert line is None or line == self.python(message)
        return line


@functools.cache
def both() -> Both:
    """The built-in mapping, both ways."""
    return Both()


def login(**changes: Any) -> str:
    whole = {
        "user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae",
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": "199.172.111.135",
        "locale": "RU",
        "device_id": "593-47-5928",
    }
    return json.dumps({name: value for name, value in (whole | changes).items() if value != ...})


TAKEN = [
    login(locale=None),
    login(ip=None, device_id=..., app_version=None, device_type=None),
    login(device_id=""),
    login(device_id="x" * 1_000),
    login(user_id="x" * 128),
    login(create_date="2024-02-29"),
    login(create_date=None),
    login(app_version="2146.999.999"),
    login(app_version="0002.003"),
    login(more="x", count=12, share=-0.5, ok=True, no=False, nothing=None),
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
    login(user_id=None),
    login(user_id=""),
    login(user_id=...),
    login(user_id=7),
    login(user_id="x" * 129),
    login(locale="é"),
    login(locale=False),
    login(ip="1.2.3"),
    login(ip="1.2.3.4.5"),
    login(ip="1.2.3.256"),
    login(ip="01.2.3.4"),
    login(ip="1.2.3.4 "),
    login(ip=""),
    login(ip="::1"),
    login(ip="::ffff:1.2.3.4"),
    login(app_version="1.1000"),
    login(app_version="2147"),
    login(app_version="1.2.3.4"),
    login(app_version="1."),
    login(app_version=".1"),
    login(app_version="1.x"),
    login(app_version=""),
    login(create_date="2023-02-29"),
    login(create_date="0000-01-01"),
    login(create_date="2024-13-01"),
    login(create_date="2024-1-01"),
    login(create_date="2024-01-01T00:00:00Z"),
    login(create_date=""),
]
