"""Builds of the native extension: by the wheel's hook, with sanitizers, and without it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hatch_build import NAME, SOURCES, find_compiler
from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.message import Message, SystemAttributes
from tests.integration.support import Assemble, rows, send
from tests.logins import login
from tests.native import LEFT, TAKEN, both, extension

ROOT = SOURCES.parent
SANITIZED = ("-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror")


def sanitizers(compiler: list[str]) -> list[str]:
    """The ziglang wheel has no address sanitizer, and takes long to build the other's runtime."""
    if "ziglang" in compiler:
        return ["-fsanitize=undefined", "-fsanitize-trap=undefined"]
    return ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def changed(draw: random.Random, body: str) -> str:
    """Change a body at a few places, by bytes that mean something in JSON or none at all."""
    raw = bytearray(body.encode())
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(raw) + 1)
        raw[at : at + draw.randrange(3)] = draw.choice([b'"', b"\\", b"{", b"}", b":", b",", b"9"])
    return raw.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """native/fuzz.c with the sanitizers."""
    binary = tmp_path_factory.mktemp("native") / "fuzz"
    units = [str(SOURCES / f"{name}.c") for name in ("fuzz", "http", "key", "line", "sha256")]
    compiler = find_compiler()
    command = [*compiler, *SANITIZED, *sanitizers(compiler), *units, "-o", str(binary)]
    subprocess.run(command, check=True)
    return binary


def test_no_body_makes_the_extension_leave_its_buffers(sanitized: Path) -> None:
    draw = random.Random(7)
    bodies = [*TAKEN, *LEFT, *(changed(draw, body) for body in logins(4_000, seed=3))]
    plain = [body for body in bodies if body.isascii()]
    given = b"".join(b"%d\n%s" % (len(body), body.encode()) for body in plain)
    done = subprocess.run([sanitized], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    lines = both().fast.lines(
        [Message("m", "h", body, SystemAttributes(1795384388351)) for body in plain]
    )
    assert done.stdout.decode() == "".join(line or "\n" for line in lines)
    assert sum(line is not None for line in lines) > 1_000


REPLY = (
    b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: 1\r\nContent-Type: application/x-amz-json-1.0\r\n"
    b'Connection: keep-alive\r\nContent-Length: 15\r\n\r\n{"Messages":[]}'
)


def damaged(draw: random.Random, text: bytes) -> bytes:
    """Cut a text short, or change it at a few places."""
    raw = bytearray(text[: draw.randrange(len(text) + 1)] if draw.random() < 0.5 else text)
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(raw) + 1)
        raw[at : at + draw.randrange(3)] = draw.choice([b"\r", b"\n", b":", b"9", b"\0", b" ", b""])
    return bytes(raw)


def test_no_reply_or_message_id_makes_the_extension_leave_its_buffers(sanitized: Path) -> None:
    draw = random.Random(11)
    name = b"0dfaf1e2-87a4-4a5c-9f0c-5d9a1b2c3d4e"
    texts = [REPLY, name, b"", *(damaged(draw, draw.choice([REPLY, name])) for _ in range(4_000))]
    given = b"".join(b"%d\n%s" % (len(text), text) for text in texts)
    done = subprocess.run([sanitized, "replies"], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    said = done.stdout.decode().splitlines()
    assert said[:3] == [str(len(REPLY) - 15), "0 key", "0"]
    for text, line in zip(texts, said, strict=True):
        body = extension().read_plain(text)
        assert line.partition(" ")[0] == str(len(text) - len(body) if body is not None else 0)


def build(folder: Path, **environment: str) -> list[str]:
    """Build a wheel; return the names in it, the wheel's own first."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    [wheel] = folder.glob("*.whl")
    return [wheel.name, *zipfile.ZipFile(wheel).namelist()]


def test_the_wheel_contains_the_extension(tmp_path: Path) -> None:
    name, *files = build(tmp_path, SQS2PG_NATIVE="1")
    assert f"sqs2pg/{NAME}" in files
    assert not name.endswith("-any.whl")


def test_the_wheel_is_complete_without_the_extension(tmp_path: Path) -> None:
    name, *files = build(tmp_path, SQS2PG_NATIVE="0")
    assert name.endswith("-py3-none-any.whl")
    assert "sqs2pg/native.py" in files
    assert not [file for file in files if file.endswith(".so")]


@pytest.mark.parametrize("on", ["1", "0"])
async def test_the_pipeline_writes_the_same_with_it_and_without(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    monkeypatch.setenv("SQS2PG_NATIVE", on)
    monkeypatch.setattr("sqs2pg.native.EXTENSION", extension())
    bodies = [login(i) for i in range(40)]
    odd = [*(f'{{"user_id":"é{i}"}}' for i in range(2)), "not json"]
    async with pipeline() as ready:
        assert (ready.processors[0].plan.fast_path is not None) is (on == "1")
        await send(ready, [*bodies, *odd])
        totals = await ready.consumer.run(drain_settle_s=0.2)
    assert (totals.written, totals.quarantined) == (42, 1)
    written = rows(database, "SELECT * FROM user_logins ORDER BY user_id")
    expected = [both().python(Message("m", "h", body, SystemAttributes(0))) for body in bodies]
    assert {row[0] for row in written} == {
        *(line.split("\t")[0] for line in expected if line), "é0", "é1"
    }  # fmt: skip
