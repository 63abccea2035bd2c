"""What a sealer remembers of transactions that have committed."""

from __future__ import annotations

from sqs2pg.keys.aead import PersonKey
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.originals import OriginalColumns
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.vault.seal import StoredValues, ValueSealer
from tests.native import SENT_MS

ROOT = bytes(range(32))
PERSON = "00" * 16


def sealer_in(epoch: int) -> ValueSealer:
    made = ValueSealer(Keyring({1: ROOT}, {1: ROOT[::-1]}), bytes(32))
    made.check_epoch(epoch, 1)
    return made


def remembered(sealer: ValueSealer) -> tuple[int, set[str]]:
    return len(sealer._known), set(sealer._data_keys)  # noqa: SLF001  what no method tells


def stored_by(sealer: ValueSealer, epoch: int) -> StoredValues:
    """Return what a transaction stored that wrote one record of one person."""
    part = OriginalColumns([Message("m", "h", "{}", SystemAttributes(SENT_MS))], ["ann"])
    part.add("ip", ["192.0.2.1"], ["v1_00"])
    unknown = sealer._known.unknown(part)  # noqa: SLF001  what `seal` does before its statements
    assert unknown.records == [0]
    return StoredValues(epoch, [unknown], {PERSON: (1, PersonKey(ROOT))})


def test_what_a_transaction_stored_is_remembered_once_it_has_committed() -> None:
    sealer = sealer_in(epoch=1)
    sealer.remember(stored_by(sealer, 1))
    assert remembered(sealer) == (1, {PERSON})


def test_what_was_stored_before_an_erasure_is_not_remembered_after_it() -> None:
    """Another writer of the process has met the erasure while this transaction committed."""
    sealer = sealer_in(epoch=1)
    stored = stored_by(sealer, 1)
    sealer.check_epoch(2, 1)
    sealer.remember(stored)
    assert remembered(sealer) == (0, set())


def test_an_erasure_has_everything_forgotten_that_was_known_before() -> None:
    sealer = sealer_in(epoch=1)
    sealer.remember(stored_by(sealer, 1))
    sealer.check_epoch(2, 1)
    assert remembered(sealer) == (0, set())
