"""Dead letters: the units of a batch that go to the quarantine, sealed and reported.

Place in the flow: between encode and write, for units that cannot be encoded; within the write, for
those whose rows the database rejects.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.encoder import UnitFault
from sqs2pg.mapping.object_batch import ObjectBatch
from sqs2pg.message import DeadLetter
from sqs2pg.pipeline.encoded_part import EncodedPart
from sqs2pg.postgres.dead_letter_copy import FaultyMessage, Seal
from sqs2pg.telemetry.batch_reporter import BatchReporter


class DeadLetters:
    """Those of one part of a batch. They are reported for when it is committed."""

    def __init__(self, part: EncodedPart, seal: Seal, reporter: BatchReporter) -> None:
        self._part = part
        self._seal = seal
        self._reporter = reporter

    def not_encoded(self) -> list[DeadLetter]:
        """Seal the units that could not be encoded."""
        return self._sealed(self._part.encoded.faults)

    def rejected(self, key: str, fault: PermanentFault) -> DeadLetter:
        """Seal the unit of a ledger key, because the database rejects its row."""
        index = self._part.encoded.keys.index(key)
        [letter] = self._sealed([UnitFault(index, key, fault)])
        return letter

    def _sealed(self, faulty: Sequence[UnitFault]) -> list[DeadLetter]:
        if not faulty:
            return []
        units = self._part.units
        refused = [FaultyMessage(key, units[index], fault) for index, key, fault in faulty]
        self._reporter.quarantined([(one.message.message_id, one.fault) for one in refused])
        if isinstance(units, ObjectBatch):
            places = [units.place_of(index) for index, _, _ in faulty]
            refused = [
                one._replace(fault=_placed(one.fault, place)) if place else one
                for one, place in zip(refused, places, strict=True)
            ]
        return self._seal(refused)


def _placed(fault: PermanentFault, place: str) -> PermanentFault:
    """Return the fault of a line, with its place in the object."""
    detail = f"{fault.detail}, {place}" if fault.detail else place
    return PermanentFault(fault.code, detail, stage=fault.stage, table=fault.table)
