from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import pytest

from sqs2pg.errors import Sqs2pgError
from sqs2pg.keys.aead import (
    NONCE_BYTES,
    OVERHEAD_BYTES,
    WRAPS_PER_KEY,
    SealingKey,
    SharedKey,
    associated,
    open_sealed,
)
from tests.native import extension

KEY = hashlib.sha256(b"key").digest()
FIELDS = (b"sqs2pg/1/quarantine", b"row", b"message")


def assert_damaged(sealed: bytes, key: bytes = KEY, fields: tuple[bytes, ...] = FIELDS) -> None:
    with pytest.raises(Sqs2pgError) as caught:
        open_sealed(key, sealed, fields)
    assert caught.value.code == "sealed_body_damaged"
    assert caught.value.hint
    assert caught.value.__context__ is None


@pytest.mark.parametrize("body", [b"", b"x", "😀".encode(), bytes(1024 * 1024)])
def test_what_is_sealed_opens_again(body: bytes) -> None:
    sealed = SealingKey(KEY).seal(body, associated(FIELDS))
    assert len(sealed) == len(body) + OVERHEAD_BYTES
    assert open_sealed(KEY, sealed, FIELDS) == body


def test_equal_bodies_are_sealed_unequally() -> None:
    sealed = {SealingKey(KEY).seal(b"body", associated(FIELDS)) for _ in range(1000)}
    assert len({one[1:25] for one in sealed}) == 1000
    assert len({one[25:] for one in sealed}) == 1000


def test_a_change_of_any_bit_is_detected() -> None:
    sealed = SealingKey(KEY).seal(b"a body of some length", associated(FIELDS))
    for index, bit in itertools.product(range(1, len(sealed)), range(8)):
        changed = bytearray(sealed)
        changed[index] ^= 1 << bit
        assert_damaged(bytes(changed))


def test_no_byte_can_be_cut_or_added() -> None:
    sealed = SealingKey(KEY).seal(b"a body", associated(FIELDS))
    for length in range(len(sealed)):
        assert_damaged(sealed[:length])
    assert_damaged(sealed + b"\0")


def test_another_key_or_place_does_not_open() -> None:
    sealed = SealingKey(KEY).seal(b"a body", associated(FIELDS))
    assert_damaged(sealed, key=hashlib.sha256(b"other").digest())
    for fields in ((), FIELDS[:2], (*FIELDS, b""), FIELDS[::-1], (b"".join(FIELDS),)):
        assert_damaged(sealed, fields=fields)


def test_no_two_lists_of_fields_encode_alike() -> None:
    lists = [
        (),
        (b"",),
        (b"", b""),
        (b"ab",),
        (b"a", b"b"),
        (b"", b"ab"),
        (b"ab", b""),
        (b"\0\0\0\x01a",),
        (b"\0\0\0\0",),
    ]
    assert len({associated(fields) for fields in lists}) == len(lists)


@pytest.mark.parametrize("number", [0, 2, 255])
def test_an_unknown_format_says_so(number: int) -> None:
    sealed = bytes([number]) + SealingKey(KEY).seal(b"a body", associated(FIELDS))[1:]
    with pytest.raises(Sqs2pgError) as caught:
        open_sealed(KEY, sealed, FIELDS)
    assert caught.value.code == "sealed_body_format"


PLACES = [("row", "message"), ("é", ""), ("", "m" * 500)]


@pytest.mark.parametrize("native", [True, False])
def test_many_bodies_are_sealed_each_for_its_place(native: bool) -> None:
    key = SharedKey(KEY, extension() if native else None)
    bodies = [b"", b"x" * 300, "😀".encode()]
    sealed = key.seal_all(associated(FIELDS[:1]), PLACES, bodies)
    for body, one, place in zip(bodies, sealed, PLACES, strict=True):
        fields = (FIELDS[0], *(text.encode() for text in place))
        assert len(one) == len(body) + OVERHEAD_BYTES
        assert open_sealed(KEY, one, fields) == body
        assert_damaged(one, fields=(FIELDS[0], b"row", b"other"))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("at_once", [1_000, 2 * WRAPS_PER_KEY + 1])
def test_no_two_of_many_bodies_share_a_nonce_nor_too_many_a_key(native: bool, at_once: int) -> None:
    key = SharedKey(KEY, extension() if native else None)
    sealed: list[bytes] = []
    while len(sealed) < 3 * WRAPS_PER_KEY:
        sealed += key.seal_all(b"", [("row", "message")] * at_once, [b"body"] * at_once)
    assert open_sealed(KEY, sealed[at_once - 1], (b"row", b"message")) == b"body"
    nonces = [one[1 : 1 + NONCE_BYTES] for one in sealed]
    assert len(set(nonces)) == len(nonces)
    of_a_key = Counter(nonce[:12] for nonce in nonces)
    assert max(of_a_key.values()) <= WRAPS_PER_KEY


def test_what_cannot_be_sealed_is_refused() -> None:
    seal = extension().seal_texts
    wrappings, nonce = ((bytes(32), bytes(12)),), bytes(12)
    assert len(seal(wrappings, 1, b"", nonce, [("a", "b")], [b"c"])) == 1
    for wrong in (
        (((bytes(31), bytes(12)),), 1, b"", nonce, [("a", "b")], [b"c"]),
        (((bytes(32), bytes(11)),), 1, b"", nonce, [("a", "b")], [b"c"]),
        (2 * wrappings, 1, b"", nonce, [("a", "b")], [b"c"]),
        (wrappings, 0, b"", nonce, [("a", "b")], [b"c"]),
        (wrappings, 1, b"", nonce[1:], [("a", "b")], [b"c"]),
        (wrappings, 1, b"", nonce, [("a",)], [b"c"]),
        (wrappings, 1, b"", nonce, [("a", "b")], ["c"]),
        (wrappings, 1, b"", nonce, [("a", b"b")], [b"c"]),
        (wrappings, 1, b"", nonce, [("a", "b")], []),
    ):
        with pytest.raises((TypeError, ValueError)):
            seal(*wrong)
