"""What looks personal, by name and by value, and what does not."""

from __future__ import annotations

import pytest

from sqs2pg.cli.doctor.personal_names import category_of
from sqs2pg.cli.doctor.personal_values import categories, is_card, is_iban

NAMES = {
    "secret": "password user.pwd cookie session_cookie accessToken refresh_token api_key "
    "clientSecret auth.authorization cvv otp private_key set-cookie",
    "email": "email contact.email user_email emailAddress reply_to emails",
    "phone": "phone mobileNumber tel fax msisdn contact_phone phones",
    "ip": "ip client.ip remote_addr x-forwarded-for ipAddress ipv6",
    "mac": "mac mac_address device.mac bssid",
    "device": "imei idfa android_id fingerprint serialNumber",
    "user_agent": "user_agent userAgent HTTPUserAgent ua",
    "location": "lat geo.lon longitude coordinates geohash gps_position",
    "name": "nick first_name lastName fullName surname name contact customer.name contacts.name "
    "cardholder username author_name",
    "birth": "dob birthday birth_date dateOfBirth",
    "address": "address street shipping.city billing.state zip postal_code address_line1 "
    "user.address.city plz",
    "national_id": "ssn passport_number taxId nationalId driving_licence cpf aadhaar licensePlate",
    "account": "iban card_number accountNo creditCard bank_account",
    "sensitive": "gender religion nationality diagnosis salary customer.age",
    "person_id": "user_id deviceId customer.id session_id visitor account",
}
NO_NAMES = (
    "order_id sku price status product.name created_at city kind description title version "
    "latency_ms items.qty region message page queue total_amount key"
)
VALUES = {
    "email": ["a@b.example", "write to Ann.Lee+x@mail.example.org, now"],
    "ip": ["198.51.100.7", "from 10.0.0.5:443", "2001:db8::7", "peer [2001:db8:0:1::9]"],
    "mac": ["00:1b:44:11:3a:b7", "00-1B-44-11-3A-B7", "seen 001b.4411.3ab7"],
    "account": ["4111 1111 1111 1111", "paid with 5500-0000-0000-0004", "378282246310005",
                "DE89 3704 0044 0532 0130 00", "to GB82WEST12345698765432 please"],
    "phone": ["+49 151 23456789", "call me at 555-0142", "(030) 123-4567", "0171 2345678",
              "+15550104567", "ring 555-010-4567"],
    "national_id": ["593-47-5928"],
    "secret": ["Bearer abcdef0123456789", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
               "sid=abc123; theme=dark", "postgresql://etl:secret@db/x", "AKIAIOSFODNN7EXAMPLE",
               "https://x.example/a?token=abcd1234", "password: hunter2"],
    "user_agent": ["Mozilla/5.0 (X11; Linux) Gecko/20", "curl/8.5.0", "MyApp/3.1 (iPhone; iOS 17)"],
    "location": ["48.4011, 9.9876", "48.4,9.9", "[48.4; -9.9]", "POINT(9.9 48.4)", "geo:48.4,9.9"],
}  # fmt: skip
NO_VALUES = [
    "", "12:30:45", "2026-03-01T12:00:00Z", "order 2026-03-01 12:30 ok", "1.50", "2.3.0", "A-17",
    "424cdd21-063a-43a7-b91b-7ca1a833afae", "1700000000", "status=ok", "SKU-123", "100.5 kg",
    "width: 10; height: 20", "4111111111111112", "DE89370400440532013001", "a::b", "10:20",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "category"), [(n, c) for c, names in NAMES.items() for n in names.split()]
)
def test_names_that_look_personal(name: str, category: str) -> None:
    assert category_of(name.split(".")) == category


@pytest.mark.parametrize("name", NO_NAMES.split())
def test_names_that_do_not(name: str) -> None:
    assert category_of(name.split(".")) is None


@pytest.mark.parametrize(
    ("value", "category"), [(v, c) for c, values in VALUES.items() for v in values]
)
def test_values_that_look_personal(value: str, category: str) -> None:
    assert category in categories(value)


@pytest.mark.parametrize("value", NO_VALUES)
def test_values_that_do_not(value: str) -> None:
    assert categories(value) == set()


def test_check_digits() -> None:
    assert is_card("4000 0000 0000 0002")
    assert not is_card("4000 0000 0000 0003")
    assert not is_card("0000000000000000")
    assert is_iban("FR14 2004 1010 0505 0001 3M02 606")
    assert not is_iban("FR14 2004 1010 0505 0001 3M02 607")
    assert not is_iban("XX14 2004 1010 0505 0001 3M02 606")


# Examples of the IBAN registry, one of each length.
IBANS = """NO9386011117947 BE68539007547034 DK5000400440116243 SI56263300012039086
AT611904300234573201 CH9300762011623852957 DE89370400440532013000 GB33BUKB20201555555555
SE4550000000058398257466 PT50000201231234567890154 TR330006100519786457841326
IT60X0542811101000000123456 PL61109010140000071219812874 BR9700360305000010009795493P1
KW81CBKU0000000000001234560101 MT84MALT011000012345MTLCAST001S LC55HEMM000100010012001200023015"""


@pytest.mark.parametrize("iban", IBANS.split())
def test_an_iban_has_its_countrys_length(iban: str) -> None:
    assert is_iban(iban)
    # The check digits of a longer one fit, too.
    longer = f"{iban[:2]}00{iban[4:]}0"
    number = int("".join(str(int(c, 36)) for c in longer[4:] + longer[:4]))
    assert not is_iban(f"{iban[:2]}{98 - number % 97:02}{iban[4:]}0")


@pytest.mark.parametrize(
    "iban",
    [
        "JO94CBJO0010000000000131000302",
        "MU17BOMM0101101030300200000MUR",
        "SC18SSCB11010000000000001497USD",
    ],
)
def test_other_countries_have_the_same_length(iban: str) -> None:
    assert is_iban(iban)
