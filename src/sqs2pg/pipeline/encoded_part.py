"""The encoded part of a batch: its first units, and what becomes of each of them.

Place in the flow: the processor encodes a part, writes it in one transaction, and settles it. Most
batches are one part. One that is larger than the encoder's budget takes several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.encoder import Encoded, EncodedAhead, Encoder
from sqs2pg.mapping.line_units import LineUnits
from sqs2pg.mapping.object_batch import ObjectBatch
from sqs2pg.message import Message, Outcome
from sqs2pg.pipeline.recent_keys import known_among
from sqs2pg.postgres.sink import BatchResult
from sqs2pg.telemetry.batch_reporter import BatchReporter


class EncodedPart(msgspec.Struct, frozen=True):
    """What one transaction writes."""

    units: Sequence[Message]
    encoded: Encoded
    """Of these units."""
    known: set[int]
    """Where among the units messages stand that this process has committed before."""
    decoded_at: float | None
    """As `Encoded.decoded_at`; None of a part that was encoded ahead."""

    @property
    def size(self) -> int:
        """How many messages and lines it is about, those known before too."""
        return len(self.units) + len(self.known)

    @property
    def line_count(self) -> int:
        """How many of them are lines of S3 objects: the first ones."""
        return self.units.line_count if isinstance(self.units, ObjectBatch) else 0

    @property
    def oldest_ms(self) -> int | None:
        """SentTimestamp of the oldest message, as `BatchReporter.committed` takes it."""
        units = self.units
        return units.oldest_ms if isinstance(units, ObjectBatch) else self.encoded.oldest_ms

    def outcomes(self, result: BatchResult) -> list[Outcome]:
        """Return the outcome of each, once the part is committed."""
        encoded = self.encoded
        if result.changed is not None:
            outcomes = [result.changed[key] for key in encoded.keys]
        else:
            outcomes = [Outcome.WRITTEN] * len(self.units)
            for fault in encoded.faults:
                outcomes[fault.unit] = Outcome.QUARANTINED
        for index in encoded.repeats:
            outcomes[index] = Outcome.DUPLICATE
        for index in sorted(self.known):
            outcomes.insert(index, Outcome.DUPLICATE)
        return outcomes

    def report(
        self,
        reporter: BatchReporter,
        outcomes: list[Outcome],
        result: BatchResult,
        commit_s: float,
    ) -> None:
        """Report it as committed."""
        for name, count in self.encoded.dropped_fields.items():
            reporter.dropped(name, count)
        if self.encoded.unknown:
            reporter.unknown(self.encoded.unknown)
        lines = self.line_count
        reporter.committed(
            outcomes[lines:] if lines else outcomes,
            self.oldest_ms,
            commit_s,
            slow=result.slow,
            lines=outcomes[:lines],
            rows=result.rows,
        )


def encode_part(
    messages: Sequence[Message],
    known: set[int],
    encoder: Encoder,
    ledger_end: str,
    to_quarantine: Mapping[str, PermanentFault],
    ahead: EncodedAhead | None,
) -> EncodedPart:
    """Encode the messages that are not `known`, as many as the encoder takes at once.

    `ahead`: what was encoded of them before; it counts if nothing has changed since.
    """
    units = messages
    if known:
        units = [one for index, one in enumerate(messages) if index not in known]
    if ahead is not None and ahead.units is units and ahead.encoder is encoder:
        encoded, decoded_at = ahead.encoded, None
    else:
        encoded = encoder.encode(units, ledger_end, to_quarantine)
        decoded_at = encoded.decoded_at
    if encoded.taken < len(units):
        units, known = units[: encoded.taken], known_among(known, encoded.taken)
    return EncodedPart(units, encoded, known, decoded_at)


def is_of_queue(units: Sequence[Message]) -> bool:
    """Whether units are messages of a queue and not lines. Progress says which lines are committed:
    none is given twice.
    """
    return not isinstance(units, LineUnits | ObjectBatch)


def queue_messages(units: Sequence[Message]) -> Sequence[Message]:
    """Return the messages among the units of a batch; of S3 objects these are the notifications."""
    return units.notifications if isinstance(units, ObjectBatch) else units
