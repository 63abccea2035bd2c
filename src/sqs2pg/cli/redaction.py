"""What may be shown to anybody: settings without their texts, sentences without names.

For `support-bundle`. Settings are shown for what they are (a number, a switch, a default, a word of
a fixed set), not hidden for what they look like. From sentences, every text of the settings and the
environment is removed, and everything that looks like an address or a path.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from sqs2pg.settings import Settings

SET, HIDDEN = "(set)", "(hidden)"
_ALWAYS_SHOWN = frozenset({"mask", "type", "kind"})  # words of fixed sets, as text in the settings
_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|_ROOT|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
_SECRET_MIN = 6  # a shorter one is part of too many words, and is easily guessed
_LOOKS_LIKE = (
    re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"',;)]+", re.IGNORECASE),
    re.compile(r"\barn:[^\s\"',;)]+"),
    re.compile(r"\b\d{12}\b"),
    re.compile(r"\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b"),
    re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"),
    re.compile(r"\b[\w-]+(\.[\w-]+)+:\d{2,5}\b"),
    re.compile(r"\b[\w-]+(\.[\w-]+)*\.(com|net|org|io|internal|local|aws|cloud|corp|lan)\b(?!\()"),
    re.compile(r"(?<![\w.])/(?:[\w.-]+/)+[\w.-]*"),
)


def redacted(settings: Settings) -> dict[str, Any]:
    """Return settings with every free text that is not its default replaced by `(set)`."""
    return _redacted(settings)


def _redacted(section: msgspec.Struct) -> dict[str, Any]:
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(section)
        if field.default is not msgspec.NODEFAULT
    }
    hints = get_type_hints(type(section), include_extras=False)
    return {
        name: _shown(getattr(section, name), defaults.get(name), name, hints.get(name))
        for name in section.__struct_fields__
    }


def _shown(value: Any, default: Any, name: str, hint: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _redacted(value)
    if isinstance(value, (tuple, list)):
        return [_shown(item, None, name, None) for item in value]
    if isinstance(value, dict):
        return {"entries": len(value)}
    if value is None or isinstance(value, (bool, int, float)) or value in ("", default):
        return value
    fixed = get_origin(hint) is Literal and value in get_args(hint)
    return value if fixed or name in _ALWAYS_SHOWN else SET


def strike(text: str, private: list[str]) -> str:
    """Return a sentence without private texts and what looks like one."""
    for pattern in _LOOKS_LIKE:
        text = pattern.sub(HIDDEN, text)
    for word in private:
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", HIDDEN, text)
    return text


def private_texts(settings: Settings | None) -> Iterator[str]:
    """Yield names and addresses of this machine that a sentence may contain."""
    from sqs2pg.errors import SettingsError
    from sqs2pg.postgres.dsn import dsn_options, secret_parts

    if settings:
        yield from _free_texts(settings)
    for dsn in _connection_strings(settings):
        try:
            parts = [*dsn_options(dsn).values()]
        except SettingsError:
            parts = []
        yield from (part for part in (*parts, *secret_parts(dsn)) if len(part) > 2)
    for name, value in os.environ.items():
        if name.startswith(("AWS_", "PG", "SQS2PG_", "DATABASE_URL")) and len(value) > 3:
            yield value
            yield value.rstrip("/").rsplit("/", 1)[-1]
    yield from (socket.gethostname(), str(Path.cwd()), str(Path.home()))
    try:
        yield getpass.getuser()
    except (KeyError, OSError):
        return


_COMMON = frozenset({"root", "none", "text", "file", "postgres", "keep", "true", "false", "auto"})


def _free_texts(section: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(section):
        value = getattr(section, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, msgspec.Struct):
                yield from _free_texts(item)
            elif (
                isinstance(item, str)
                and len(item) > 2
                and item not in (field.default, *_COMMON)
                and field.name not in _ALWAYS_SHOWN
            ):
                yield item
                yield item.rstrip("/").rsplit("/", 1)[-1] or item


def secrets(settings: Settings | None) -> Iterator[str]:
    """Yield what no file may contain: the secrets of settings and environment."""
    from sqs2pg.postgres.dsn import secret_parts

    candidates = [value for name, value in os.environ.items() if _SECRET_NAMES.search(name)]
    if settings:
        candidates.append(settings.status.token)
    for dsn in _connection_strings(settings):
        candidates += secret_parts(dsn)
    yield from (value for value in candidates if len(value) >= _SECRET_MIN)


def _connection_strings(settings: Settings | None) -> set[str]:
    """Return every connection string that is set, also where the settings cannot be read."""
    given = {os.environ.get(name, "") for name in ("DATABASE_URL", "SQS2PG_SINK__DSN")}
    return (given | {settings.sink.dsn if settings else ""}) - {""}
