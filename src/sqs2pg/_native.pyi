from collections.abc import Sequence
from typing import Any

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
    """The fast path of one mapping. Its keys are wiped from memory with it.

    The structures and enumerations are those of native/plan.h; `mapping/fast_path.py` makes them.
    """

    def __new__(
        cls,
        nodes: tuple[tuple[bytes, int, int, int, int, int, int, bool], ...],
        groups: tuple[tuple[int, int], ...],
        targets: tuple[tuple[Any, ...], ...],
        layers: tuple[tuple[tuple[bytes, bool, int, int], ...], ...],
        forbid_unknown: bool,
        drop_unmatched: bool,
        records: int,
        slots: int,
        layer_slots: int,
        /,
    ) -> FastPath:
        """`nodes`: name, index (-1: a member), slot, kind, first child, children, group, whether
        any name below is known. `groups`: the node of an element, slots of its values. `targets`:
        mode, group, slot and existence of the field in `when`, the values wanted, columns.
        `layers`: of each envelope the names: whether it must be there, its use, its slot.

        Raises ValueError and TypeError for anything outside the bounds of native/plan.h.
        """

    def pack(
        self,
        units: Sequence[Message],
        ledger_end: bytes,
        keying: int,
        in_order: bool,
        left: bytes,
        /,
    ) -> tuple[Any, ...] | None:
        """See `FastPath` in mapping/native_encoder.py.

        None where there is no unit, an id is no UUID of the version that `keying` takes, a time is
        out of range, or units of different ids have one key.
        """
