"""The native fast path gives the lines that Python gives, or none, whatever the mapping.

`SQS2PG_NATIVE_CASES=300000` makes the long run; its seed is printed by a failure.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.ledger_key import delivery_key
from sqs2pg.message import Message, Row
from tests.mappings import MadeUp
from tests.native import Both

CASES = int(os.environ.get("SQS2PG_NATIVE_CASES", "6000"))
MESSAGES = 12
"""Messages for one mapping."""


def check(draw: Random, seen: Counter[str]) -> None:
    """Make a mapping and its messages; hold the fast path against Python, alone and in a batch."""
    made = MadeUp(draw)
    seen["mappings"] += 1
    try:
        both = Both(made.settings, made.columns)
    except SettingsError:
        seen["refused"] += 1
        return
    if both.fast_or_none is None:
        seen["without a fast path"] += 1
        return
    messages = [made.message() for _ in range(MESSAGES)]
    seen["messages"] += MESSAGES
    taken: dict[int, Row] = {}
    for number, message in enumerate(messages):
        if row := both.check_message(message):
            taken[number] = row
        seen["rows"] += both.row(message) is not None
    seen["taken"] += len(taken)
    check_batch(both, messages, taken, seen)


def check_batch(
    both: Both, messages: list[Message], taken: dict[int, Row], seen: Counter[str]
) -> None:
    """Hold the texts of a whole batch against the rows that were taken of it."""
    packed = both.fast.pack(messages, b"1\n")
    if packed is None:
        return
    seen["packed"] += 1
    ledger, targets, oldest_ms, dropped, left = packed
    order = sorted(
        (delivery_key(m.message_id, m.attributes.sent_timestamp), number)
        for number, m in enumerate(messages)
    )
    assert oldest_ms == min(m.attributes.sent_timestamp for m in messages)
    rows = [both.row(messages[number]) for _, number in order if number not in left]
    assert None not in rows, "what is not left has a row"
    assert ledger.decode() == "".join(
        f"{key}\t{messages[number].message_id}\t1\n" for key, number in order if number not in left
    )
    for target, (text, count) in enumerate(targets):
        parts = [p for row in rows if row for p in (row, *row.also) if p.target == target]
        assert text.decode() == "".join(part.text for part in parts)
        assert count == sum(part.count for part in parts)
    assert dropped == sum(row.dropped for row in rows if row)
    assert [number for _, number in order if number in left] == list(left)
    assert taken.keys().isdisjoint(left)


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_mappings_that_shrink(draw: Random) -> None:
    check(draw, Counter())


def test_many_mappings() -> None:
    seen: Counter[str] = Counter()
    seed = 0
    while seen["messages"] < CASES:
        seed += 1
        try:
            check(Random(seed), seen)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    print(dict(seen))
    # It cannot pass by always refusing.
    assert seen["messages"] > 4 * seen["without a fast path"]
    assert seen["taken"] > 0.7 * seen["rows"]
    assert seen["rows"] > 0.2 * seen["messages"]
    assert seen["packed"] > 0.3 * seen["messages"] / MESSAGES
