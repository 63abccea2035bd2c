from collections.abc import Sequence

from sqs2pg.message import Message
from sqs2pg.sqs.leases import Lease

API: int
SHA256: str
"""The compression that is used: `sha-ni` or `c`."""

def hold_messages(
    held: dict[str, Lease], messages: list[Message], lease: Lease, /
) -> tuple[bool, int, int]:
    """As `leases.hold_messages`."""

def release_messages(held: dict[str, Lease], messages: list[Message], /) -> list[tuple[Lease, int]]:
    """As `leases.release_messages`."""

def read_plain(reply: bytes, /) -> bytes | None:
    """Return the body of an HTTP/1.1 reply that is whole, of status 200 and Content-Length, and
    with no header that means more for the connection than keep-alive; else None.
    """

def write_delete(head: bytes, handles: list[str], /) -> bytes | None:
    """Return the body of DeleteMessageBatch of 1 to 10 receipt handles.

    `head`: the JSON up to the entries, `[` included. None where a handle is not printable ASCII
    without quotes and backslashes, or there are none or too many.
    """

def sign(
    before_date: bytes,
    after_date: bytes,
    scope: bytes,
    head: bytes,
    authorization: bytes,
    key: bytes,
    timestamp: bytes,
    body: bytes,
    /,
) -> bytes:
    """Return a request as it goes on the wire, signed by AWS Signature Version 4.

    `before_date`, `after_date`: the canonical request up to the body's hash, without the date.
    `head`: the request up to the date's value; `authorization`: that header up to the signature.
    `key`: the day's, 32 bytes. `timestamp`: `20150830T123600Z`.
    """

class FastPath:
    """The fast path of one mapping. Its keys are wiped from memory when it is freed."""

    def __new__(
        cls,
        sources: tuple[tuple[bytes, bool], ...],
        columns: tuple[tuple[int, int, bool, bool, int, bytes, bytes], ...],
        forbid_unknown: bool,
        /,
    ) -> FastPath:
        """`sources`: name and whether required, 1 to 64. `columns`: place of its source, operation
        (`enum operation` of native/line.h), whether missing is the day it was sent, nullable,
        longest text (-1: any), token's prefix (8 bytes at the most), HMAC key (64).

        Raises ValueError and TypeError outside of that.
        """

    def lines(self, messages: Sequence[Message], /) -> list[str | None]:
        """Return each message's line, or None where it is Python's to decide."""

    def pack(self, messages: Sequence[Message], tail: bytes, /) -> tuple[bytes, bytes, int] | None:
        """Return the COPY texts of a batch, for the ledger and for the target, sorted by key, and
        its oldest SentTimestamp, in milliseconds since the epoch.

        `tail` ends each line of the ledger, after key and MessageId. None where the batch is
        empty, a line or an id is Python's to decide, or two messages have one key.
        """
