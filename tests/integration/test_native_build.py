"""Builds of the native extension: by the wheel's hook, with sanitizers, and without it."""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from hatch_build import NAME, SERVER_NAME, SOURCES, find_compiler
from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.mapping.columns import column_for
from sqs2pg.mapping.native_encoder import NativeEncoder
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline.archive_lines import split_usual_lines
from sqs2pg.settings import EnvelopeSettings, Field, Settings
from tests.integration.support import Assemble, rows, send
from tests.logins import login
from tests.native import LEFT, TAKEN, Both, both, extension

ROOT = SOURCES.parent
NEEDING_PYTHON = (
    *("module", "fast_path", "compile", "field", "originals", "known"),
    *("aead", "seal", "vault_rows", "rewrap", "renew"),
)
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
    units = [str(unit) for unit in SOURCES.glob("*.c") if unit.stem not in NEEDING_PYTHON]
    compiler = find_compiler()
    command = [*compiler, *SANITIZED, *sanitizers(compiler), *units, "-o", str(binary)]
    subprocess.run(command, check=True)
    return binary


def run_sanitized(sanitized: Path, what: str, texts: Sequence[bytes]) -> str:
    """Give the program texts; return what it says of them."""
    given = b"".join(b"%d\n%s" % (len(text), text) for text in texts)
    done = subprocess.run([sanitized, what], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    return done.stdout.decode()


def hold_against_module(both: Both, said: str, bodies: Sequence[str]) -> int:
    """See that the program made the extension's lines; return how many bodies had any."""
    rows = [both.check(body) for body in bodies]
    assert said == "".join(row or "\n" for row in rows)
    return sum(row is not None for row in rows)


def test_no_body_makes_the_extension_leave_its_buffers(sanitized: Path) -> None:
    draw = random.Random(7)
    bodies = [*TAKEN, *LEFT, *(changed(draw, body) for body in logins(4_000, seed=3))]
    bodies = [body for body in bodies if "\ud800" not in body]
    said = run_sanitized(sanitized, "login", [body.encode() for body in bodies])
    assert hold_against_module(both(), said, bodies) > 1_000


def order(draw: random.Random) -> str:
    """The body of an order, its strings with escapes or without."""
    lines = [
        {
            "sku": draw.choice(["A1", "ä", 'q"\t\\']),
            "n": draw.randrange(99),
            "price": draw.choice([19.9, 1e-7, 1e300, 10**1_100, -0.0]),
        }
        for _ in range(draw.randrange(4))
    ]
    document = draw.choice([None, {"a\t": [1e99, {"b": "ü\\"}], "c": False}, [], "text"])
    user = {"id": draw.choice(["u1", "Zoë"]), "ip": "10.0.0.7"}
    whole = {"id": "o-1", "user": user, "lines": lines, "doc": document, "tags": ["x", "y", {}]}
    whole |= {"at": "2026-01-01T00:00:00.5+01:00", "more": {"deep": [[[]]]}}
    return json.dumps(whole, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 1]))


ORDER_FIELDS = (
    Field(source="id", column="id", required=True),
    Field(source="user.id", column="user", mask="pseudonymize"),
    Field(source="user.ip", column="ip", mask="pseudonymize", kind="ip"),
    Field(source="at", column="at", type="timestamptz"),
    Field(source="doc", column="doc", type="jsonb"),
    Field(source="tags[1]", column="tag"),
    Field(source="lines[].sku", column="sku", length_max=40),
    Field(source="lines[].n", column="n", type="integer"),
    Field(source="lines[].price", column="price", type="numeric"),
    Field(column="line", type="integer", default="record_index"),
)


@pytest.mark.parametrize("what", ["order", "sns"])
def test_no_order_makes_the_extension_leave_its_buffers(sanitized: Path, what: str) -> None:
    draw = random.Random(5)
    layers = EnvelopeSettings(layers=("sns",) if what == "sns" else ())
    settings = Settings(field=ORDER_FIELDS, explode="lines", envelope=layers)
    bodies = [changed(draw, order(draw)) for _ in range(4_000)]
    if what == "sns":
        envelope = {"Type": "Notification", "MessageId": "m", "TopicArn": "t", "Timestamp": "now"}
        wrapped = [json.dumps(envelope | {"Message": body, "more": {}}) for body in bodies]
        bodies = [changed(draw, body) for body in wrapped]
    columns = [[column_for(field) for field in ORDER_FIELDS]]
    said = run_sanitized(sanitized, what, [body.encode() for body in bodies])
    assert hold_against_module(Both(settings, columns), said, bodies) > 300


MADE_UP = """
import sys
from collections import Counter
from random import Random
from tests import native
from tests.properties.test_native_mappings import check

native.FLAGS = tuple(sys.argv[1:])
seen = Counter()
for seed in range(1_000_000, 1_000_200):
    check(Random(seed), seen)
print(seen["taken"])
"""


