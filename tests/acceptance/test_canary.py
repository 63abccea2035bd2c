"""A message's values appear only where the mapping sends them, whatever happens to the message.

Every message carries canaries, unique values, in all of its fields. The messages take every path
that there is (PATHS), while everything logs as much as it can and PostgreSQL logs every statement
and parameter. Then every place that output can end in (SURFACES of `tests/surfaces.py`) is searched
for every canary in every form that a leak could take (`tests/canaries.py`).

To cover a new command, add it to COMMANDS; a new surface is an entry of SURFACES; a new
quarantine reason or transient fault is an entry below.
"""

from __future__ import annotations

import gzip
import json
import random
import secrets
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from sqs2pg.cli.embedded.child_process import reserve_port
from tests.canaries import Canary, find, text_canary
from tests.collector import Collector
from tests.s3_events import made_bucket, notification, of, removed_bucket
from tests.shell import Shell
from tests.surfaces import SURFACES, Surface, World
from tests.waiting import wait_until

Send = Callable[[list[str]], list[str]]

SETTINGS = """
unknown_fields = "quarantine"
[sink]
table = "events"
statement_timeout_s = 5
[ledger]
dedupe_key = "event"
[vault]
enabled = true
[[field]]
source = "user_id"
column = "user_id"
required = true
length_max = 128
[[field]]
source = "device_type"
column = "device_type"
length_max = 64
[[field]]
source = "ip"
column = "masked_ip"
kind = "ip"
mask = "pseudonymize"
recover = true
[[field]]
source = "device_id"
column = "masked_device_id"
mask = "pseudonymize"
recover = true
[[field]]
source = "email"
column = "email"
kind = "email"
mask = "encrypt"
[[field]]
source = "account"
column = "account"
mask = "encrypt_deterministic"
[[field]]
source = "phone"
column = "phone"
kind = "phone"
mask = "fpe_ff1"
[[field]]
source = "note"
column = "note"
mask = "redact"
[[field]]
source = "secret"
column = "secret"
mask = "nullify"
[[field]]
source = "app_version"
column = "app_version"
type = "version"
[[field]]
source = "at"
column = "at"
type = "date"
[[field]]
column = "score"
expression = "join('-', [device_type, to_string(sum(scores || `[]`))])"
[[field]]
column = "joined"
expression = "join(not_null(separator, ''), parts || `[]`)"
[[field]]
column = "contact"
expression = "not_null(contact, account)"
mask = "pseudonymize"
domain = "contact"
recover = true
[[route]]
drop = true
when = { expression = "skip && starts_with(skip, 'yes')" }
"""
KEPT = {"user_id", "device_type"}

# A quarantine reason -> what a message must have to meet it; the rest of it is canaries.
REASONS: dict[str, dict[str, Any]] = {
    "not_json": {},
    "not_an_object": {},
    "missing_field": {"user_id": None},
    "empty_field": {"user_id": ""},
    "wrong_type": {"device_id": {"nested": 1}},
    "unknown_field": {},
    "bad_ip": {"ip": "1.2.3.04"},
    "bad_email": {"email": "no address"},
    "bad_phone": {"phone": "none"},
    "bad_version": {"app_version": "x"},
    "version_range": {"app_version": "1.1000"},
    "bad_date": {"at": "yesterday"},
    "too_long": {"user_id": "x" * 200},
    "too_short": {"phone": "12345"},
    "too_many_marks": {"device_id": "e" + "\u0301" * 40},
    "nul_character": {"device_type": "\0"},
    "rejected_by_database": {"device_type": "reject"},
    "condition_failed": {},
    "expression_failed": {},
    "expression_too_costly": {},
}
# What makes an expression fail, of a canary: jmespath's own errors quote it.
EXPRESSIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "condition_failed": lambda value: {"skip": [value]},
    "expression_failed": lambda value: {"scores": [1, value]},
    "expression_too_costly": lambda value: {"separator": value * 100, "parts": ["x"] * 1_000},
}
# Systemic SQLSTATEs: a trigger raises each once, with a message that quotes the row.
TRANSIENT = [
    "40001",
    "40P01",
    "53100",
    "53200",
    "55P03",
    "57014",
    "57P01",
    "58030",
    "25006",
    "08006",
]

