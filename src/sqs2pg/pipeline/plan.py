"""The plan: how one pipeline's messages become rows.

`runners/compile_plan` compiles it, once at the start and again after a rotation of keys. It is
shared by all processors of a pipeline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from sqs2pg.mapping.budget import UNBOUNDED, Budget
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.encoder import Encoder
from sqs2pg.mapping.ledger_key import EventKeys
from sqs2pg.pipeline.large_payloads import Payloads
from sqs2pg.postgres.batch_transaction import SinkPlan
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.dead_letter_copy import Seal
from sqs2pg.postgres.target_copy import TargetTable

if TYPE_CHECKING:  # a start loads them where the settings need them
    from sqs2pg.pipeline.object_source import ObjectSource
    from sqs2pg.vault.seal import ValueSealer

Columns = Sequence[Sequence[Column]]
"""The targets' columns that the fields go to, by target."""
Refresh = Callable[[Session], Awaitable[tuple[Encoder, Columns, tuple[TargetTable, ...]]]]
"""Compile the encoder against the tables as they are, and return them. Raises TransientFault."""


class Plan(msgspec.Struct, frozen=True):
    """How messages become rows."""

    encoder: Encoder
    seal: Seal
    fifo: bool = False
    """Rows go in SequenceNumber order."""
    dedupe: EventKeys | None = None
    payloads: Payloads | None = None
    """Fetches the bodies that messages only point to."""
    objects: ObjectSource | None = None
    """Reads the objects that messages notify of; their lines are the units."""
    refresh: Refresh | None = None
    """Compiles the encoder again, against the tables as they are at that moment."""
    columns: Columns | None = None
    """The columns that the encoder was first compiled against."""
    budget: Budget = UNBOUNDED
    """The encoder's, for who decodes without it."""


Follow: TypeAlias = "Callable[[Plan], Awaitable[tuple[Plan, SinkPlan, ValueSealer | None]]]"
"""Returns plan, sink plan and vault once another key version is active (`key_rotation.py`)."""
