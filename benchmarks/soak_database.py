"""What the soak does to its database: poison, damage and hangs; erasures beside moves of rows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from benchmarks.soak_clients import PEOPLE, erased_person, month_of
from sqs2pg.cli.embedded import Postgres
from tests.faults.hang import go_on, stop_all

RETRY_MAX_S = 120.0
"""How long an act of the soak may be hindered by the soak's other faults."""
DAMAGE_S = 10.0, 20.0
"""How long a person's key stays damaged: least and most."""

# The column says when a row was written. The CHECK refuses rows for good; the trigger makes two
# kinds fail while the switch is on, one of them by time, for no fault that an SQLSTATE tells.
_PREPARE = """
ALTER TABLE user_logins ADD COLUMN written_at timestamptz DEFAULT clock_timestamp();
ALTER TABLE user_logins ADD CONSTRAINT not_refused CHECK (locale <> 'refused');
CREATE SCHEMA soak;
CREATE TABLE soak.switch AS SELECT false AS is_on;
CREATE FUNCTION soak.poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.locale IN ('slow', 'astray') AND (SELECT is_on FROM soak.switch) THEN
        IF NEW.locale = 'slow' THEN PERFORM pg_sleep(60); END IF;
        PERFORM FROM soak.missing;
    END IF;
    RETURN NEW;
END $$"""
_POISON = """CREATE OR REPLACE TRIGGER poison BEFORE INSERT ON user_logins
FOR EACH ROW EXECUTE FUNCTION soak.poison()"""
_SWITCH = "UPDATE soak.switch SET is_on = %s"
_VICTIM = """SELECT v.subject FROM pii.value v
WHERE v.token = (SELECT masked_ip FROM user_logins WHERE user_id = %s LIMIT 1) LIMIT 1"""
# The same bit twice: the key is whole again.
_FLIP = """UPDATE pii.subject_key
SET wrapped_key = set_byte(wrapped_key, 30, get_byte(wrapped_key, 30) # 1) WHERE subject = %s"""
_LEFT_BEHIND = "SELECT count(*) FROM user_logins WHERE user_id = %s AND written_at < %s"

T = TypeVar("T")


