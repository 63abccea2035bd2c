"""Dead letters: the units of a batch that go to the quarantine, sealed and reported.

Place in the flow: between encode and write, for units that cannot be encoded; within the write, for
those whose rows the database rejects.
"""

from __future__ import annotations

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.encoder import UnitFault
from sqs2pg.mapping.object_batch import ObjectBatch
from sqs2pg.message import DeadLetter
from sqs2pg.pipeline.encoded_part import EncodedPart
from sqs2pg.postgres.quarantine import Seal
from sqs2pg.telemetry.batch_reporter import BatchReporter


class DeadLetters:
    """Those of one part of a batch. They are reported for when it is committed."""

    def __init__(self, part: EncodedPart, seal: Seal, reporter: BatchReporter) -> None:
        self._part = part
        self._seal = seal
        self._reporter = reporter

    def not_encoded(self) -> list[DeadLetter]:
        """Seal the units that could not be encoded."""
        return list(map(self._sealed, self._part.encoded.faults))

    def rejected(self, key: str, fault: PermanentFault) -> DeadLetter:
        """Seal the unit of a ledger key, because the database rejects its row."""
        return self._sealed(UnitFault(self._part.encoded.keys.index(key), key, fault))

    def _sealed(self, faulty: UnitFault) -> DeadLetter:
        index, key, fault = faulty
        units = self._part.units
        self._reporter.quarantined(units[index].message_id, fault)
        if isinstance(units, ObjectBatch) and (place := units.place_of(index)):
            detail = f"{fault.detail}, {place}" if fault.detail else place
            fault = PermanentFault(fault.code, detail, stage=fault.stage, table=fault.table)
        return self._seal(key, units[index], fault)
