"""The plan: how one pipeline's messages become rows.

`runners/compile_plan` compiles it, once at the start and again after a rotation of keys. It is
shared by all processors of a pipeline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import MessageMapping
from sqs2pg.mapping.fast_path import FastPath
from sqs2pg.mapping.fast_path_originals import FastPathOriginals
from sqs2pg.pipeline.large_payloads import Payloads
from sqs2pg.postgres.batch_transaction import SinkPlan
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.quarantine import Seal
from sqs2pg.vault.seal import ValueSealer

DedupeKey = Callable[[str], str]
"""Returns the ledger key of an event, from the id that its producer gave it."""
Columns = Sequence[Sequence[Column]]
"""The targets' columns that the fields go to, by target."""
Refresh = Callable[[Session], Awaitable[tuple[MessageMapping, Columns]]]
"""Compile the mapping against the tables as they are. Raises TransientFault."""


class Plan(msgspec.Struct, frozen=True):
    """How messages become rows."""

    mapping: MessageMapping
    seal: Seal
    fifo: bool = False
    """Keys leave the timestamp out, and rows go in SequenceNumber order."""
    archive: bool = False
    """Messages are lines of archives (`ledger_key.line_id`), not of a queue."""
    dedupe: DedupeKey | None = None
    payloads: Payloads | None = None
    """Fetches the bodies that messages only point to."""
    refresh: Refresh | None = None
    """Compiles the mapping again, against the tables as they are at that moment."""
    columns: Columns | None = None
    """The columns that the mapping was first compiled against."""
    recovers: bool = False
    """Masked values are kept for the vault to seal."""
    fast_path: FastPath | None = None
    """Makes the line of an ordinary body in C (`mapping/fast_path.py`)."""
    fast_path_originals: FastPathOriginals | None = None
    """Reads what the vault needs from the messages that take the fast path."""


Follow = Callable[[Plan], Awaitable[tuple[Plan, SinkPlan, ValueSealer | None]]]
"""Returns plan, sink plan and vault once another key version is active (`key_rotation.py`)."""
