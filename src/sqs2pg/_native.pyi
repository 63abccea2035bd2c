from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqs2pg.message import Message, MessageAttribute

API: int
SEALS: bool
"""Whether it can seal: by the libcrypto that the interpreter has loaded."""
SHA256: str
"""The compression in use: `sha-ni` or `c`."""

def count_usual_lines(text: bytes, /) -> int:
    """Return how many lines a text has; 0 where some are of another form than an object each.

    `pipeline/archive_lines.py` says what is usual.
    """

def keep_memory(count: int, /) -> None:
    """Keep up to so many bytes of each thread's memory that are freed, for what is allocated next.

    Only with glibc; does nothing elsewhere. Raises ValueError for a number that is no positive int
    of C.
    """

def line_starts(text: bytes, /) -> bytes:
    """Return where each line of a text begins, and where one after them would, as uint32.

    Raises ValueError for a text of 4 GiB.
    """

def merged_lines(text: bytes, other: bytes, /) -> bytes:
    """Return the lines of two texts in one. Each is sorted, every line ended by its feed."""

def binary_ledger(
    text: bytes, columns: int, ends: tuple[tuple[bytes, bytes], ...], /
) -> bytes | None:
    """Return the ledger's lines, key and id and one of the ends, in COPY's binary format.

    None where some are of another form.

    `columns`: of a row. `ends`: the end of a line, its feed included, and the fields it stands for,
    each with its length, at most 4.
    """

def value_hashes(
    originals: bytes, key: bytes, names: tuple[bytes, ...], /
) -> tuple[bytes, bytes, bytes, bytes]:
    """Return hashes, references, places and units of the records of `originals`.

    `originals`: as `FastPath.pack` makes them; `names`: the fields of its columns. Hashes are those
    of `pii.stored`, 8 bytes for each column; zeros where there is no original. A reference is 16
    bytes of HMAC-SHA256 under `key`. Places and indexes of units are native uint64 and uint32.
    Raises ValueError for anything else; so do the functions below.
    """

def original_keys(
    originals: bytes, places: bytes, columns: int, key: bytes, /
) -> tuple[bytes, bytes, bytes]:
    """Return the keys of the values of the records at `places`, sorted by the reference.

    First the references, then the tokens, as the elements of
    PostgreSQL's binary arrays; then of each key two uint32: the number of its record among
    `places`, and that of its column.
    """

def original_values(originals: bytes, places: bytes, columns: int, /) -> list[tuple[str, ...]]:
    """Return of each of the records the id, then of each column token and cleartext.

    Both are empty where there is no original.
    """

def seal_new_people(
    keys: tuple[bytes, bytes, int, bytes, bytes],
    entries: bytes,
    drawn: bytes,
    wrappings: tuple[tuple[bytes, bytes], ...],
    each: int,
    contexts: tuple[bytes, bytes, bytes, tuple[bytes, ...]],
    names: tuple[bytes, ...],
    /,
) -> tuple[int, int, tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]]:
    """Make data keys of people, and seal their ids and values.

    `keys`: originals, places, columns, references and numbers of `original_keys`. `entries`: which
    of the keys, as 4 bytes each, big-endian. `drawn`: random bytes, 56 for each person and 12 for
    each value. `wrappings`: derived key that wraps data keys and first half of the nonce, of each
    `each` people in turn, as many as if each of the `entries` were another one's. `contexts`:
    associated data, format byte included, before the reference: that of a data key, what follows
    the reference there, that of an id, that of each column's values.
    `names`: the columns' fields.

    Returns how many people and values there are, and elements of binary arrays: references,
    wrapped keys and sealed ids; references, fields, tokens and sealed values. Raises RuntimeError
    without `SEALS`, ValueError as above.
    """

def rewrap_keys(
    rows: bytes,
    count: int,
    derive: Callable[[int, bytes], bytes | None],
    wrappings: tuple[tuple[bytes, bytes], ...],
    each: int,
    context: bytes,
    drawn: bytes,
    /,
) -> tuple[bytes, bytes, bytes] | None:
    """Wrap data keys anew; return addresses, subjects and wrapped keys as elements of arrays.

    None where a key does not open: Python must do the batch, and says why. `rows`: `count` of them,
    as `rewrap_keys.KEY_SIZES` says. `derive` returns what opens keys of a version whose nonce
    begins so. `wrappings`: derived key and first half of the nonce, of each `each` keys in turn.
    `context`: associated data, before the reference. `drawn`: 12 random bytes for each key. Raises
    RuntimeError without `SEALS`, ValueError for what does not fit.
    """

