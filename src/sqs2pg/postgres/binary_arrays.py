"""Binary arrays: one-dimensional array parameters in PostgreSQL's binary format.

The server parses an array that comes as text letter by letter, and bytea in it as two digits for
each byte: for a batch of the vault that is a sixth of its work. Here most arrays take one join. The
format is array_send's: dimensions, a flag for NULLs, the element's type, length and lower bound;
then each element after its length. No I/O here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_HEAD = struct.Struct(">iiiii")
_EMPTY = struct.Struct(">iii")
_LENGTH = struct.Struct(">i")
_ADDRESS_PARTS = struct.Struct(">IH")

FIRST_ADDRESS = "(0,0)"
"""Before that of every row."""
COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"
"""What the rows of COPY (FORMAT binary) stand between."""
NO_ROWS = COPY_HEAD + COPY_END
"""For COPY (FORMAT binary)."""
# The types of elements and of their arrays (pg_type.dat).
_BYTEA, _INTEGER, _TEXT, _ADDRESS, _UUID = 17, 23, 25, 27, 2950


class BinaryArray(bytes):
    """An array as the server reads it."""

    __slots__ = ()
    oid = 0


class _ByteaArray(BinaryArray):
    __slots__ = ()
    oid = 1001


class _IntegerArray(BinaryArray):
    __slots__ = ()
    oid = 1007


class _TextArray(BinaryArray):
    __slots__ = ()
    oid = 1009


class _AddressArray(BinaryArray):
    __slots__ = ()
    oid = 1010


class _UuidArray(BinaryArray):
    __slots__ = ()
    oid = 2951


class _ArrayDumper(Dumper):
    """Sends a BinaryArray as it is."""

    format = Format.BINARY

    def dump(self, obj: BinaryArray) -> bytes:
        return obj


_KINDS = (_ByteaArray, _IntegerArray, _TextArray, _AddressArray, _UuidArray)
_DUMPERS = [
    (kind, type(f"{kind.__name__}Dumper", (_ArrayDumper,), {"oid": kind.oid})) for kind in _KINDS
]


def register_dumpers(adapters: AdaptersMap) -> None:
    """Let a connection, by its adapters, take these arrays as parameters."""
    for kind, dumper in _DUMPERS:
        adapters.register_dumper(kind, dumper)


def uuid_elements(values: Sequence[str]) -> bytes:
    """Return UUIDs, each given as 32 hexadecimal digits, for `uuid_array_of`."""
    return _joined(list(map(bytes.fromhex, values)))


def text_elements(values: Sequence[str]) -> bytes:
    """Return texts for `text_array_of`. Raises UnicodeEncodeError for a lone surrogate."""
    return _joined(list(map(str.encode, values)))


def integer_elements(values: Sequence[int]) -> bytes:
    """Return numbers for `integer_array_of`. Raises struct.error for one of more than 32 bits."""
    cells = chain.from_iterable((4, value) for value in values)
    return struct.pack(f">{2 * len(values)}i", *cells)


def bytea_elements(values: Sequence[bytes]) -> bytes:
    """Return byte strings for `bytea_array_of`."""
    return _joined(values)


def integer_array_of(count: int, *elements: bytes) -> BinaryArray:
    """Return an `integer[]` of so many elements."""
    return _IntegerArray(_array(_INTEGER, count, elements))


def bytea_array_of(count: int, *elements: bytes) -> BinaryArray:
    """Return a `bytea[]` of so many elements."""
    return _ByteaArray(_array(_BYTEA, count, elements))


def uuid_array_of(count: int, *elements: bytes) -> BinaryArray:
    """Return a `uuid[]` of so many elements."""
    return _UuidArray(_array(_UUID, count, elements))


def text_array_of(count: int, *elements: bytes) -> BinaryArray:
    """Return a `text[]` of so many elements, for a connection whose client encoding is UTF8."""
    return _TextArray(_array(_TEXT, count, elements))


def address_array_of(count: int, *elements: bytes) -> BinaryArray:
    """Return a `tid[]` of so many addresses of rows."""
    return _AddressArray(_array(_ADDRESS, count, elements))


def address_array(values: Sequence[bytes]) -> BinaryArray:
    """Return a `tid[]` of addresses, each as PostgreSQL sends it."""
    return address_array_of(len(values), _joined(values))


def address_text(address: bytes) -> str:
    """Return a row's address, a `tid` in binary, as PostgreSQL writes it."""
    block, offset = _ADDRESS_PARTS.unpack(address)
    return f"({block},{offset})"


def binary_row(columns: Mapping[str, int]) -> str:
    """Return the SQL of a row in binary, for `string_agg`.

    `columns`: an expression of bytea, and how many bytes it has; 0: any number, which comes first.
    Half as dear to the server as an array of each column.
    """
    parts = (
        (name if size else f"int4send(length({name})) || {name}") for name, size in columns.items()
    )
    return " || ".join(parts)


def rows_of(sent: bytes, sizes: Sequence[int]) -> list[list[bytes]]:
    """Return the columns of rows that stand one behind the other, each as `binary_row` makes it."""
    rows: list[list[bytes]] = []
    at = 0
    while at < len(sent):
        row: list[bytes] = []
        for size in sizes:
            length = size
            if not size:
                (length,) = _LENGTH.unpack_from(sent, at)
                at += _LENGTH.size
            row.append(sent[at : at + length])
            at += length
        rows.append(row)
    return rows


def int_of(element: bytes) -> int:
    """Return an `integer` in binary."""
    number: int = _LENGTH.unpack(element)[0]
    return number


def binary_copy(rows: Iterable[Sequence[bytes]]) -> bytes:
    """Return rows of binary values for COPY (FORMAT binary)."""
    parts = [COPY_HEAD]
    for row in rows:
        parts.append(len(row).to_bytes(2, "big"))
        parts += [part for value in row for part in (_LENGTH.pack(len(value)), value)]
    return b"".join([*parts, COPY_END])


ArrayOf = Callable[[int, *tuple[bytes, ...]], BinaryArray]
"""One of the functions `…_array_of`."""


def arrays_of(
    kinds: Sequence[ArrayOf], parts: Sequence[tuple[int, *tuple[bytes, ...]]]
) -> list[BinaryArray]:
    """Return one array of each kind, joined from one part or more.

    A part is a number of elements, and then those elements of each array.
    """
    counts, *columns = zip(*parts, strict=True)
    count = sum(counts)
    return [kind(count, *column) for kind, column in zip(kinds, columns, strict=True)]


def uuid_array(values: Sequence[str]) -> BinaryArray:
    """Return a `uuid[]` of UUIDs, each as 32 hexadecimal digits."""
    return uuid_array_of(len(values), uuid_elements(values))


def bytea_array(values: Sequence[bytes]) -> BinaryArray:
    """Return a `bytea[]`."""
    return bytea_array_of(len(values), bytea_elements(values))


def _array(element: int, count: int, elements: Sequence[bytes]) -> bytes:
    head = _HEAD.pack(1, 0, element, count, 1) if count else _EMPTY.pack(0, 0, element)
    return head + b"".join(elements)


def _joined(values: Sequence[bytes]) -> bytes:
    """Return the elements, each after its length; those of one length take one join."""
    lengths = set(map(len, values))
    if len(lengths) == 1:
        length = _LENGTH.pack(lengths.pop())
        return length + length.join(values)
    heads = {length: _LENGTH.pack(length) for length in lengths}
    return b"".join([heads[len(value)] + value for value in values])