_TRIGGER = """
CREATE SEQUENCE turn MINVALUE 0 START 0;
CREATE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    codes text[] := '{{{codes}}}';
    at integer;
BEGIN
    IF NEW.device_type LIKE 'reject%' THEN
        RAISE EXCEPTION 'no such device: %', NEW USING ERRCODE = '23514', DETAIL = NEW::text;
    END IF;
    at := nextval('turn');
    IF at < cardinality(codes) THEN
        RAISE EXCEPTION 'the world is away: %', NEW
            USING ERRCODE = codes[at + 1], DETAIL = NEW::text, HINT = NEW::text;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER strike BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION strike();
"""
_ALL_LOGGED = {
    "log_statement": "all",
    "log_min_messages": "debug1",
    "log_min_error_statement": "debug5",
    "log_min_duration_statement": "0",
    "log_error_verbosity": "verbose",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
}


class Flock:
    """The canaries, by the path that their message takes."""

    def __init__(self) -> None:
        self.hidden: list[Canary] = []
        """Must be found nowhere."""
        self.kept: list[Canary] = []
        """In rows, in fields that the mapping keeps: for the target and the server's log."""

    def message(self, path: str, *, written: bool = False, **changes: Any) -> dict[str, Any]:
        """Return a message with a canary in every field that `changes` does not name."""
        drawn = random.SystemRandom()
        values = {
            **{name: text_canary(path).value for name in ("user_id", "device_type")},
            **{name: text_canary(path).value for name in ("account", "note", "secret")},
            "ip": ".".join(str(drawn.randint(101, 223)) for _ in range(4)),
            "device_id": f"{drawn.randint(100, 999)}-{drawn.randint(10**6, 10**7 - 1)}",
            "email": f"{text_canary(path).value}@example.com",
            "phone": f"1555{drawn.randint(10**7, 10**8 - 1)}",
        }
        for name, value in values.items():
            if name in changes:
                continue
            canary = Canary(value.removesuffix("@example.com"), f"{name}, {path}")
            (self.kept if written and name in KEPT else self.hidden).append(canary)
        return {**values, "app_version": "2.3.0", **changes}

    def bodies_to_quarantine(self) -> list[str]:
        made = []
        for reason, changes in REASONS.items():
            message = self.message(reason, written=reason == "rejected_by_database", **changes)
            if reason in EXPRESSIONS:
                canary = text_canary(f"what an expression reads, {reason}")
                self.hidden.append(canary)
                message |= EXPRESSIONS[reason](canary.value)
            if reason == "unknown_field":
                canary = text_canary("the name of an unknown field")
                self.hidden.append(canary)
                message[canary.value] = 1
            body = json.dumps(message)
            if reason == "not_json":
                body = body[:-1]
            if reason == "not_an_object":
                body = f"[{body}]"
            made.append(body)
        return made


@pytest.fixture
def bucket(emulator_endpoint: str, aws_environment: dict[str, str]) -> Iterator[Any]:
    made = made_bucket(emulator_endpoint, f"canaries-{secrets.token_hex(6)}")
    yield made
    removed_bucket(made)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture
def world(
    shell: Shell,
    database: str,
    server_logs: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    collector: Collector,
) -> Iterator[World]:
    hold = reserve_port()
    port = hold.getsockname()[1]
    more = f"""
[status]
bind = "127.0.0.1:{port}"
poll_s = 0.2
tap = true
token = "{STATUS_TOKEN}"
[telemetry]
traces = true
metrics = true
emf = true
every_s = 1
endpoint = "{collector.endpoint}"
"""
    (shell.folder / "sqs2pg.toml").write_text(SETTINGS + more)
    shell("migrate")
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(_TRIGGER.replace("{{{codes}}}", "{" + ",".join(TRANSIENT) + "}"))
        for setting, value in _ALL_LOGGED.items():
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    before = len(server_logs())
    made = World(shell, database, lambda: server_logs()[before:])
    made.exported = collector.bodies
    yield made
    hold.close()


def _address(world: World) -> str:
    return next(
        line.split('"')[1]
        for line in (world.shell.folder / "sqs2pg.toml").read_text().splitlines()
        if line.startswith("bind")
    )


