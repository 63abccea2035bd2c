"""The ledger's key over a million messages: too slow for a unit test."""

from __future__ import annotations

import random

from sqs2pg.mapping.ledger_key import delivery_key


def test_a_million_ids_of_one_millisecond_do_not_collide() -> None:
    bits = random.Random(7).randbytes(9 * 900_000).hex()
    tails = (bits[i : i + 18] for i in range(0, len(bits), 18))
    ids = [f"5fea7756-0ea4-4{tail[:3]}-a{tail[3:6]}-{tail[6:]}" for tail in tails]
    ids += map(str, range(100_000))
    assert len({delivery_key(message_id, 1_700_000_000_123) for message_id in ids}) == 1_000_000
