"""What a sealer remembers of transactions that have committed."""

from __future__ import annotations

from sqs2pg.keys.aead import PersonKey
from sqs2pg.keys.keyring import Keyring
from sqs2pg.vault.seal import Marks, ValueSealer

ROOT = bytes(range(32))
PERSON = "00" * 16


def sealer_in(epoch: int) -> ValueSealer:
    made = ValueSealer(Keyring({1: ROOT}, {1: ROOT[::-1]}), bytes(32))
    made.check_epoch(epoch, 1)
    return made


def remembered(sealer: ValueSealer) -> tuple[set[int], set[str]]:
    return set(sealer._stored), set(sealer._data_keys)  # noqa: SLF001  what no method tells


def test_what_a_transaction_stored_is_remembered_once_it_has_committed() -> None:
    sealer = sealer_in(epoch=1)
    sealer.remember(Marks(1, {7}, {PERSON: (1, PersonKey(ROOT))}))
    assert remembered(sealer) == ({7}, {PERSON})


def test_what_was_stored_before_an_erasure_is_not_remembered_after_it() -> None:
    """Another writer of the process has met the erasure while this transaction committed."""
    sealer = sealer_in(epoch=1)
    marks = Marks(1, {7}, {PERSON: (1, PersonKey(ROOT))})
    sealer.check_epoch(2, 1)
    sealer.remember(marks)
    assert remembered(sealer) == (set(), set())


def test_an_erasure_has_everything_forgotten_that_was_known_before() -> None:
    sealer = sealer_in(epoch=1)
    sealer.remember(Marks(1, {7}, {PERSON: (1, PersonKey(ROOT))}))
    sealer.check_epoch(2, 1)
    assert remembered(sealer) == (set(), set())
