"""`kind = "ip"` with `otherwise = "text"`: an address, or the name of a service."""

from __future__ import annotations

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.columns import column_for
from sqs2pg.mapping.compile import compile_mapping
from sqs2pg.mapping.copy_text import values
from sqs2pg.mask.canonical import CANONICAL, IP_OR_TEXT, ip, ip_or_text, shown, text
from sqs2pg.message import Message, Row, SystemAttributes
from sqs2pg.settings import Field, Settings, cross_check
from tests.native import masks_of


@pytest.mark.parametrize("address", ["198.51.100.7", "::ffff:198.51.100.7", "2001:DB8::1"])
def test_an_address_has_the_form_of_an_address(address: str) -> None:
    assert ip_or_text(address) == ip(address)


@pytest.mark.parametrize("name", ["", "ec2.amazonaws.com", "AWS Internal", "10.0.0.1:443", "é"])
def test_any_other_text_has_its_own(name: str) -> None:
    assert ip_or_text(name) == text(name)
    assert shown(IP_OR_TEXT, ip_or_text(name)) == name


def test_no_text_has_the_form_of_an_address() -> None:
    for name in ("abcd", "a" * 16, "é" * 2, "é" * 8):
        form = ip_or_text(name)
        assert len(form) not in (4, 16)
        assert shown(IP_OR_TEXT, form) == name
    assert CANONICAL[IP_OR_TEXT]("97.98.99.100") == b"abcd"


def test_a_field_of_either_is_never_a_fault() -> None:
    fields = (
        Field(source="ip", column="ip", mask="pseudonymize", kind="ip", domain="d"),
        Field(
            source="from", column="origin", mask="pseudonymize", kind="ip", otherwise="text",
            domain="d",
        ),
    )  # fmt: skip
    settings = Settings(field=fields)
    cross_check(settings)
    mapping = compile_mapping(settings, [list(map(column_for, fields))], masks_of(settings))
    tokens = []
    for origin in ("::ffff:198.51.100.7", "ec2.amazonaws.com"):
        body = f'{{"ip": "198.51.100.7", "from": "{origin}"}}'
        message = Message("m", "h", body, SystemAttributes(0))
        [row] = mapping.rows(["k"], [message], [mapping.decode(message)])
        assert isinstance(row, Row)
        tokens.append(values(row.text.removesuffix("\n")))
    assert tokens[0][0] == tokens[0][1]
    assert tokens[1][1] not in (None, tokens[0][0])


@pytest.mark.parametrize("mask", ["truncate_ip", "fpe_ff1"])
def test_a_mask_of_addresses_alone_is_refused(mask: str) -> None:
    field = Field(source="a", column="a", mask=mask, kind="ip", otherwise="text")
    with pytest.raises(SettingsError) as raised:
        cross_check(Settings(field=(field,)))
    assert raised.value.code == "operator_kind"