def renew_values(
    rows: bytes,
    count: int,
    derive: Callable[[int, bytes], bytes | None],
    contexts: tuple[bytes, tuple[bytes, ...]],
    pseudonyms: tuple[tuple[int, bytes, bytes] | None, ...],
    remask: Callable[[list[int], list[str], list[str]], list[str | None]],
    drawn: bytes,
    seen: bytes,
    /,
) -> tuple[int, int, bytes, bytes, bytes] | None:
    """Give sealed values new tokens; return how many, and what is written, for COPY.

    Second, how many have a token of the old form: the others are left. Then rows for the map of
    tokens, sorted by old token: those that were not `seen`, and those that were. Then rows of
    values, sorted by value.

    None as above. `rows`: as `renew_values.VALUE_SIZES` says. `contexts`: associated data, that of
    a data key before the reference, that of each field's values before the token. `pseudonyms`: of
    each field kind, as in `mask.h`, prefix and key of its new tokens. Where that is None, or C code
    does not know a value's canonical form, `remask` makes the token: it takes the number of the
    field from 0, the token and the cleartext of each such value, and returns the new token; None:
    the value keeps its token. `seen`: a byte for each value, 0 where its old token is new. A row
    of the map has both tokens. A row of a value has address, transaction, new token, sealed value,
    and whether the row before has the same value. Raises as above.
    """

def seal_texts(
    wrappings: tuple[tuple[bytes, bytes], ...],
    each: int,
    what: bytes,
    drawn: bytes,
    places: list[tuple[str, str]],
    plaintexts: list[bytes],
    /,
) -> list[bytes]:
    """Return the plaintexts sealed in format 1 of `keys/aead.py`, each with `what` and its place.

    `wrappings`: as above, of each `each` plaintexts in turn. `what`: associated data, format byte
    included, before the two texts of a place. `drawn`: 12 random bytes for each. Raises as above.
    """

def distinct_references(references: bytes, numbers: bytes, /) -> tuple[int, bytes]:
    """Return how many references records have, and these as elements of a binary array, sorted.

    `references`: of all records; `numbers`: of some, as native uint32.
    """

class KnownValues:
    """A set of hashes of values that are stored, of bounded size."""

    def __new__(cls, hashes_max: int, /) -> KnownValues:
        """`hashes_max`: places for hashes, 8 bytes each; at least 4,096. It begins with these, and
        doubles as long as it may; then a new hash takes the place of another one.
        """

    def __len__(self) -> int: ...
    def add(self, hashes: bytes, columns: int = 1, chosen: bytes | None = None, /) -> None:
        """Add the hashes of all records, or of those whose numbers (native uint32) are `chosen`."""

    def unknown(self, hashes: bytes, columns: int = 1, chosen: bytes | None = None, /) -> bytes:
        """Return the numbers of those of the same records of which a hash is not here."""

    def clear(self) -> None:
        """Remove all hashes, and give their memory back."""

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
        attributes: tuple[str, ...],
        event: tuple[()] | tuple[int, bytes, bytes],
        drops: tuple[int, ...],
        filters: tuple[tuple[Any, ...], ...],
        recovery: tuple[()] | tuple[int, tuple[int, ...]],
        checks: tuple[tuple[int, bool, bool], ...] | None,
        /,
    ) -> FastPath:
        """`nodes`: name, index (-1: a member), slot, kind, first child, children, group, whether
        any name below is known. `groups`: the node of an element, slots of its values. `targets`:
        mode, group, slot and existence of the field in `when`, the values wanted, the same three of
        `delete_when`, columns. `layers`: of each envelope the names: whether it must be there, its
        use, its slot. `attributes`: names of the message's own, which have the last of the
        `layer_slots`. `event`: the slot of an event's name, the key of its HMAC, what stands before
        the name. `drops`: slots of what goes to no column and is counted. `filters`: of what goes
        to no table: slot, existence, the values wanted. `recovery`: where originals are kept, the
        slot of the person's id, and the recoverable columns of the only target. `checks`: of what
        is looked for in each document, in this order: slot, whether it must be there, whether it
        must not be an empty string; None where only Python says what is wrong with a document.

        Raises ValueError and TypeError for anything outside the bounds of native/plan.h.
        """

    def pack(
        self,
        units: Sequence[Message],
        ledger_end: bytes,
        keying: int,
        in_order: bool,
        left: bytes,
        bytes_max: int = 0,
        records_max: int = 0,
        text_max: int = 0,
        content: Callable[[Message], str | bytes | None] | None = None,
        /,
    ) -> tuple[Any, ...] | None:
        """See `FastPath` in mapping/native_encoder.py. `content` takes what a unit holds out of
        its envelope; None where Python must read the unit.

        None where there is no unit, an id is no UUID of the version that `keying` takes, a time is
        out of range, or units of different ids have one key.
        """

    def pack_lines(
        self,
        bodies: bytes | tuple[bytes, ...],
        times: tuple[int, ...] | None,
        day_ms: int,
        prefix: bytes,
        first: int,
        ledger_end: bytes,
        left: bytes,
        bytes_max: int = 0,
        records_max: int = 0,
        text_max: int = 0,
        attributes: Mapping[str, MessageAttribute] | None = None,
        /,
    ) -> tuple[Any, ...] | None:
        """See `FastPath` in mapping/native_encoder.py. Raises ValueError and TypeError for
        arguments of another form.
        """