STATUS_TOKEN = "a-token-for-the-page"


@contextmanager
def visited(world: World) -> Iterator[None]:
    """Keep requesting every page of the status address while a command runs."""
    address, headers = _address(world), {"Authorization": f"Bearer {STATUS_TOKEN}"}
    done = threading.Event()

    def visit() -> None:
        while not done.wait(0.05):
            for page in ("", "metrics", "livez", "readyz", "state", "history", "events", "tap"):
                asked = urllib.request.Request(f"http://{address}/{page}", headers=headers)
                try:
                    with urllib.request.urlopen(asked, timeout=5) as answer:
                        # The stream does not end: its first events hold everything.
                        body = answer.read1(2**20) if page == "events" else answer.read()
                except urllib.error.HTTPError as error:
                    body = error.read()
                except OSError:
                    continue
                seen = world.tapped if page == "tap" else world.pages
                if body not in seen[-12:]:
                    seen.append(body)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield
    finally:
        done.set()
        visitor.join()


CRASH = """
from sqs2pg.pipeline.processor import Processor
def crash(self, messages, *rest, **named):
    raise RuntimeError(f"{messages[0].body} {messages!r}")
Processor._write = crash
"""
CRASHES_ELSEWHERE = """
import asyncio, gc, threading, warnings
from sqs2pg.pipeline.processor import Processor
whole = Processor._write
class Last:
    def __init__(self, text): self.text = text
    def __del__(self): raise RuntimeError(self.text)
def crash(text): raise ValueError(text)
async def fail(text): int(text)
def transform(self, messages, *rest, **named):
    body = messages[0].body
    thread = threading.Thread(target=crash, args=[body], name=body[:40])
    thread.start()
    thread.join()
    Last(body)
    warnings.warn(body, stacklevel=1)
    loop = asyncio.get_running_loop()
    loop.call_soon(crash, body)
    loop.create_task(fail(body), name=body[:40])
    gc.collect()
    return whole(self, messages, *rest, **named)
Processor._write = transform
"""


# The state that a worker leaves if it is killed while it tries the message alone.
KILLED_BEFORE = """
from sqs2pg.pipeline.poison import Suspects
alone = Suspects.try_alone
async def try_alone(self, processor, message):
    if message.message_id == {message_id!r}:
        await processor.sink.note_suspect(processor.key_of(message), 0)
    return await alone(self, processor, message)
Suspects.try_alone = try_alone
"""


def _run_every_path(world: World, flock: Flock, send: Send) -> None:
    written = [flock.message("written", written=True, event=f"e{n}") for n in range(3)]
    twice = flock.message("duplicate", written=True, event="e1")  # whichever comes first
    bodies = [*map(json.dumps, written), *flock.bodies_to_quarantine(), json.dumps(twice)]
    send(bodies)
    with visited(world):
        # One batch, also on a busy machine: of two, a fault of one part may end without a line.
        whole = {"SQS2PG_SINK__LINGER_MS": "1000"}
        done = world.loud("run", "--drain", "--verbose", "--json", **whole)
    assert done.last["written"] == len(written)
    assert done.last["duplicate"] == 1
    assert done.last["quarantined"] == len(REASONS)
    reasons = world.sql("SELECT DISTINCT reason FROM sqs2pg.quarantine")
    assert {reason for (reason,) in reasons} == set(REASONS)
    assert world.sql("SELECT last_value >= %s FROM turn", len(TRANSIENT)) == [(True,)]
    for state in set(TRANSIENT) - {"40P01"}:  # a deadlock's loser tries again at once
        assert f"postgres_{state}" in done.err

    send([json.dumps(flock.message("crash", written=True))])
    soon = {"SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S": "2"}  # the next run gets them
    said = world.loud("run", "--drain", patch=CRASH, code=1, **soon).err
    assert "unexpected RuntimeError" in said
    send([json.dumps(flock.message("crash of a thread, a task, a finalizer", written=True))])
    with visited(world):
        said = world.loud("run", "--drain", "--verbose", patch=CRASHES_ELSEWHERE).err
    assert "unexpected ValueError" in said
    assert "unexpected RuntimeError" in said
    [message_id] = send([json.dumps(flock.message("kills_worker", written=True))])
    patch = KILLED_BEFORE.format(message_id=message_id)
    world.loud("run", "--drain", patch=patch, SQS2PG_SOURCE__MAX_RECEIVES="1")
    assert world.sql("SELECT 1 FROM sqs2pg.quarantine WHERE reason = 'kills_worker'")


