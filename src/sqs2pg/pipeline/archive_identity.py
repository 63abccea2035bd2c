"""What an archive in S3 is known by, and when its lines count as sent.

A backfill and a notification of one object agree on both. So neither writes what the other has
written. No I/O.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from sqs2pg.mapping.ledger_key import DAY_MS, today
from sqs2pg.message import MessageAttribute

EPOCH = date(1970, 1, 1)
# As in the names that Firehose, CloudWatch and partitioned tables give: 2026/01/02, 2026-01-02.
_DATED = re.compile(r"(?<!\d)(20\d\d)([-/_])(\d\d)\2(\d\d)(?!\d)")


def object_digest(bucket: str, key: str, *, version: str, etag: str) -> str:
    """Return what names the content of an object: its place, and its version or else its ETag.

    The ETag of an upload in parts is no digest of the content, so the place is part of it.
    """
    if version:
        return f"version:{version}:{bucket}/{key}"
    return f"etag:{etag}:{bucket}/{key}"


def object_sent_ms(key: str, modified: datetime) -> int:
    """Return when lines without a time of their own were sent, milliseconds since the epoch.

    That is when the object was put, or the day in its key if that is an earlier one: the ledger has
    no day that is far ahead. Objects of one day have different times where they can: the keys of
    their lines have few bits besides.
    """
    named = date_in(key)
    if named is None or named >= modified.astimezone(UTC).date():
        return max(0, round(modified.timestamp() * 1000))
    return max(0, (named - EPOCH).days) * DAY_MS


def object_attributes(bucket: str, key: str) -> dict[str, MessageAttribute]:
    """Return the attributes of the lines of an object."""
    return {
        "s3.bucket": MessageAttribute("String", bucket),
        "s3.key": MessageAttribute("String", key),
    }


def day_of_change(seconds: float) -> date:
    """Return the UTC day of a file's change, seconds since the epoch, from 1970 to today."""
    try:
        return min(today(), max(EPOCH, datetime.fromtimestamp(seconds, UTC).date()))
    except (ValueError, OverflowError, OSError):
        return EPOCH


def date_in(name: str) -> date | None:
    """Return the date that a name has in it, 2026/01/02 or 2026-01-02; None without one."""
    for year, _, month, day in reversed(_DATED.findall(name)):
        try:
            return date(int(year), int(month), int(day))
        except ValueError:
            continue
    return None