class SoakDatabase:
    """The soak's database, around the proxies. Its acts wait out each other's faults."""

    def __init__(
        self, url: str, server: Postgres | None, environment: dict[str, str], folder: Path
    ) -> None:
        """`server` is the one behind the URL, if it may be stopped; `environment` has the URL."""
        self._url = url
        self._server = server
        self._environment = environment
        self._folder = folder
        self._hung_at: float | None = None
        self._converted = threading.Event()
        self._is_poisoned = False
        self._switching = threading.Lock()
        self.away: list[tuple[float, float]] = []
        """When the database was hung or down: from, to, seconds of the epoch."""
        self.damaged: set[str] = set()
        """People whose key was damaged for a while."""
        self.left_behind = 0
        """Rows of erased people that an erasure has passed by."""

    # -- commands --------------------------------------------------------------------------

    def command(
        self, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run sqs2pg to its end."""
        return subprocess.run(
            [sys.executable, "-m", "sqs2pg", *arguments],
            cwd=self._folder, env=self._environment | environment, input=stdin,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def insist(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """Run a command with --json until it succeeds; return what it printed."""
        late = time.monotonic() + RETRY_MAX_S
        while (done := self.command(*arguments, "--json", **environment)).returncode:
            if time.monotonic() > late:
                raise RuntimeError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
            time.sleep(1.0)
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run SQL, committed at once."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def _persist(self, act: Callable[[], T]) -> T:
        late = time.monotonic() + RETRY_MAX_S
        while True:
            try:
                return act()
            except psycopg.OperationalError:
                if time.monotonic() > late:
                    raise
                time.sleep(0.5)

    # -- poison ----------------------------------------------------------------------------

    def prepare(self, first: str = "") -> None:
        """Make the tables, and what poisons rows: it does nothing yet, but for the CHECK.

        `first`: SQL that is run before.
        """
        if first:
            self.execute(first)
        done = self.command("migrate")
        if done.returncode:
            raise RuntimeError(done.stderr)
        self.execute(_PREPARE)

    def switch(self, is_on: bool) -> None:
        """Let the trigger fail for its rows, or no more; of two calls the later one counts.

        A call may wait for the server so long that the next one meets it.
        """
        self._is_poisoned = is_on
        with self._switching:
            self._persist(lambda: self.execute(_SWITCH, self._is_poisoned))

    # -- hangs and restarts ----------------------------------------------------------------

    @property
    def can_stop(self) -> bool:
        """Whether the server can be hung and restarted."""
        return self._server is not None

    def hang(self) -> None:
        """Stop all processes of the server."""
        if self._server is not None and self._hung_at is None:
            stop_all(self._server)
            self._hung_at = time.time()

    def go_on(self) -> None:
        """Let a server go on that hangs."""
        if self._server is not None and self._hung_at is not None:
            go_on(self._server)
            self.away.append((self._hung_at, time.time()))
            self._hung_at = None

    def restart(self) -> None:
        """Stop the server at once, and start it again."""
        assert self._server is not None
        self.go_on()
        began = time.time()
        self._server.stop("immediate")
        self._server.start()
        self.away.append((began, time.time()))

    # -- damaged keys ----------------------------------------------------------------------

    def damage(self, rng: random.Random) -> None:
        """Flip a bit in one person's data key, and flip it back after a while."""
        person = f"person-{rng.randrange(PEOPLE)}"
        found = self._persist(lambda: self.execute(_VICTIM, person))
        if not found:
            return
        [(subject,)] = found
        self.damaged.add(person)
        for wait_s in (rng.uniform(*DAMAGE_S), 0.0):
            # Not twice where an answer was lost: each flip is checked first.
            before = self._persist(lambda: self._key_of(subject))
            self._persist(lambda: self._flip_once(subject, before))  # noqa: B023  called at once
            time.sleep(wait_s)

    def _key_of(self, subject: Any) -> bytes:
        [(key,)] = self.execute(
            "SELECT wrapped_key FROM pii.subject_key WHERE subject = %s", subject
        )
        return bytes(key)

    def _flip_once(self, subject: Any, before: bytes) -> None:
        if self._key_of(subject) == before:
            self.execute(_FLIP, subject)

    # -- erasures beside moves -------------------------------------------------------------

    def forget(self, block: int) -> None:
        """Erase the person of a block, and check that no row that was there is left.

        What comes later is a new generation's: `forget_rest` erases it.
        """
        person = erased_person(block)
        late = time.monotonic() + RETRY_MAX_S
        while True:
            [(began,)] = self._persist(lambda: self.execute("SELECT clock_timestamp()"))
            done = self.command("forget", person, "--reason", "soak", "--json")
            if done.returncode == 0:
                break
            if time.monotonic() > late:
                raise RuntimeError(f"forget: {done.stdout}{done.stderr}")
            time.sleep(1.0)
        [(left,)] = self._persist(lambda: self.execute(_LEFT_BEHIND, person, began))
        self.left_behind += left

    def move(self, block: int) -> None:
        """Move the rows of a block's month to a partition of their own.

        The first block's move is the conversion of the whole table, the trigger's beginning too.
        """
        if block == 0:
            self.insist("partition", "--convert", SQS2PG_SINK__PARTITION_BY="create_date")
            self._persist(lambda: self.execute(_POISON))
            self._converted.set()
        else:
            self._converted.wait(RETRY_MAX_S)
            month = month_of(block)
            attach = "SELECT sqs2pg.attach_period('public.user_logins', %s::date)"
            self._persist(lambda: self.execute(attach, month))

    def forget_rest(self, blocks: int) -> None:
        """Erase what came of erased people after their erasure."""
        people = "".join(f"{erased_person(block)}\n" for block in range(blocks))
        # A person of whom nothing came is not found: that is no failure here.
        for _ in range(3):
            done = self.command("forget", "-", "--reason", "soak", "--json", stdin=people)
            if done.stdout.strip() and not json.loads(done.stdout.splitlines()[-1])["rows_left"]:
                return
        raise RuntimeError(f"forget: {done.stdout}{done.stderr}")
