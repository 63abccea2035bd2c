"""Amend: replay one entry of the quarantine with a mended body in place of the one it has.

All in one transaction: lock the entry, decode and mask the mended body under the entry's own
message id, attributes and times, flip its ledger entry, write its rows, close the entry, and record
the act. So the message counts once, whoever amends or replays it at the same time and wherever a
run is killed; and what is on record has happened.

A body that is still bad changes nothing: the entry stays as it was. The mended body is not kept.
Must never do: put a body or a part of one into an error.
"""

from __future__ import annotations

import msgspec

from sqs2pg.errors import FatalFault, PermanentFault, SettingsError
from sqs2pg.message import Message
from sqs2pg.pipeline.replay import Replayer
from sqs2pg.postgres import audit
from sqs2pg.postgres.quarantine import Selection, entry, no_entry
from sqs2pg.postgres.replay_ledger import SealedEntry, lock_entries
from sqs2pg.postgres.sqlstate import retryable

BODY_BYTES_MAX = 32 * 2**20
_CLOSE = "UPDATE sqs2pg.quarantine SET amended = %s WHERE id = %s"


class Amended(msgspec.Struct, frozen=True):
    """What was written."""

    id: int
    message_id: str
    audit: int
    """The sequence of the act in the audit."""
    amended: bool = True


class Amender(Replayer):
    """Replays one entry with another body."""

    _mended = ""

    async def amend(self, number: int, body: str, *, reason: str, ticket: str = "") -> Amended:
        """Write an entry's message with this body; the entry is closed, and the act on record.

        May be repeated: the second time it is refused. Raises SettingsError for an entry that is
        gone or closed, a reason that cannot be recorded, a body that is still bad (`still_bad`),
        and one of an event that the ledger has (`event_known`); KeyFault where a key is missing;
        TransientFault where the database is away or refuses.
        """
        reason, ticket = audit.stated_reason(reason, ticket, hint="say why the body is amended")
        found = await entry(self._session, self._pipeline, number)
        if found.replayed_at is not None:
            raise _closed(number)
        self._keyring.quarantine_key_of(found.sealed_under)
        self._mended = body
        with retryable(
            "PostgreSQL could not take the amended message",
            hint="put the database right and run the same command again: nothing is written twice",
        ):
            anchor = await self._amend(number, reason, ticket)
        if anchor is None:
            raise _closed(number)
        audit.announce("amend", anchor)
        return Amended(number, found.message_id, anchor.sequence)

    def _open(self, entry: SealedEntry) -> Message:
        message = super()._open(entry)
        message.body = self._mended
        return message

    async def _amend(self, number: int, reason: str, ticket: str) -> audit.Anchor | None:
        """Return the act's anchor; None where the message is written already."""
        selection = Selection(ids=(number,), open_only=True)
        read = await self._read_objects(selection, number - 1, number)
        self._targets.begin()
        async with self._transactions.open(self._session):
            entries = await lock_entries(
                self._session, self._pipeline, selection, number - 1, number
            )
            if not entries:
                raise await self._gone(number)
            [(key, locked)] = entries.items()
            batch = await self._transform(entries, read)
            flip, _, faults, stored = await self._write(entries, batch)
            if faults:
                raise _still_bad(number, faults[key])
            if flip.lost:
                raise FatalFault(
                    f"the ledger has no entry of quarantine entry {number}; nothing is written",
                    code="not_in_ledger",
                    hint="`sqs2pg verify` shows what else is missing",
                )
            if flip.done and flip.flipped:
                raise _event_known(number)
            if flip.done:
                return None  # the note alone is committed
            anchor = await audit.append(
                self._session,
                "amend",
                subject=f"quarantine entry {number}, message {locked.message_id[:200]}",
                reason=reason,
                ticket=ticket,
            )
            await self._session.execute(_CLOSE, [anchor.sequence, number])
        self._remember(stored)
        return anchor

    async def _gone(self, number: int) -> SettingsError:
        """Return why an entry that was there is not open any more."""
        [*found] = await self._session.execute(
            "SELECT FROM sqs2pg.quarantine WHERE pipeline = %s AND id = %s",
            [self._pipeline, number],
        )
        return _closed(number) if found else no_entry(number)


def _closed(number: int) -> SettingsError:
    return SettingsError(
        f"quarantine entry {number} was replayed already; nothing is written",
        code="entry_closed",
        hint="`sqs2pg quarantine list --include-replayed` says when",
    )


def _event_known(number: int) -> FatalFault:
    return FatalFault(
        "the mended body is an event that was written already (ledger.dedupe_key); "
        f"quarantine entry {number} stays as it was",
        code="event_known",
        hint="correct the event's id in the body; if it is that event once more, "
        f"`sqs2pg quarantine purge {number}` removes the entry",
    )


def _still_bad(number: int, fault: PermanentFault) -> FatalFault:
    detail = f" ({fault.detail})" if fault.detail else ""
    return FatalFault(
        f"the mended body is still bad: {fault.code}{detail}; "
        f"quarantine entry {number} stays as it was",
        code="still_bad",
        hint="docs/reference/quarantine.md says what the code means; mend the body and try again",
    )
