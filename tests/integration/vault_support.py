"""What the vault's tests share: a stack with a few people in it, and logins as each role."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from sqs2pg.keys.keyring import Keyring
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.runners.connect import keyring_of
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings

ON = {"vault": {"enabled": True}}
PASSWORD = "only-here"


def message(user: Any, ip: Any = "198.51.100.7", device: Any = "1", **more: Any) -> Message:
    body = json.dumps({"user_id": user, "ip": ip, "device_id": device} | more)
    return Message(str(uuid.uuid4()), "-", body, SystemAttributes(1_764_000_000_000))


async def write(ready: Pipeline, messages: Sequence[Message], sink: int = 0) -> None:
    outcomes = await ready.processors[sink].process(messages)
    assert outcomes == [Outcome.WRITTEN] * len(messages)


def keys_of(settings: Settings) -> Keyring:
    return keyring_of(settings, ["127.0.0.1"])


@contextmanager
def login_of(database: str, *roles: str) -> Iterator[str]:
    """Make a login that is a member of the roles and nothing else; yield its conninfo."""
    name = f"t_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        for role in roles:
            owner.execute(f"GRANT {role} TO {name}")
        try:
            yield make_conninfo(database, user=name, password=PASSWORD)
        finally:
            owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def rotate(settings: Settings, database: str, series: str) -> None:
    """Add a new version of a root to the key file and declare it the active one."""
    path = Path(settings.keys.file)
    content = json.loads(path.read_text())
    version = max(map(int, content[series])) + 1
    content[series][str(version)] = base64.b64encode(os.urandom(32)).decode()
    path.write_text(json.dumps(content))
    mark = keys_of(settings).fingerprints(series)[version]
    with psycopg.connect(database) as owner:
        owner.execute("UPDATE sqs2pg.key SET active = false WHERE series = %s", [series])
        owner.execute(
            "INSERT INTO sqs2pg.key (series, version, fingerprint, active)"
            " VALUES (%s, %s, %s, true)",
            [series, version, mark],
        )
