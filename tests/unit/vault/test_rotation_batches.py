"""What C code makes of a rotation's batch is, byte for byte, what Python code makes of it."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.keys.aead import WRAPS_PER_KEY, WrappingKey
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.fast_path_masks import compile_pseudonym
from sqs2pg.mask.registry import compile_operator
from sqs2pg.postgres.binary_arrays import binary_copy, rows_of
from sqs2pg.settings import Field
from sqs2pg.vault.crypto import (
    CONTEXT_OF_DATA_KEY,
    KeyEncryptionKeys,
    contexts_of_values,
    open_value,
    seal_value,
    unwrap_data_key,
    wrap_data_key,
)
from sqs2pg.vault.renew_values import VALUE_SIZES, RenewedValues, ValueRenewer
from sqs2pg.vault.rewrap_keys import KEY_SIZES, KeyRewrapper, RewrappedKeys
from sqs2pg.vault.token_map import RecoverableColumn
from tests.native import extension

FIELDS = ["ip", "name"]
LONG = "x" * 3_000
TEXTS = ["", "ann", "\u00e9\ud800", LONG, "198.51.100.7", "ANN", "refused"]
REFUSED = "refused"


def root(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()


KEYRING = Keyring({1: root(1), 2: root(2)}, {1: root(3), 2: root(4)})
OLD_KEK = KeyEncryptionKeys(KEYRING)[1]


def mask(value: str) -> str | None:
    """Return equal masks for values that differ in their case alone."""
    if value == REFUSED:
        raise PermanentFault("bad", stage=Stage.MASK)
    return (
        None if value == LONG else f"v2_{hashlib.sha256(repr(value.lower()).encode()).hexdigest()}"
    )


COLUMNS = {name: [RecoverableColumn("t", name, name, {2: mask})] for name in FIELDS}


def elements_of(sent: bytes) -> list[bytes]:
    """Return the elements of an array, as array_send makes it."""
    return [element for (element,) in rows_of(sent[20:], (0,))]


def sent(columns: Sequence[Sequence[bytes]], sizes: Mapping[str, int]) -> bytes:
    """Return rows as the server sends them."""
    parts = []
    for row in zip(*columns, strict=True):
        for value, size in zip(row, sizes.values(), strict=True):
            parts.append(value if size else len(value).to_bytes(4, "big") + value)
    return b"".join(parts)


class ReadKeys(NamedTuple):
    addresses: list[bytes]
    subjects: list[bytes]
    generations: list[bytes]
    versions: list[bytes]
    wrapped: list[bytes]

    @property
    def rows(self) -> bytes:
        return sent(self, KEY_SIZES)


class ReadValues(NamedTuple):
    addresses: list[bytes]
    made_by: list[bytes]
    subjects: list[bytes]
    generations: list[bytes]
    versions: list[bytes]
    wrapped: list[bytes]
    numbers: list[bytes]
    tokens: list[bytes]
    sealed: list[bytes]

    @property
    def seen(self) -> bytes:
        """Some tokens are in the map already."""
        return bytes(1 - bool(token and token[-1] % 3) for token in self.tokens)

    @property
    def rows(self) -> bytes:
        return sent(self, VALUE_SIZES)


def hash_of(number: int) -> str:
    """Return 32 hexadecimal digits."""
    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def integers(values: Iterable[int]) -> list[bytes]:
    return [value.to_bytes(4, "big") for value in values]


def read_keys(count: int, kek: Callable[[], WrappingKey] = lambda: OLD_KEK) -> ReadKeys:
    draw = random.Random(count)
    subjects = [draw.randbytes(16).hex() for _ in range(count)]
    generations = [draw.choice([1, 2, 4711]) for _ in subjects]
    wrapped = [
        wrap_data_key(kek(), draw.randbytes(32), *of)
        for of in zip(subjects, generations, strict=True)
    ]
    return ReadKeys(
        [draw.randbytes(6) for _ in subjects],
        [bytes.fromhex(subject) for subject in subjects],
        integers(generations),
        integers([1] * count),
        wrapped,
    )


def read_values(count: int, texts: Sequence[str] = TEXTS) -> ReadValues:
    """People have several values, not beside each other; a value comes under several tokens."""
    draw = random.Random(count)
    people = read_keys(max(1, count // 4))
    subjects = [one.hex() for one in people.subjects]
    generations = [int.from_bytes(one) for one in people.generations]
    wrapped = people.wrapped
    whose = [draw.randrange(len(subjects)) for _ in range(count)]
    numbers = [draw.choice([1, 2]) for _ in whose]
    # Some tokens stand for values of several people.
    tokens = [
        f"v1_{hash_of(number // 2 if number % 5 == 1 else number)}" for number in range(count)
    ]
    keys = [
        unwrap_data_key(OLD_KEK, *of) for of in zip(wrapped, subjects, generations, strict=True)
    ]
    sealed = [
        seal_value(keys[who], draw.choice(texts), FIELDS[number - 1], token, subjects[who])
        for who, number, token in zip(whose, numbers, tokens, strict=True)
    ]
    return ReadValues(
        [draw.randbytes(6) for _ in whose],
        integers(draw.randrange(2**31) for _ in whose),
        [bytes.fromhex(subjects[who]) for who in whose],
        integers(generations[who] for who in whose),
        integers([1] * count),
        [wrapped[who] for who in whose],
        integers(numbers),
        list(map(str.encode, tokens)),
        sealed,
    )


def without_random(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    monkeypatch.setattr("os.urandom", random.Random(7).randbytes)
    monkeypatch.setenv("SQS2PG_NATIVE", "1" if native else "0")


def rewrapped(monkeypatch: pytest.MonkeyPatch, keys: ReadKeys, *, native: bool) -> RewrappedKeys:
    without_random(monkeypatch, native=native)
    return KeyRewrapper(KEYRING).rewrap(keys.rows, len(keys.subjects))


def renewed(
    monkeypatch: pytest.MonkeyPatch,
    values: ReadValues,
    columns: Mapping[str, Sequence[RecoverableColumn]] = COLUMNS,
    *,
    native: bool,
) -> RenewedValues:
    without_random(monkeypatch, native=native)
    count = len(values.subjects)
    return ValueRenewer(KEYRING, FIELDS, columns).renew(values.rows, count, values.seen)


@pytest.mark.parametrize("count", [1, 2, WRAPS_PER_KEY, WRAPS_PER_KEY + 1, 3 * WRAPS_PER_KEY - 5])
def test_keys_are_rewrapped_alike(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    extension()
    keys = read_keys(count)
    made = [rewrapped(monkeypatch, keys, native=native) for native in (True, False)]
    assert made[0] == made[1]
    new = KeyEncryptionKeys(KEYRING)[2]
    firsts: dict[bytes, int] = {}
    of_each = zip(elements_of(made[0].wrapped), keys.wrapped, *keys[1:3], strict=True)
    for again, before, subject, generation in of_each:
        bound = subject.hex(), int.from_bytes(generation)
        opened = [unwrap_data_key(new, again, *bound), unwrap_data_key(OLD_KEK, before, *bound)]
        assert opened[0].seal(b"", b"", bytes(12)) == opened[1].seal(b"", b"", bytes(12))
        firsts[again[1:13]] = firsts.get(again[1:13], 0) + 1
    assert max(firsts.values()) <= WRAPS_PER_KEY


def test_keys_that_were_wrapped_one_by_one_are_rewrapped_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keks = KeyEncryptionKeys(KEYRING)
    keys = read_keys(50, lambda: KeyEncryptionKeys(KEYRING)[1])
    assert len({one[1:13] for one in keys.wrapped}) == 50
    derived: list[bytes | None] = []

    def derive(version: int, first: bytes) -> bytes | None:
        derived.append(keks.derived(version, first))
        return derived[-1]

    wrappings = ((bytes(32), bytes(12)),)
    given = keys.rows, 50, derive, wrappings, 50, CONTEXT_OF_DATA_KEY, bytes(600)
    assert extension().rewrap_keys(*given) is not None
    assert len(set(derived)) == len(derived) == 50
    made = [rewrapped(monkeypatch, keys, native=native) for native in (True, False)]
    assert made[0] == made[1]


def damaged(column: list[bytes], number: int, at: int) -> list[bytes]:
    """Change a bit of an element."""
    bits = bytearray(column[number])
    bits[at] ^= 1
    return [*column[:number], bytes(bits), *column[number + 1 :]]


@pytest.mark.parametrize("at", [0, 1, 20, 30, -1])
def test_a_key_that_does_not_open_is_left_to_python(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    keys = read_keys(9)
    keys = keys._replace(wrapped=damaged(keys.wrapped, 4, at))
    made = [rewrapped(monkeypatch, keys, native=native) for native in (True, False)]
    assert made[0][:3] == made[1][:3]
    assert [fault.code for fault in made[0].faults] == ["subject_key_damaged"]
    assert len(elements_of(made[0].wrapped)) == 8


def test_a_key_whose_root_is_missing_is_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = read_keys(9)
    keys = keys._replace(versions=integers([1] * 8 + [9]))
    made = rewrapped(monkeypatch, keys, native=True)
    assert [(fault.code, fault.root) for fault in made.faults] == [("subject_key_root", 9)]
    assert len(elements_of(made.addresses)) == 8


@pytest.mark.parametrize("count", [1, 2, 40, 1_000])
def test_values_are_renewed_alike(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    extension()
    values = read_values(count)
    made = [renewed(monkeypatch, values, native=native) for native in (True, False)]
    assert made[0] == made[1]


def pseudonymized(kind: str, domain: str, asked: list[str]) -> RecoverableColumn:
    """Return a column; what Python code masks for it is added to `asked`."""
    operator = compile_operator("pseudonymize", kind=kind, domain=domain, keyring=KEYRING)
    pseudonym = compile_pseudonym(Field(column="c", mask="pseudonymize", kind=kind), operator)
    assert pseudonym is not None

    def note(value: str) -> str | None:
        asked.append(value)
        return operator.mask(value)

    return RecoverableColumn("t", "c", "c", {2: note}, pseudonym)


@pytest.mark.parametrize(
    ("kind", "known", "unknown"),
    [
        ("text", ["", "Ann", "Zo\u00eb"], ["Zoe\u0308", "\ud800"]),
        ("ip", ["198.51.100.7"], ["2001:db8::1", "::ffff:198.51.100.7", "no address"]),
        ("email", ["Ann@Example.org"], ["ann", "\u00e9@example.org"]),
        ("phone", ["+49 30 1234"], ["", "1\u00a02"]),
        ("uuid", ["0190163d-8694-739b-aea5-966c26f8ad90"], ["urn:uuid:" + "0" * 32, "1"]),
    ],
)
def test_tokens_are_made_alike_and_by_python_where_c_does_not_know_the_form(
    monkeypatch: pytest.MonkeyPatch, kind: str, known: list[str], unknown: list[str]
) -> None:
    extension()
    asked: list[str] = []
    values = read_values(300, known + unknown)
    columns = {name: [pseudonymized(kind, name, asked)] for name in FIELDS}
    made = renewed(monkeypatch, values, columns, native=True)
    assert set(asked) == set(unknown)
    assert made.moved > 100
    assert made == renewed(monkeypatch, values, columns, native=False)


def test_where_columns_differ_python_asks_the_old_token(monkeypatch: pytest.MonkeyPatch) -> None:
    extension()
    asked: list[str] = []
    values = read_values(300, ["ann", "ben"])
    columns = {
        "ip": [pseudonymized("text", "ip", [])] * 2,
        "name": [pseudonymized("text", "name", asked), pseudonymized("text", "nick", [])],
    }
    made = renewed(monkeypatch, values, columns, native=True)
    assert len(asked) == values.numbers.count(b"\0\0\0\2")
    assert made == renewed(monkeypatch, values, columns, native=False)


def test_renewed_values_open_under_their_new_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    values = read_values(400)
    of = {
        address: (key, subject.hex(), FIELDS[int.from_bytes(number) - 1], token.decode(), sealed)
        for address, token, number, subject, sealed, generation, wrapped in zip(
            values.addresses,
            values.tokens,
            values.numbers,
            values.subjects,
            values.sealed,
            values.generations,
            values.wrapped,
            strict=True,
        )
        for key in [unwrap_data_key(OLD_KEK, wrapped, subject.hex(), int.from_bytes(generation))]
    }
    made = renewed(monkeypatch, values, native=True)
    order, rows, marks = [], made.rows[19:-2], []
    while rows:
        assert rows[:2] == b"\0\5"
        row, rows = [], rows[2:]
        for _ in range(5):
            end = 4 + int.from_bytes(rows[:4])
            row.append(rows[4:end])
            rows = rows[end:]
        address, _, new, again, mark = row
        key, subject, field, old, before = of.pop(address)
        value = open_value(key, before, field, old, subject)
        assert mask(value) == new.decode()
        assert open_value(key, again, field, new.decode(), subject) == value
        order.append((subject, FIELDS.index(field), new))
        marks.append(mark == b"\1")
    assert len(order) == made.moved
    assert order == sorted(order)
    assert marks == [False, *(one == before for before, one in itertools.pairwise(order))]
    assert any(marks)
    left = {
        open_value(key, sealed, field, old, subject)
        for key, subject, field, old, sealed in of.values()
    }
    assert left == {LONG, REFUSED}


def test_the_map_gets_each_pair_once_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = read_values(400, ["ann"])
    made = renewed(monkeypatch, values, native=True)
    new = mask("ann")
    assert new is not None
    lacking = {old for old, seen in zip(values.tokens, values.seen, strict=True) if not seen}
    assert 0 < len(lacking) < len(set(values.tokens)) < len(values.tokens)
    found = set(values.tokens) - lacking
    assert made.new_pairs == binary_copy((old, new.encode()) for old in sorted(lacking))
    assert made.pairs == binary_copy((old, new.encode()) for old in sorted(found))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "v",
        f"v_{hash_of(1)}",
        f"v0_{hash_of(1)}",
        f"v12345_{hash_of(1)}",
        f"v1{hash_of(1)}",
        f"v1_{hash_of(1)}0",
        f"v1_{hash_of(1)[1:]}",
        f"v1_{hash_of(1)[1:].upper()}F",
        f"v1_{hash_of(1)[1:]}g",
        f"w1_{hash_of(1)}",
        f"v1_{hash_of(1)[1:]}\n",
        f"v1x_{hash_of(1)[1:]}",
        f"v1_{hash_of(1)[1:]}\u00e9",
        "198.51.100.7",
    ],
)
def test_a_value_with_a_token_of_another_form_is_left(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    values = read_values(9, ["ann"])
    for form in ("v1_", "v9_", "v10_", "v9999_"):
        tokens = [*values.tokens[:7], token.encode(), f"{form}{hash_of(1)}".encode()]
        # Sealed for other tokens, so that each of the old form that is opened is damaged.
        given = values._replace(tokens=tokens)
        made = [renewed(monkeypatch, given, native=native) for native in (True, False)]
        assert made[0] == made[1]
        assert made[0].old == 8
    only = ReadValues(*(column[7:8] for column in given))
    made = [renewed(monkeypatch, only, native=native) for native in (True, False)]
    assert made[0] == made[1]
    assert made[0][:2] == (0, 0)


@pytest.mark.parametrize(("column", "at"), [("sealed", 0), ("sealed", -1), ("wrapped", 40)])
def test_a_value_that_does_not_open_is_left_to_python(
    monkeypatch: pytest.MonkeyPatch, column: str, at: int
) -> None:
    values = read_values(30)
    values = values._replace(**{column: damaged(getattr(values, column), 3, at)})
    made = [renewed(monkeypatch, values, native=native) for native in (True, False)]
    assert made[0][:5] == made[1][:5]
    assert 0 < made[0].moved < made[0].old == 30
    assert {fault.code for fault in made[0].faults} <= {"subject_key_damaged"}


@pytest.mark.parametrize("change", range(9))
def test_rows_of_another_form_are_refused(change: int) -> None:
    keys = read_keys(3)
    given: list[Any] = [
        keys.rows,
        3,
        KeyEncryptionKeys(KEYRING).derived,
        ((bytes(32), bytes(12)),),
        3,
        CONTEXT_OF_DATA_KEY,
        bytes(36),
    ]
    native = extension()
    assert native.rewrap_keys(*given) is not None
    match change:
        case 0:
            given[0] = keys.rows[:-1]
        case 1:
            given[0] = keys.rows + b"\0"
        case 2:
            given[0] = keys._replace(wrapped=[*keys.wrapped[:2], b""]).rows[:-3]
        case 3:
            given[0] = b""
        case 4:
            given[3] = ()
        case 5:
            given[3] = ((bytes(31), bytes(12)),)
        case 6:
            given[6] = bytes(35)
        case 7:
            given[2] = lambda _version, _first: b"short"
        case 8:
            given[1] = -1
    with pytest.raises(ValueError, match="no rows"):
        native.rewrap_keys(*given)


@pytest.mark.parametrize("change", range(11))
def test_values_of_another_form_are_refused(change: int) -> None:
    values = read_values(3)
    given: list[Any] = [
        3,
        KeyEncryptionKeys(KEYRING).derived,
        (CONTEXT_OF_DATA_KEY, contexts_of_values(FIELDS)),
        (None, None),
        lambda _numbers, tokens, _values: tokens,
        bytes(36),
        bytes(3),
    ]
    native = extension()
    assert native.renew_values(values.rows, *given)[0] == 3
    match change:
        case 0:
            values = values._replace(numbers=integers([1, 2, 3]))
        case 1:
            values = values._replace(numbers=integers([1, 0, 2]))
        case 2:
            given[0] = 4
        case 3:
            given[4] = lambda _numbers, _tokens, _values: []
        case 4:
            given[4] = lambda _numbers, tokens, _values: [b"bytes", *tokens[1:]]
        case 5:
            given[5] = bytes(35)
        case 6:
            given[3] = (None,)
        case 7:
            given[3] = None, (99, b"v2_", b"key")
        case 8:
            given[3] = None, (0, b"v2_", bytes(65))
        case 9:
            given[3] = None, "no tuple"
        case 10:
            given[6] = bytes(2)
    with pytest.raises(ValueError, match="no rows"):
        native.renew_values(values.rows, *given)
