"""The native executor gives what Python gives, byte for byte, whatever the mapping.

300,000 messages are the long run; the seed is printed by a failure.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.ledger_key import LINES_MAX, line_mark
from sqs2pg.mapping.line_units import LineUnits
from tests.hypothesis_profiles import scaled
from tests.mappings import MadeUp, check_many
from tests.native import SENT_MS, Both, with_queue_id

CASES = int(os.environ.get("SQS2PG_NATIVE_CASES", scaled(6_000)))
MESSAGES = 12
"""Messages for one mapping."""


def check(draw: Random, seen: Counter[str]) -> None:
    """Make a mapping and its messages; hold both executors against each other."""
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
    for message in messages:
        seen["taken"] += both.check_message(message) is not None
        seen["rows"] += both.row(with_queue_id(message, 0)) is not None
        seen["judged"] += bool(
            (packed := both.pack([with_queue_id(message, 0)])) and packed.verdicts
        )
    both.check_batch(messages)
    both.check_batch(lines_of(draw, [message.body for message in messages]))
    seen["packed"] += both.pack(messages) is not None


def lines_of(draw: Random, bodies: list[str]) -> LineUnits:
    """Return bodies as lines of an archive, some with white space, a time or bytes of their own."""
    lines = [body.encode("utf-8", "surrogatepass") for body in bodies]
    lines[draw.randrange(len(lines))] += draw.choice(
        [b" ", b"\r", b"\t \r", b"\xff", b"\xed\xa0\x80"]
    )
    times = [draw.choice([None, SENT_MS, SENT_MS + 1]) for _ in lines]
    return LineUnits(
        lines,
        draw.choice([None, times]),
        day_ms=SENT_MS - 1,
        mark=line_mark(1, "sha256:0"),
        first=draw.choice([0, 15, LINES_MAX - len(lines)]),
    )


@given(st.randoms(use_true_random=False))
@settings(max_examples=scaled(15))
def test_mappings_that_shrink(draw: Random) -> None:
    check(draw, Counter())


def test_many_mappings() -> None:
    seen = check_many(check, CASES)
    print(dict(seen))
    # It cannot pass by always refusing.
    assert seen["messages"] > 4 * seen["without a fast path"]
    assert seen["taken"] > 0.7 * seen["rows"]
    assert seen["rows"] > 0.2 * seen["messages"]
    assert seen["judged"] > 0.03 * (seen["messages"] - seen["rows"])
    assert seen["packed"] > 0.3 * seen["messages"] / MESSAGES
