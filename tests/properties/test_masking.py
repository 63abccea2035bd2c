"""Masking properties that hold for every value, not only for the vectors."""

from __future__ import annotations

import hashlib
import ipaddress
import random
import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.errors import PermanentFault
from sqs2pg.keys.aead import SealingKey, associated, open_sealed
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.operator import KINDS, Mask
from sqs2pg.mask.registry import OPERATORS, compile_operator

TOKEN = re.compile(r"v[1-9][0-9]{0,3}_[0-9a-f]{32}")
ROOT = hashlib.sha256(b"properties").digest()


def masker(kind: str, *, domain: str = "d", root: bytes = ROOT) -> Mask:
    ring = Keyring({1: root})
    return compile_operator("pseudonymize", kind=kind, domain=domain, keyring=ring).mask


IP, TEXT = masker("ip"), masker("text")

# Short enough that no run of combining marks is over the bound.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
composed = st.text(st.sampled_from("aeo\xe9\xfc\u212b\u0301\u0308\u0316\uac01\u1100\u1161\u11a8"))
roots = st.binary(min_size=32, max_size=32).filter(lambda root: len(set(root)) > 8)
domains = st.text(st.sampled_from("abc_./é"), min_size=1, max_size=20)
addresses = st.ip_addresses()


@given(texts | composed.filter(lambda value: len(value) <= 30), st.data())
def test_tokens_are_equal_exactly_where_canonical_texts_are(
    value: str, data: st.DataObject
) -> None:
    other = data.draw(
        st.sampled_from(["NFC", "NFD"]).map(lambda f: unicodedata.normalize(f, value))
    )
    if len(other) <= 30:
        assert TEXT(value) == TEXT(other)
    third = data.draw(texts | st.just(value + "x") | st.just(value.swapcase()))
    same = unicodedata.normalize("NFC", value) == unicodedata.normalize("NFC", third)
    if len(third) <= 30:
        assert (TEXT(value) == TEXT(third)) is same


@given(addresses, addresses)
def test_tokens_are_equal_exactly_where_addresses_are(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address,
    two: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    spellings = [str(one), one.exploded, one.exploded.upper()]
    if isinstance(one, ipaddress.IPv4Address):
        packed = one.packed.hex()
        spellings += [f"::ffff:{one}", f"0:0:0:0:0:FFFF:{packed[:4]}:{packed[4:]}"]
    assert len({IP(spelling) for spelling in spellings}) == 1
    mapped = [getattr(address, "ipv4_mapped", None) or address for address in (one, two)]
    assert (IP(str(one)) == IP(str(two))) is (mapped[0] == mapped[1])


@given(texts | st.text(st.sampled_from("ab"), max_size=5_000))
def test_a_token_tells_neither_length_nor_content(value: str) -> None:
    token = TEXT(value)
    assert token
    assert TOKEN.fullmatch(token)
    assert len(token) == 35


@given(texts, roots, roots)
def test_another_root_gives_another_token(value: str, one: bytes, two: bytes) -> None:
    same = masker("text", root=one)(value) == masker("text", root=two)(value)
    assert same is (one == two)


@given(texts, domains, domains)
def test_another_domain_gives_another_token(value: str, one: str, two: str) -> None:
    same = masker("text", domain=one)(value) == masker("text", domain=two)(value)
    assert same is (unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", two))


CODES = {"bad_ip", "bad_unicode", "too_many_marks", "bad_email", "bad_phone", "bad_uuid"}
CODES |= {"bad_format", "too_short", "too_long"}


@given(
    st.text(st.characters(), max_size=100)
    | st.ip_addresses().map(str)
    | st.uuids().map(str)
    | st.emails()
    | st.text(st.sampled_from("0123456789 -+()"), max_size=20),
    st.sampled_from(KINDS),
)
def test_every_operator_masks_or_raises_a_code_on_anything(value: str, kind: str) -> None:
    for name in OPERATORS:
        if kind not in OPERATORS[name].properties.kinds:
            continue
        operator = compile_operator(name, kind=kind, domain="d", keyring=Keyring({1: ROOT}))
        caught: PermanentFault | None = None
        masked: str | None = None
        try:
            masked = operator(value)
        except PermanentFault as fault:
            caught = fault
        if caught:
            assert caught.code in CODES
            assert caught.__context__ is None
        elif name == "nullify":
            assert masked is None
        elif name not in ("keep", "truncate_ip", "partial"):
            assert masked
            assert masked != value


def test_two_hundred_thousand_values_share_no_token() -> None:
    generator = random.Random(5)
    numbers = generator.sample(range(2**32), 100_000)
    assert len({IP(str(ipaddress.IPv4Address(number))) for number in numbers}) == 100_000
    assert len({TEXT(str(number)) for number in numbers}) == 100_000


@given(st.binary(max_size=2_000), roots, st.lists(st.binary(max_size=50), max_size=4))
def test_a_sealed_body_opens_to_itself(body: bytes, key: bytes, fields: list[bytes]) -> None:
    assert open_sealed(key, SealingKey(key).seal(body, associated(fields)), fields) == body
