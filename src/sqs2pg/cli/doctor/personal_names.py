"""Names that usually hold personal data: the one table that `check` and `init` go by.

A guess, for people to judge. It reads the names of fields and columns, never a value. What values
show is in `personal_values.py`.
"""

from __future__ import annotations

import re
from typing import Literal

Category = Literal[
    "secret", "email", "phone", "ip", "mac", "device", "user_agent", "location", "name", "birth",
    "address", "national_id", "account", "sensitive", "person_id",
]  # fmt: skip
"""What a name or value stands for. `person_id` is an id of a person or device."""

_LAST: tuple[tuple[Category, str], ...] = (
    (
        "secret",
        (
            r"pass(word|wd|phrase|code)?|pwd|pin(_?code)?|otp|totp|mfa_?code|cvv2?|cvc2?|secret|"
            r"(.+_)?(secret|private|api|access|auth|signing|encryption|session)_?key(_id)?|apikey|"
            r"(.+_)?token|authori[sz]ation|bearer|credentials?|(set_?)?cookies?|jwt|saml|assertion|"
            r"(.+_)?(password|passwd|secret|cookie|cookies)(_?hash)?|security_?answer|csrf|xsrf|nonce"
        ),
    ),
    ("user_agent", r"(.+_)?user_?agent|ua(_string)?|browser_?string"),
    (
        "mac",
        r"(.+_)?mac(_?addr(ess)?)?|bssid|(bluetooth|wifi|hardware|ethernet)_?addr(ess)?",
    ),
    (
        "ip",
        (
            r"(.+_)?ip(v[46])?|(.+_)?ip_?addr(ess)?|remote_?(addr(ess)?|host)|x_?forwarded_?for|"
            r"forwarded_?for|x_?real_?ip"
        ),
    ),
    ("email", r"(.+_)?e_?mails?(_?addr(ess)?)?|mail(_?addr(ess)?)?|reply_?to|mailto"),
    (
        "phone",
        (
            r"(.+_)?(tele)?phone(_?(no|nr|number|num))?|(.+_)?mobile(_?(no|nr|number|phone))?|"
            r"(.+_)?msisdn|(.+_)?fax(_?(no|nr|number))?|tel|tel_?(no|nr|number)|cell(_?phone)?|"
            r"whatsapp|handy(_?nr)?"
        ),
    ),
    (
        "location",
        (
            r"(.+_)?(lat(itude)?|lon(g|gitude)?|lng)|(.+_)?geo(_?(location|point|ip|hash|json))?|"
            r"(.+_)?coord(inate)?s?|gps(_.+)?|lat_?(lng|lon|long)"
        ),
    ),
    (
        "national_id",
        (
            r"(.+_)?ssn|social_?security(_?(no|nr|number))?|sin_?number|nino?|nhs(_?(no|number))?|"
            r"national_?(id|insurance)(_?(no|number))?|(.+_)?passport(_?(no|nr|number|id))?|"
            r"(.+_)?tax_?(id|no|nr|number|payer_?id)|tin|itin|vat_?(id|no|nr|number)|"
            r"(driver|driving)s?_?licen[cs]e(_?(no|nr|number|id))?|licen[cs]e_?(plate|number)|"
            r"number_?plate|plate(_?(no|nr|number))?|(id|identity)_?(card|document)(_?(no|nr|number))?|"
            r"personal_?(id|no|nr|number|code)|person_?nummer|cpf|cnpj|curp|aadhaa?r|pesel|bsn|dni|"
            r"nie|nif|codice_?fiscale|fiscal_?(id|code)|insurance_?(id|no|nr|number)|"
            r"steuer_?(id|nr|nummer)|ahv|medicare(_?(no|number))?|vin"
        ),
    ),
    (
        "account",
        (
            r"(.+_)?iban|(bank_?)?account_?(no|nr|number)|bank_?account|(.+_)?card(_?(no|nr|number))?|"
            r"cc|ccn|cc_?(no|num|number)|pan|sort_?code|routing_?number"
        ),
    ),
    (
        "birth",
        r"(.+_)?birth(day|date|_?date|_?year|_?place)?|dob|date_?of_?birth|born(_?(on|at))?",
    ),
    (
        "name",
        (
            r"(.+_)?(first|last|full|sur|fore|user|given|family|nick|display|maiden|middle|screen|"
            r"legal|real)_?name|(.+_)?(card_?holder|account_?holder|holder|beneficiary|payee)(_?name)?|"
            r"(.+_)?(user|customer|person|patient|contact|member|guest|employee|owner|recipient|sender|"
            r"author|buyer|seller|passenger|driver|student|subscriber|client|applicant|cardholder|"
            r"billing|shipping|nominee|parent|spouse)_?name|contact(_?person)?|login|surname|handle|"
            r"signature|salutation|nick"
        ),
    ),
    (
        "address",
        (
            r"(.+_)?address(_?(line)?_?[0-9])?|(.+_)?addr|(.+_)?street(_?(name|address|no|nr|number))?|"
            r"house_?(no|nr|number)|(.+_)?zip(_?code)?|(.+_)?post(al)?_?code|plz|po_?box|apartment"
        ),
    ),
    (
        "sensitive",
        (
            r"gender|sex|religion|ethnicity|race|nationality|citizenship|marital_?status|diagnos[ei]s|"
            r"blood_?(type|group)|disability|sexual_?orientation|political_?(party|view)s?|salary"
        ),
    ),
    (
        "device",
        (
            r"imei[12]?|imsi|iccid|idf[av]|gaid|aaid|android_?id|advertising_?id|ad_?id|"
            r"(device|browser)?_?fingerprint|serial(_?(no|nr|number))?|udid|machine_?id|hwid"
        ),
    ),
    (
        "person_id",
        (
            r"(.+_)?(user|device|customer|person|patient|member|account|session|visitor|employee|"
            r"guest|client|subscriber|owner|contact|cookie|anonymous|distinct|player|principal)"
            r"(_?(id|uuid|guid|key|ref))?"
        ),
    ),
)
"""In this order: the first that matches the last step of a path, in snake case."""
_NAMED = tuple((category, re.compile(rf"(?:{pattern})\Z")) for category, pattern in _LAST)

