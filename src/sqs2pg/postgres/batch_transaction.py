"""A batch's transaction: what it is opened with, and what must hold once it is open."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec

from sqs2pg.errors import KeyFault
from sqs2pg.mapping.originals import LeftOut, Originals
from sqs2pg.postgres.connection import DURABLE, READ_COMMITTED, Session, Transaction
from sqs2pg.postgres.target_copy import TargetTable

# `{timeout_ms}` bounds each statement. Dates without a zone mean UTC. The last column is the active
# key. The settings are this transaction's: a pooler may give the session to somebody else.
_SETTINGS = (
    f"SELECT {DURABLE},"
    """
       set_config('statement_timeout', '{timeout_ms}', true),
       set_config('lock_timeout', '{timeout_ms}', true),
       set_config('idle_in_transaction_session_timeout', '{timeout_ms}', true),
       set_config('TimeZone', 'UTC', true),
       set_config('sqs2pg.batch', 'on', true),
       (SELECT version FROM sqs2pg.key WHERE series = 'pseudonym' AND active)"""
)


STAGE_S = 3600.0
"""How long a staging table is used, seconds. Autovacuum cannot freeze the temporary tables of a
session that lives for months, and transaction ids would run out."""


class SinkPlan(msgspec.Struct, frozen=True):
    """What the sink needs to know about the pipeline it writes for."""

    id: int
    targets: tuple[TargetTable, ...]
    """Where rows go; a row names its target by the position here."""
    key_version: int
    """The version of the pseudonym root that the rows were masked under; 0: none is on record."""
    statement_timeout_s: int = 60
    fifo: bool = False
    """Rows are written in the order given; the ledger's keys have no timestamp of their own."""
    archive: bool = False
    """Rows come from archives: their day does not say when the ledger saw them."""
    objects: bool = False
    """Rows come from S3 objects: batches move their progress."""
    dedupe: bool = False
    """Keys may name events instead of messages: several messages may have one key."""

    @property
    def undated(self) -> bool:
        """Whether keys may lack a timestamp, so that the ledger notes when they were seen."""
        return self.fifo or self.dedupe or self.archive or self.objects


class Sealer(Protocol):
    """The vault as a batch sees it (`vault/seal.py`): part of each transaction."""

    open_statements: str
    """What a transaction opens with, joined by `;`. The last one returns what `check_epoch` takes,
    and the active pseudonym version."""

    def check_epoch(self, epoch: int, version: int | None) -> None:
        """Check keys and caches against what `open_statements` returned. Raises KeyFault."""

    async def seal(
        self,
        session: Session,
        originals: Originals,
        chosen: Collection[str] | None = None,
        left_out: LeftOut | None = None,
    ) -> Any:
        """Store what the written rows hide. Raises psycopg.Error or KeyFault."""

    async def rehearse(self, session: Session) -> None:
        """Send the statements of `seal` without a value. Raises psycopg.Error."""

    def remember(self, stored: Any) -> None:
        """Take what `seal` returned, once it is committed."""


class BatchTransactions:
    """Opens the transactions that write rows, of the sink and of a replay."""

    def __init__(self, plan: SinkPlan, vault: Sealer | None, mode: str = "") -> None:
        """`mode`: as `Session.transaction` takes it."""
        self._plan = plan
        self._vault = vault
        stagings = [target.staging for target in plan.targets if target.staging is not None]
        # A row that another writer has just changed is read anew, whatever the role's default is.
        level = READ_COMMITTED if stagings and READ_COMMITTED not in mode else ""
        self._mode = f"{level} {mode}".strip()
        self._drops = [f"DROP TABLE IF EXISTS {staging.stage}" for staging in stagings]
        self._made_at = time.monotonic()
        self.opening = [staging.stage_ddl() for staging in stagings]
        self.opening.append(_SETTINGS.format(timeout_ms=plan.statement_timeout_s * 1000))
        """The statements that open a transaction, also one that writes no rows."""
        if vault is not None:
            self.opening.append(vault.open_statements)

    @asynccontextmanager
    async def open(self, session: Session) -> AsyncIterator[Transaction]:
        """Run the body in a transaction for masked rows; one exchange opens it.

        Raises psycopg.Error, and KeyFault where another key version has become the active one.
        """
        first = self.opening
        if self._drops and time.monotonic() - self._made_at > STAGE_S:
            first = [*self._drops, *first]
            self._made_at = time.monotonic()
        async with session.transaction(*first, mode=self._mode) as transaction:
            [(*read, active)] = transaction.opened
            if self._vault is not None:
                self._vault.check_epoch(*read)
            if (active or 0) != self._plan.key_version:
                raise KeyFault(
                    f"the rows are masked under pseudonym version {self._plan.key_version}, but "
                    f"version {active} is the active one",
                    code="key_version",
                    hint="restart or repeat the command, so that the active version is used; "
                    "`sqs2pg keys list` shows both",
                )
            yield transaction
