"""The soak's state table: one row per item, in one transaction with the log of the same messages.

`python -m benchmarks.soak --state` sends each login with an item, a version of it and, one time in
six, a deletion. Versions come out of order. Two routes take each message: one to the log of logins,
one to `soak_state`. In the end `soak_state` must have what a model says that sorts by version.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from typing import Any, NamedTuple

HOT = 200
"""Items of every other message: often several versions of one in a batch, and in two writers."""
MESSAGES_PER_ITEM = 8
"""Of the other items."""
DISORDER = 4_000
"""By how many messages a version may come too early or too late."""
DELETES = 1 / 6
"""The share of versions that delete."""
BARRED_EVERY, BARRED_FIRST = 400, 213
"""One message in so many, from which number on: the CHECK of the state table refuses its row."""

SETTINGS = """
[[route]]
table = "user_logins"
key = ["device_type"]
digest = true
field = [
    { source = "user_id", column = "user_id", required = true },
    { source = "device_type", column = "device_type" },
    { source = "ip", column = "masked_ip", kind = "ip", mask = "pseudonymize", recover = true },
    { source = "device_id", column = "masked_device_id", mask = "pseudonymize", recover = true },
    { source = "locale", column = "locale" },
    { source = "app_version", column = "app_version", type = "version" },
    { source = "create_date", column = "create_date", type = "date", default = "sent_date" },
]

[[route]]
table = "soak_state"
mode = "upsert"
key = ["item"]
newer = "version"
delete_when = { field = "op", equals = "delete" }
digest = true
field = [
    { source = "item", column = "item" },
    { source = "version", column = "version", type = "bigint" },
    { source = "note", column = "note" },
    { source = "user_id", column = "user_id", required = true },
    { source = "ip", column = "masked_ip", kind = "ip", mask = "pseudonymize", recover = true },
    { source = "device_type", column = "login" },
]
"""
"""The settings file; what the environment says counts more."""

PREPARE = """
CREATE TABLE soak_state (item text PRIMARY KEY, version bigint NOT NULL, note text,
    user_id text NOT NULL, masked_ip text, login text NOT NULL) WITH (fillfactor = 80);
ALTER TABLE soak_state ADD CONSTRAINT not_barred CHECK (note <> 'barred')"""


class Change(NamedTuple):
    """What a message says of its item."""

    item: str
    version: int
    deletes: bool
    barred: bool

    def members(self) -> dict[str, Any]:
        """Return the members of the message's body that say it."""
        return {
            "item": self.item,
            "version": self.version,
            "note": "barred" if self.barred else None,
            "op": "delete" if self.deletes else "set",
        }


def is_barred(number: int) -> bool:
    """Whether the state table refuses the row of a message."""
    return number % BARRED_EVERY == BARRED_FIRST


def change_of(number: int, messages: int) -> Change:
    """Return what the message of a number says, of so many messages in all.

    No two versions are equal. A barred one is newer than all that are not, so it is the newest of
    its item wherever it comes, and is always looked at.
    """
    draw = random.Random(number)
    hot = number % 2 == 0
    items = HOT if hot else max(1, messages // 2 // MESSAGES_PER_ITEM)
    item = f"{'hot' if hot else 'item'}-{draw.randrange(items)}"
    barred = is_barred(number)
    rank = max(0, number + draw.randrange(-DISORDER, DISORDER)) + (10**9 if barred else 0)
    deletes = not barred and draw.random() < DELETES
    return Change(item, rank * 2**20 + number, deletes, barred)


@dataclasses.dataclass
class Comparison:
    """The state table beside what the model says."""

    rows: int
    """In the table."""
    differs: int
    """Items whose row is another one, or is there or missing against the model."""
    deleted: int
    """Items whose newest version deletes."""


def compare(
    numbers: Iterable[int], messages: int, rows: Iterable[tuple[str, int, str]]
) -> Comparison:
    """Compare the table's items, versions and logins with the messages that were written."""
    last: dict[str, tuple[int, int, bool]] = {}
    for number in numbers:
        change = change_of(number, messages)
        last[change.item] = max(
            last.get(change.item, (-1, 0, False)), (change.version, number, change.deletes)
        )
    wanted = {
        (item, version, f"soak-{number}")
        for item, (version, number, deletes) in last.items()
        if not deletes
    }
    found = list(rows)
    differing = {row[0] for row in wanted.symmetric_difference(found)}
    doubled = len(found) - len({item for item, _, _ in found})
    return Comparison(
        len(found), len(differing) + doubled, sum(deletes for _, _, deletes in last.values())
    )