def _read_objects(world: World, flock: Flock, send: Send, bucket: Any) -> None:
    """Read lines of S3 objects, good and bad ones; refuse an object and a bucket."""
    envelope = {
        "SQS2PG_ENVELOPE__LAYERS": "s3_event",
        "SQS2PG_ENVELOPE__S3_BUCKETS": bucket.name,
    }
    good = flock.message("a line", written=True, event="e20")
    bad = [body for body in flock.bodies_to_quarantine() if "\\u0000" not in body]
    as_csv = flock.message("a record of CSV", event="e21", ip="x")
    table = f"{','.join(as_csv)}\n{','.join(as_csv.values())}\n{','.join(as_csv.values())},more\n"
    bodies = {
        "lines": "\n".join([json.dumps(good), *bad]).encode(),
        "damaged.gz": gzip.compress(json.dumps(flock.message("damaged")).encode())[:-9],
        "records.csv": table.encode(),
        "not read": b"BZh91AY&SY" + json.dumps(flock.message("refused")).encode(),
    }
    foreign = text_canary("a key in a foreign bucket")
    flock.hidden.append(foreign)
    told = [of(bucket.put_object(Key=key, Body=body)) for key, body in bodies.items()]
    send([*told, notification("elsewhere", foreign.value), foreign.value])
    with visited(world):
        done = world.loud("run", "--drain", "--verbose", "--json", **envelope)
    assert (done.last["received"], done.last["written"], done.last["quarantined"]) == (6, 2, 4)
    assert done.last["object_lines"] == 1 + len(bad) + 2
    found = world.sql("SELECT reason FROM sqs2pg.quarantine WHERE detail LIKE '%s3://%'")
    assert {"archive_damaged", "archive_format", "csv_fields", "bad_ip"} <= {
        one for (one,) in found
    }
    world.loud("quarantine", "replay", "--all", **envelope)


COMMANDS = (
    "quarantine list --json; quarantine list --group-by detail; quarantine show 1;"
    " quarantine replay --all; verify --json;"
    " check --attack --json; check --column events.masked_device_id --json; keys list --json;"
    " support-bundle -o later.zip; config show; quarantine purge --reason bad_date --yes;"
    " keys rewrap --json; keys rekey --json; verify --audit --json"
)


def _attach_to_a_running_one(world: World, flock: Flock, send: Send) -> None:
    """Do what operators do with a running pipeline: open the page, run `top`, collect a bundle."""
    address, earlier = _address(world), len(world.pages)
    running = world.shell.start("run", "--verbose")
    try:
        message = flock.message("attached", written=True, event="e9")
        bad = flock.message("attached, bad", ip="1.2.3.04")
        send([json.dumps(message), json.dumps(bad)])
        while not any(
            b'"bad_ip"' in page and b'"quarantined":1' in page for page in world.pages[earlier:]
        ):
            assert running.poll() is None, "it ended"
            with visited(world):
                time.sleep(0.5)
        world.shell("top", address)
        world.shell("top", "--json", address)
        # Of rows that are written while somebody watches.
        with visited(world):
            send([json.dumps(flock.message("tapped", written=True, event="e10"))])
            shown = world.shell("tap", address, "--count", "1").out
        world.shell.transcript.remove(shown)
        world.tapped.append(shown.encode())
        world.shell("support-bundle", address, "-o", "live.zip")
        _pause_and_resume(world, running)
    finally:
        running.terminate()
        world.shell.transcript += running.communicate(timeout=60)
    assert running.returncode == 0


