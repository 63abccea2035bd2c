"""Table changes: somebody alters a target while the pipeline runs.

Rows are made for the columns as they were read. Where PostgreSQL refuses a batch for something that
a change of the columns would explain, they are read again, and the batch is encoded for what is
there now. So an ALTER TABLE needs no restart, and no message goes to quarantine for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqs2pg.errors import FatalFault, TransientFault
from sqs2pg.mapping.encoder import Encoder
from sqs2pg.message import Outcome
from sqs2pg.pipeline.plan import Columns, Plan
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.target_copy import TargetTable

_CHANGED = "target_changed"


class TableChanges:
    """The encoder of one processor, compiled for the tables as they were last read."""

    def __init__(
        self,
        plan: Plan,
        connected: Callable[[], Awaitable[Session]],
        use_targets: Callable[[tuple[TargetTable, ...]], bool],
    ) -> None:
        """`connected` returns the sink's session; `use_targets` gives the sink its tables anew, and
        returns whether they differ.
        """
        self._plan = plan
        self._connected = connected
        self._use_targets = use_targets
        self._encoder = plan.encoder
        self._columns: Columns | None = None
        """What was read since the start; None: nothing was."""
        self._stale = False

    def use(self, plan: Plan) -> None:
        """Use a plan with other keys. It is for the columns of the start."""
        self._plan, self._encoder = plan, plan.encoder
        self._stale = self._columns is not None

    def suspect(self, fault: TransientFault) -> None:
        """Read the columns again before the next batch if a fault may come from a change."""
        # Class 42: a table has changed, or a privilege is gone. 0A000: COPY is refused by now.
        self._stale = self._stale or fault.code.startswith(("postgres_42", "postgres_0A000"))

    @property
    def present(self) -> Encoder | None:
        """The encoder for the next batch; None where the columns are to be read again first."""
        return None if self._stale else self._encoder

    async def encoder(self) -> Encoder:
        """Return the encoder for the next batch.

        Raises TransientFault where the mapping does not fit the tables; messages are held until it
        does.
        """
        if self._stale:
            await self._read_again()
        return self._encoder

    async def confirm(self) -> None:
        """Raise TransientFault if the tables are not those that the encoder is for."""
        try:
            changed = await self._read_again()
        except TransientFault:
            self._stale = True
            raise
        if changed:
            raise TransientFault("the target table has changed", code=_CHANGED)

    async def retry(self, write: Callable[[], Awaitable[list[Outcome]]]) -> list[Outcome]:
        """Return what `write` does; do it again, once, where a change may have been in its way."""
        try:
            return await write()
        except TransientFault as fault:
            if fault.code != _CHANGED:
                raise
        except FatalFault as fault:
            # The table may have been changed between the batch and this look at it.
            await self._confirm_rejected(fault)
        try:
            return await write()
        except FatalFault as fault:
            await self._confirm_rejected(fault)
            raise

    async def _confirm_rejected(self, fault: FatalFault) -> None:
        if fault.code != "all_rejected":
            raise fault
        await self.confirm()

    async def _read_again(self) -> bool:
        """Compile the encoder for the tables as they are now; return whether they changed."""
        if self._plan.refresh is None:
            return False
        encoder, columns, targets = await self._plan.refresh(await self._connected())
        self._stale = False
        differ = self._use_targets(targets)
        if columns == (self._columns or self._plan.columns):
            if self._columns is not None:
                # A key rotation has put the encoder back to the columns of the start.
                self._encoder = encoder
            return differ
        self._encoder, self._columns = encoder, columns
        return True
