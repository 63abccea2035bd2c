"""Claims on S3 objects that notifications name: who reads an object, and how far it is.

Each object has one entry in `sqs2pg.backfill`, the same that a backfill of it has. A claim is that
entry with the name of its worker and an end, which the worker moves on while it reads. It pins no
connection, and the claim of a worker that was killed runs out.

Promises: two workers that believe to have an object both write nothing twice: the progress moves in
the transaction of the rows, from the line where it was, or that transaction fails.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from sqs2pg.postgres.backfill_progress import CLAIMED
from sqs2pg.postgres.identifiers import quote_literal

CLAIM_S = 20
"""How long a claim lasts unless it is renewed: below the time after which SQS delivers the message
of a worker that was killed again, by default."""

# In the order of their digests, so that two workers that want the same objects wait and do not
# deadlock. What another worker has is left as it is, and not returned.
_CLAIM = f"""INSERT INTO sqs2pg.backfill AS b
    (pipeline, digest, source, size_bytes, claimed_by, claimed_until)
SELECT %s, w.digest, w.source, w.size_bytes, %s, clock_timestamp() + interval '{CLAIM_S} seconds'
FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS w (digest, source, size_bytes)
ORDER BY w.digest
ON CONFLICT (pipeline, digest) DO UPDATE
SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
WHERE b.finished_at IS NULL AND (b.claimed_by = excluded.claimed_by OR NOT {CLAIMED})
RETURNING b.digest, b.line"""
_FINISHED = """SELECT digest FROM sqs2pg.backfill
WHERE pipeline = %s AND digest = ANY(%s) AND finished_at IS NOT NULL"""
_RENEW = f"""UPDATE sqs2pg.backfill
SET claimed_until = clock_timestamp() + interval '{CLAIM_S} seconds'
WHERE pipeline = %s AND digest = ANY(%s) AND claimed_by = %s AND finished_at IS NULL"""
_RELEASE = """UPDATE sqs2pg.backfill SET claimed_until = NULL, claimed_by = NULL
WHERE pipeline = %s AND digest = ANY(%s) AND claimed_by = %s"""

REHEARSED = (
    _CLAIM % ("0", "''", "'{}'", "'{}'", "'{}'"),
    _RENEW % ("0", "'{}'", "''"),
    f"""SELECT sqs2pg.move_objects(0::smallint, '{{}}', '{{}}', '{{}}', '{{}}',
    interval '{CLAIM_S} seconds')""",
    "DELETE FROM sqs2pg.suspect WHERE false",
)
"""The statements without any object: each fails where it would fail for want of a right."""

RunAlone = Callable[[str, Sequence[object]], Awaitable[list[tuple[Any, ...]]]]
"""Runs one statement as a transaction of its own (`Sink.run_alone`)."""


class Wanted(NamedTuple):
    """An object to claim."""

    digest: str
    source: str
    size: int
    """Stored bytes."""


class Move(NamedTuple):
    """How far the lines of a batch bring one object."""

    digest: str
    before: int
    """Lines that were committed before the batch."""
    after: int
    ended: bool
    """Whether that is all of them."""


class Claims(NamedTuple):
    """What became of the objects that were wanted, by digest."""

    lines: dict[str, int]
    """Lines that are committed, of objects that are ours now."""
    finished: frozenset[str]
    """Objects whose lines are all committed. All others are somebody else's."""


class ObjectClaims:
    """The claims of one writer. Methods raise TransientFault or FatalFault."""

    def __init__(self, run_alone: RunAlone, pipeline: int) -> None:
        self._run = run_alone
        self._pipeline = pipeline
        self._worker = f"worker {secrets.token_hex(8)}"

    async def claim(self, wanted: Sequence[Wanted]) -> Claims:
        """Claim objects of distinct digests; those that are ours already stay ours."""
        digests, sources, sizes = map(list, zip(*wanted, strict=True))
        claimed = await self._run(_CLAIM, [self._pipeline, self._worker, digests, sources, sizes])
        mine: dict[str, int] = dict(claimed)
        others = [digest for digest in digests if digest not in mine]
        found = await self._run(_FINISHED, [self._pipeline, others]) if others else []
        return Claims(mine, frozenset(digest for (digest,) in found))

    async def renew(self, digests: Collection[str]) -> None:
        """Move the end of claims on. One that somebody else has taken is left."""
        await self._run(_RENEW, [self._pipeline, list(digests), self._worker])

    async def release(self, digests: Collection[str]) -> None:
        """Give claims back before they run out."""
        await self._run(_RELEASE, [self._pipeline, list(digests), self._worker])

    async def move(self, moves: Sequence[Move]) -> None:
        """Move the progress where there are no rows. Raises as `claim`, where it was moved too."""
        await self._run(self.move_statement(moves, ()), [])

    def move_statement(self, moves: Sequence[Move], tried: Sequence[str]) -> str:
        """Return the statements that move the progress, for the transaction of the rows.

        They fail, SQLSTATE 40001, where somebody else has moved one of the objects. `tried`: ledger
        keys of messages whose lines are among the rows. They have not crashed their worker, so the
        markers of their trials are deleted.
        """
        parts: list[str] = []
        if moves:
            digests, before, after, ended = zip(*moves, strict=True)
            arrays = ", ".join(
                [
                    f"ARRAY[{', '.join(map(quote_literal, digests))}]",
                    f"ARRAY[{', '.join(map(str, before))}]::bigint[]",
                    f"ARRAY[{', '.join(map(str, after))}]::bigint[]",
                    f"ARRAY[{', '.join(str(one).lower() for one in ended)}]",
                ]
            )
            parts.append(
                f"SELECT sqs2pg.move_objects({self._pipeline}::smallint, {arrays}, "
                f"interval '{CLAIM_S} seconds')"
            )
        if tried:
            keys = ", ".join(map(quote_literal, tried))
            parts.append(f"DELETE FROM sqs2pg.suspect WHERE key IN ({keys})")
        return ";\n".join(parts)