_PEOPLE = re.compile(
    r"(user|customer|person|people|patient|contact|member|guest|employee|owner|recipient|sender|"
    r"author|buyer|seller|passenger|driver|student|subscriber|billing|shipping|profile|"
    r"card_?holder|holder|payee|beneficiary|child|children|parent|spouse|attendee|participant|"
    r"traveller|traveler|applicant|friend|follower|staff|client|assignee|creator|reporter)s?"
    r"(_?(info|data|details|profile|list|identity|account))?\Z"
)
"""Objects that stand for people: in these `name`, `age` and the parts of an address are personal.
"""
_PLACES = re.compile(
    r"(.+_)?(address|addresses|addr|billing|shipping|delivery|residence|home|location|ship_?to|"
    r"bill_?to|geo)\Z"
)
_OF_PEOPLE: dict[str, Category] = {
    **dict.fromkeys(("name", "first", "last", "middle", "nick", "alias", "title"), "name"),
    **dict.fromkeys(("age", "photo", "avatar", "picture", "bio", "race"), "sensitive"),
    **dict.fromkeys(("id", "uuid", "guid", "uid", "arn", "handle"), "person_id"),
    **dict.fromkeys(("city", "town", "state", "region", "province", "county", "line1", "line2",
                     "location", "hometown"), "address"),
    "number": "phone",
}  # fmt: skip
_OF_PLACES: dict[str, Category] = dict.fromkeys(
    (
        *("city", "town", "village", "suburb", "district", "county", "state", "province", "region"),
        *("x", "y", "line", "line1", "line2", "line_1", "line_2", "unit", "building", "floor"),
        *("number", "name", "phone", "company", "neighborhood"),
    ),
    "address",
)

_DATA = (
    r"e?mail(_?addr(ess)?)?",
    r"phone(_?(no|number))?|mobile|msisdn",
    r"(client_?|source_?|remote_?)?ip(v[46])?|ip_?addr(ess)?",
    r"ssn|passport|tax_?id",
    r"iban|card(_?(no|number))?|pan",
    r"(first|last|full|sur|user|given|family|nick|display|maiden)_?name",
    r"birth(day|date|_?date)?|dob",
    r"address|street|zip|postcode|postal_?code|lat(itude)?|lon(gitude)?",
    r"imei|idfa|gaid|mac(_?addr(ess)?)?|user_?agent",
    r"password|passwd|cookie|secret",
)
"""Properties of a person or a device. `check` warns if such a field is kept."""
_MENTIONED = re.compile(rf"(^|[._-])({'|'.join(_DATA)})($|[._-])", re.IGNORECASE)


def snake_case(name: str) -> str:
    """Return a name with its words apart: `homePhone`, `home phone` -> `home_phone`, case kept."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\s'\"\[\]]+", "_", name)
    return apart.strip("_")


def mentions_personal(name: str) -> bool:
    """Whether some word of a name stands for personal data; ids do not count."""
    return bool(_MENTIONED.search(snake_case(name)))


def category_of(steps: tuple[str, ...] | list[str]) -> Category | None:
    """Return what the last of some member names stands for, given those above it; None: nothing.

    `steps` are the names on a path, without the arrays that it goes through. One column's name is
    one step.
    """
    if not steps:
        return None
    words = [re.sub(r"[^a-z0-9]+", "_", snake_case(step).lower()).strip("_") for step in steps]
    last = words[-1].removeprefix("masked_")
    above = words[-2] if len(words) > 1 else ""
    if above and _PEOPLE.match(above) and last in _OF_PEOPLE:
        return _OF_PEOPLE[last]
    if above and _PLACES.match(above) and last in _OF_PLACES:
        return _OF_PLACES[last]
    for spelling in dict.fromkeys((last, last.removesuffix("s"), last.removesuffix("es"))):
        for category, pattern in _NAMED:
            if pattern.match(spelling):
                return category
    return "name" if last == "name" and not above else None
