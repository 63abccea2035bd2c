"""The ledger's key over many messages, a million of them in the long profile."""

from __future__ import annotations

import random

from sqs2pg.mapping.ledger_key import delivery_key
from tests.hypothesis_profiles import scaled

COUNT = scaled(100_000, 900_000)


def test_ids_of_one_millisecond_do_not_collide() -> None:
    bits = random.Random(7).randbytes(9 * COUNT).hex()
    tails = (bits[i : i + 18] for i in range(0, len(bits), 18))
    ids = [f"5fea7756-0ea4-4{tail[:3]}-a{tail[3:6]}-{tail[6:]}" for tail in tails]
    ids += map(str, range(100_000))
    assert len({delivery_key(message_id, 1_700_000_000_123) for message_id in ids}) == len(ids)
