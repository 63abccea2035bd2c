"""Base64 for a `bytea`: two alphabets, padding, and nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.base64_text import bytea, characters


@given(st.binary(max_size=40))
def test_what_is_encoded_comes_back(data: bytes) -> None:
    expected = rf"\x{data.hex()}"
    assert bytea(base64.b64encode(data).decode()) == expected
    assert bytea(base64.urlsafe_b64encode(data).decode()) == expected
    assert len(expected) == characters(len(data))


@pytest.mark.parametrize(
    "text",
    ["A", "AA", "AAA", "AA=", "AAAA=", "====", "AA==AA==", "A A=", "AAA=\n", "+_8=", "-/8=", "é===",
     r"\x00", "AP8=\0"],
)  # fmt: skip
def test_what_is_no_base64_is_a_fault(text: str) -> None:
    with pytest.raises(PermanentFault) as raised:
        bytea(text)
    assert raised.value.code == "bad_base64"
