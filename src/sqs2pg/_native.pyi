from collections.abc import Sequence

from sqs2pg.message import Message
from sqs2pg.sqs.leases import Lease

API: int
SHA256: str
"""The compression in use: `sha-ni` or `c`."""

def hold_messages(
    held: dict[str, Lease], messages: list[Message], lease: Lease, /
) -> tuple[bool, int, int]:
    """As `leases.hold_messages`."""

def release_messages(held: dict[str, Lease], messages: list[Message], /) -> list[tuple[Lease, int]]:
    """As `leases.release_messages`."""

def read_plain(reply: bytes, /) -> bytes | None:
    """Return the body of a plain HTTP/1.1 reply; None for any other.

    A plain reply is complete, has status 200 and Content-Length, and no header that affects the
    connection except keep-alive.
    """

def write_delete(head: bytes, handles: list[str], /) -> bytes | None:
    """Return the body of DeleteMessageBatch of 1 to 10 receipt handles.

    `head`: the JSON up to the entries, `[` included. None if a handle is not printable ASCII
    without quotes and backslashes, or if there are no handles or too many.
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
    `key`: the signing key of the day, 32 bytes. `timestamp`: `20150830T123600Z`.
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
        """Compile a mapping.

        `sources`: name and whether required, 1 to 64. `columns`, 1 to 128: index of the source,
        operation (`enum operation` of native/line.h), whether a missing value is the day the
        message was sent, whether it may be NULL, longest text (-1: no limit), prefix of the token
        (at most 8 bytes), HMAC key (at most 64 bytes).

        Raises ValueError and TypeError for anything else.
        """

    def lines(self, messages: Sequence[Message], /) -> list[str | None]:
        """Return each message's line, or None where Python must do it."""

    def pack(self, messages: Sequence[Message], tail: bytes, /) -> tuple[bytes, bytes, int] | None:
        """Return the COPY texts of a batch, for the ledger and for the target, sorted by key, and
        its oldest SentTimestamp, in milliseconds since the epoch.

        `tail` ends each line of the ledger, after key and MessageId. None if the batch is empty,
        Python must do a line or an id, or two messages have the same key.
        """