def _pause_and_resume(world: World, running: subprocess.Popen[str]) -> None:
    """Pause it: the operator's words are for page, `check` and audit, not for a bundle."""
    words = text_canary("an operator's words")
    world.loud("pause", "--reason", words.value)
    # Workers that crashed have left their rows.
    paused = "SELECT 1 FROM sqs2pg.worker WHERE state = 'paused'"
    wait_until(lambda: world.sql(paused), during=running)
    with visited(world):
        bundle = world.loud("support-bundle", _address(world), "-o", "paused.zip")
    with zipfile.ZipFile(world.shell.folder / "paused.zip") as files:
        everything = "".join(files.read(name).decode() for name in files.namelist())
    assert "by_operator" in everything
    assert not find([words], everything + bundle.err), "a bundle goes to the public"
    refused = world.loud("run", "--drain", code=1, SQS2PG_STATUS__BIND="")
    assert "is paused since" in refused.err
    world.loud("resume", "--reason", "done")


def _use_the_commands(world: World, flock: Flock) -> None:
    world.loud(*COMMANDS.replace(";", " ;").split())
    world.loud("quarantine", "export", "--all", "--file", "sealed.jsonl")
    world.shell.transcript.append((world.shell.folder / "sealed.jsonl").read_text())
    how = ("--unsealed", "--reason", "a test", "--file", "open.jsonl")
    world.loud("quarantine", "export", "--all", *how)
    opened = (world.shell.folder / "open.jsonl").read_text()
    assert find(flock.hidden, opened), "an unsealed body is in the file, and nowhere else"
    (world.shell.folder / "open.jsonl").unlink()
    [(number,)] = world.sql("SELECT max(id) FROM sqs2pg.quarantine WHERE replayed_at IS NULL")
    amend = ("quarantine", "amend", str(number), "--reason", "a test", "--body", "body.json")
    for code, changes in ((1, {"ip": "1.2.3.04"}), (0, {"event": "e30"})):
        body = flock.message("amended", written=not code, **changes)
        (world.shell.folder / "body.json").write_text(json.dumps(body))
        world.loud(*amend, code=code)
    (world.shell.folder / "body.json").unlink()


def _reveal_and_forget(world: World, flock: Flock) -> None:
    """Reveal a value, which goes to stdout and nowhere else; erase its person."""
    [(user, token)] = world.sql("SELECT user_id, masked_ip FROM events ORDER BY user_id LIMIT 1")
    shown = world.loud("reveal", token, "--reason", "a test")
    assert find(flock.hidden, shown.out), "a revealed value is shown"
    assert "of the subject" in shown.err
    world.shell.transcript.remove(shown.out)
    everything = world.loud("reveal", "--user", user, "--all", "--reason", "a test")
    assert find(flock.hidden, everything.out), "all that is held is shown"
    world.shell.transcript.remove(everything.out)
    world.loud("forget", user, "--reason", "a test", "--dry-run")
    world.loud("forget", user, "--reason", "a test", "--certificate", "certificate.json")
    for name in ("certificate.json", "certificate.txt"):
        world.shell.transcript.append((world.shell.folder / name).read_text())
    world.loud("reveal", "--user", user, "--reason", "a test", code=1)
    world.loud("reveal", token, "--reason", "a test", code=1)
    assert world.sql("SELECT count(*) FROM events WHERE user_id = %s", user) == [(0,)]


def leaks(surface: Surface, world: World, flock: Flock) -> list[str]:
    canaries = flock.hidden if surface.sees_rows else [*flock.hidden, *flock.kept]
    return [f"{surface.name}: {leak}" for leak in find(canaries, surface.read(world))]


@pytest.mark.long
def test_no_canary_is_found_anywhere_and_a_planted_one_is(
    world: World, send: Send, bucket: Any
) -> None:
    flock = Flock()
    _run_every_path(world, flock, send)
    _read_objects(world, flock, send, bucket)
    _attach_to_a_running_one(world, flock, send)
    _use_the_commands(world, flock)
    _reveal_and_forget(world, flock)
    for surface in SURFACES:
        output = surface.read(world)
        text = output if isinstance(output, str) else output.decode("utf-8", "replace")
        assert surface.sure in text, f"{surface.name} has not been filled"
    assert [leak for surface in SURFACES for leak in leaks(surface, world, flock)] == []

    target = world.sql("SELECT user_id FROM events")
    assert find(flock.kept, str(target)), "kept fields are written, so the messages did arrive"
    for surface in SURFACES:
        planted = text_canary("planted")
        surface.plant(world, planted.value)
        assert find([planted], surface.read(world)), f"a leak to {surface.name} was not found"
