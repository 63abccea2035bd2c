from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mask.canonical import CANONICAL, MARKS_MAX, email, ip, phone, shown, text, uuid
from sqs2pg.mask.operator import of_kind

MIB = 1024 * 1024


@pytest.mark.parametrize("value", ["1.2.3.4 " * MIB, ":" * MIB, "1" * MIB, "\0" * MIB, "%" * MIB])
def test_a_very_long_address_is_refused(value: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        ip(value)
    assert caught.value.code == "bad_ip"


def test_an_ipv4_mapped_address_is_the_ipv4_one_in_every_spelling() -> None:
    spellings = ["1.2.3.4", "::ffff:1.2.3.4", "::FFFF:102:304", "0:0:0:0:0:ffff:0102:0304"]
    assert {ip(value) for value in spellings} == {b"\1\2\3\4"}


def test_other_embeddings_of_ipv4_stay_ipv6() -> None:
    for value in ("::1.2.3.4", "64:ff9b::1.2.3.4", "::ffff:0:1.2.3.4", "1::ffff:1.2.3.4"):
        assert len(ip(value)) == 16


@pytest.mark.parametrize("length", [0, 1, 63, 64, MIB])
def test_ascii_text_is_its_own_form(length: int) -> None:
    assert text("a" * length) == b"a" * length


def test_forms_of_one_text_are_one_and_compatibility_forms_are_not() -> None:
    assert text("Cafe\u0301") == text("Caf\xe9")
    assert text("a\u0301\u0316") == text("a\u0316\u0301")
    assert text("\ufb01") != text("fi")
    assert text("A") != text("a")
    assert text("a ") != text("a")


def test_marks_are_bounded_by_the_run_not_by_the_text() -> None:
    word = "e" + "\u0316\u0301" * (MARKS_MAX // 2)
    assert text(word * 1000) == text(word) * 1000
    for value in (word + "\u0301", "x" * MIB + word + "\u0301" + "x" * MIB):
        with pytest.raises(PermanentFault) as caught:
            text(value)
        assert caught.value.code == "too_many_marks"


def test_a_megabyte_of_marks_costs_no_more_than_looking_at_it() -> None:
    """Normalising it would take most of an hour."""
    began = time.process_time()
    with pytest.raises(PermanentFault):
        text("\u0316\u0301" * (MIB // 4))
    for value in ("é" * (MIB // 2), "\u0627\u064b" * (MIB // 4), "😀" * (MIB // 4)):
        text(value)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("form", [email, phone, uuid], ids=["email", "phone", "uuid"])
@pytest.mark.parametrize("value", ["a@" * MIB, "1" * MIB, "(" * MIB, "é" * MIB, "{" * MIB])
def test_a_very_long_value_of_a_kind_is_refused(form: Callable[[str], bytes], value: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        form(value)
    assert caught.value.code in {"bad_email", "bad_phone", "bad_uuid"}


def test_an_email_address_is_compared_without_case_or_unicode_form() -> None:
    spellings = ["Jos\xe9.O@EXAMPLE.com", "jose\u0301.o@example.COM", "JOS\xc9.O@example.com"]
    assert {email(value) for value in spellings} == {"jos\xe9.o@example.com".encode()}
    assert email("a+b@c") != email("a@c")
    assert email("a.b@c") != email("ab@c")


def test_a_phone_number_is_its_digits() -> None:
    spellings = ["+1 (555) 010-4567", "1.555.010.4567", "1/555/010/4567", "15550104567"]
    assert {phone(value) for value in spellings} == {b"15550104567"}
    assert len({phone(value) for value in ("7", "07", "007")}) == 3


def test_a_uuid_is_its_bits() -> None:
    plain = "424cdd21-063a-43a7-b91b-7ca1a833afae"
    spellings = [plain, plain.upper(), plain.replace("-", ""), f"{{{plain}}}", f"urn:uuid:{plain}"]
    assert {uuid(value) for value in spellings} == {bytes.fromhex(plain.replace("-", ""))}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("ip", "1.2.3.4"),
        ("ip", "2001:db8::1"),
        ("uuid", "424cdd21-063a-43a7-b91b-7ca1a833afae"),
        ("email", "a@b"),
        ("phone", "007"),
        ("text", "😀"),
    ],
)
def test_shown_gives_the_text_of_a_canonical_form(kind: str, value: str) -> None:
    assert shown(kind, CANONICAL[kind](value)) == value


def test_only_a_value_of_its_kind_reaches_a_mask() -> None:
    seen: list[str] = []

    def mask(value: str) -> str:
        seen.append(value)
        return "masked"

    assert of_kind("text", mask) is mask
    assert of_kind("ip", mask)("::FFFF:1.2.3.4") == "masked"
    with pytest.raises(PermanentFault, match="bad_ip"):
        of_kind("ip", mask)("1.2.3")
    assert seen == ["::FFFF:1.2.3.4"]
