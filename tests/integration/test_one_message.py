"""Follow one message through the code: it enters the modules that the README names, no others."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import sqs2pg
from sqs2pg.mapping.encoder import Encoded
from sqs2pg.message import Message, Record, Row
from sqs2pg.postgres.sink import Batch
from sqs2pg.sqs.connection import Reply
from tests import native
from tests.integration.support import Assemble, rows, send
from tests.logins import login

PACKAGE = Path(sqs2pg.__file__).parent
USER = "follow-me-1b7a"


class Follower:
    """Knows the message in whatever form: its objects, its id, its values."""

    def __init__(self, body: str) -> None:
        self._marks = [value for value in json.loads(body).values() if len(str(value)) > 5]

    def sees(self, value: Any, depth: int = 2) -> bool:
        """Whether a value has the message in it."""
        if isinstance(value, Message):
            self._marks.append(value.message_id)
        if isinstance(value, Message | Encoded | Batch | Row | Record):
            return True
        if isinstance(value, Reply):
            value = value.body
        if isinstance(value, str):
            return any(mark in value for mark in self._marks)
        if isinstance(value, bytes):
            return any(mark.encode() in value for mark in self._marks)
        if depth and isinstance(value, dict):
            value = [*value.keys(), *value.values()]
        if depth and isinstance(value, list | tuple | set | frozenset):
            return any(self.sees(one, depth - 1) for one in value)
        return False


def named(executor: str) -> set[str]:
    """Return the modules that the README's five lines name, for one executor."""
    text = (PACKAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^[1-5]\. \*\*\w+\*\*: .*$", text, re.MULTILINE)
    assert len(lines) == 5
    before, _ = lines[1].split(" `mapping/native_encoder.py` decodes and masks in C;")
    if executor == "native":
        lines[1:3] = [before, "`mapping/native_encoder.py`"]
    else:
        lines[1] = lines[1].replace("`mapping/native_encoder.py`", "")
    return set(re.findall(r"`(\w+/\w+\.py)`", " ".join(lines)))


@pytest.mark.parametrize("executor", ["native", "python"])
async def test_a_message_passes_the_modules_that_the_readme_names(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    monkeypatch.setenv("SQS2PG_NATIVE", "1" if executor == "native" else "0")
    monkeypatch.setattr("sqs2pg.native.EXTENSION", native.extension())
    entered: set[str] = set()
    body = login(USER, ip="198.51.100.7", device_id="593-47-5928")
    follower = Follower(body)

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(follower.sees(frame.f_locals.get(name)) for name in given if name != "self"):
                entered.add(str(Path(code.co_filename).relative_to(PACKAGE)))

    async with pipeline() as ready:
        await send(ready, [body])
        sys.setprofile(watch)
        try:
            totals = await ready.consumer.run(drain_settle_s=0.2)
        finally:
            sys.setprofile(None)
    assert totals.written == 1
    assert rows(database, "SELECT user_id FROM user_logins") == [(USER,)]
    operators = {module for module in entered if module.startswith("mask/")}
    assert bool(operators) is (executor == "python")
    assert entered - operators == named(executor)