def sanitizer_runtimes(compiler: list[str]) -> str:
    """The libraries that a sanitized extension needs, for LD_PRELOAD; none for ziglang's traps."""
    if "ziglang" in compiler:
        return ""
    return " ".join(
        subprocess.run(
            [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    )


def test_no_mapping_makes_the_extension_leave_its_buffers() -> None:
    compiler = find_compiler()
    flags = ["-std=c11", "-g", "-Wall", *sanitizers(compiler)]  # -O1 takes twice as long to compile
    flags += ["-fPIC", "-shared", "-fvisibility=hidden"]
    environment = {"LD_PRELOAD": sanitizer_runtimes(compiler), "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-c", MADE_UP, *flags],
        cwd=ROOT,
        env=os.environ | environment | {"ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout) > 150


def damaged(draw: random.Random, text: bytes) -> bytes:
    """Cut a text short, or change it at a few places."""
    raw = bytearray(text[: draw.randrange(len(text) + 1)] if draw.random() < 0.5 else text)
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(raw) + 1)
        raw[at : at + draw.randrange(3)] = draw.choice([b"-", b"f", b"F", b"9", b"\0", b"4", b""])
    return bytes(raw)


def test_no_message_id_makes_the_extension_leave_its_buffers(sanitized: Path) -> None:
    draw = random.Random(11)
    name = b"0dfaf1e2-87a4-4a5c-9f0c-5d9a1b2c3d4e"
    texts = [name, b"", name.replace(b"-4a5c-", b"-1a5c-"), name.upper()]
    texts += [damaged(draw, name) for _ in range(4_000)]
    said = run_sanitized(sanitized, "ids", texts).splitlines()
    uuid_4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert said == ["key" if uuid_4.fullmatch(text) else "none" for text in texts]
    assert said.count("key") > 100


def test_no_line_makes_the_extension_leave_its_buffers(sanitized: Path) -> None:
    draw = random.Random(13)
    whole = "\n".join(logins(3, seed=5))
    texts = [changed(draw, whole).encode() for _ in range(4_000)]
    texts += [b"", b"\n", b"{", b"}", b"{}\t", whole.encode(), b'{"messageType"', b"{} {}"]
    said = run_sanitized(sanitized, "lines", texts).splitlines()
    assert said == [str(len(split_usual_lines(text) or ())) for text in texts]
    assert said.count("3") > 100
    assert said.count("0") > 30


def test_no_ledger_makes_the_extension_leave_its_buffers(sanitized: Path) -> None:
    draw = random.Random(17)
    line = b"0197d3c0-0000-7abc-8def-0123456789ab\tid\t1\twritten\t\\N\n"
    whole = line + line.replace(b"written", b"quarantined")
    texts = [whole, b"", *(damaged(draw, whole) for _ in range(4_000))]
    said = run_sanitized(sanitized, "ledger", texts).splitlines()
    ends = ((b"1\twritten\t\\N\n", b"abc"), (b"1\tquarantined\t\\N\n", b"defg"))
    made = [extension().binary_ledger(text, 5, ends) for text in texts]
    assert said == [str(0 if one is None else len(one)) for one in made]
    assert sum(one is not None for one in made) > 100
    assert made.count(None) > 100


KEEPING = """
import resource, sys
from tests.native import extension
if len(sys.argv) > 1:
    extension().keep_memory(int(sys.argv[1]))
def faults_of_a_batch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    texts = [b"x" * 2**20 for _ in range(30)]
    texts.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
counts = [faults_of_a_batch() for _ in range(10)]
print(min(counts[5:]), resource.getpagesize())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library keeps what it likes"
)
def test_kept_memory_is_not_mapped_again_for_the_next_batch() -> None:
    def faults(*arguments: str) -> float:
        command = [sys.executable, "-c", KEEPING, *arguments]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        count, page = map(int, said.split())
        return count / (30 * 2**20 / page)

    assert faults() > 0.5
    assert faults(str(64 * 2**20)) < 0.1


@pytest.mark.parametrize("bytes_", [-1, 2**31, 2**64])
def test_no_other_number_of_bytes_is_kept(bytes_: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        extension().keep_memory(bytes_)


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
    # What is in it is the same, and optimised code takes five seconds more.
    quick = tmp_path / "cc"
    quick.write_text(f'#!/bin/sh\nexec {shlex.join(find_compiler())} "$@" -O0\n')
    quick.chmod(0o755)
    name, *files = build(tmp_path, SQS2PG_NATIVE="1", CC=str(quick))
    assert f"sqs2pg/{NAME}" in files
    assert not name.endswith("-any.whl")
    [wheel] = tmp_path.glob("*.whl")
    server = zipfile.ZipFile(wheel).getinfo(f"sqs2pg/{SERVER_NAME}")
    assert server.external_attr >> 16 & 0o111, "pip keeps it a program"


def test_the_wheel_is_complete_without_the_extension(tmp_path: Path) -> None:
    name, *files = build(tmp_path, SQS2PG_NATIVE="0")
    assert name.endswith("-py3-none-any.whl")
    assert "sqs2pg/native.py" in files
    assert not [file for file in files if file.endswith((".so", SERVER_NAME))]


@pytest.mark.parametrize("on", ["1", "0"])
async def test_the_pipeline_writes_the_same_with_it_and_without(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    monkeypatch.setenv("SQS2PG_NATIVE", on)
    monkeypatch.setattr("sqs2pg.native.EXTENSION", extension())
    bodies = [login(i) for i in range(40)]
    odd = [*(f'{{"user_id":"é{i}"}}' for i in range(2)), "not json"]
    async with pipeline() as ready:
        assert isinstance(ready.processors[0].plan.encoder, NativeEncoder) is (on == "1")
        await send(ready, [*bodies, *odd])
        totals = await ready.consumer.run(drain_settle_s=0.2)
    assert (totals.written, totals.quarantined) == (42, 1)
    written = rows(database, "SELECT * FROM user_logins ORDER BY user_id")
    expected = [both().python(Message("m", "h", body, SystemAttributes(0))) for body in bodies]
    assert {row[0] for row in written} == {
        *(line.split("\t")[0] for line in expected if line), "é0", "é1"
    }  # fmt: skip
