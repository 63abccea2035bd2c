from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.keys.hmac_state import KeyedHash, hmac_states


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
def test_hmac_states_equal_hmac_for_every_key_length(length: int) -> None:
    key, data = bytes(range(length)), b"some data"
    inner, outer = hmac_states(key)
    inner.update(data)
    outer.update(inner.digest())
    assert outer.digest() == hmac.digest(key, data, "sha256")


@given(st.binary(max_size=200), st.binary())
def test_keyed_hash_is_hmac(key: bytes, message: bytes) -> None:
    keyed = KeyedHash(key)
    expected = hmac.new(key, message, "sha256").hexdigest()
    assert [keyed.hexdigest(message), keyed.hexdigest(message)] == [expected, expected]
