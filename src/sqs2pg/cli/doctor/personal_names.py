"""Names that usually hold personal data: the one table that `check` and `init` go by.

A guess, for people to judge. It reads the names of fields and columns, never a value.
"""

from __future__ import annotations

import re

_DATA = (
    r"e?mail(_?addr(ess)?)?",
    r"phone(_?(no|number))?|mobile|msisdn",
    r"(client_?|source_?|remote_?)?ip(v[46])?|ip_?addr(ess)?",
    r"ssn|passport|tax_?id",
    r"iban|card(_?(no|number))?|pan",
    r"(first|last|full|sur|user|given|family|nick|display|maiden)_?name",
    r"birth(day|date|_?date)?|dob",
    r"address|street|zip|postcode|postal_?code|lat(itude)?|lon(gitude)?",
    r"imei|idfa|gaid",
)
"""Properties of a person or a device. `check` warns if such a field is kept."""
_IDS = (
    r"(user|device|customer|person|patient|member|account|session|visitor)([._]?(id|uuid|guid))?",
)
"""Ids of a person or a device. `init` masks them; they are often kept on purpose."""
_MENTIONED = re.compile(rf"(^|[._-])({'|'.join(_DATA)})($|[._-])", re.IGNORECASE)
_AT_THE_END = re.compile(rf"(^|[._-])({'|'.join(_DATA + _IDS)})$", re.IGNORECASE)
_PERSONS_NAME = re.compile(
    r"^name$|(^|[._-])(user|customer|person|patient|contact|member|guest)[._-]?name$", re.IGNORECASE
)


def snake_case(name: str) -> str:
    """Return a name with its words apart: `homePhone`, `home phone` -> `home_phone`, case kept."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s'\"\[\]]+", "_", name).strip("_")


def mentions_personal(name: str) -> bool:
    """Whether some word of a name stands for personal data; ids do not count."""
    return bool(_MENTIONED.search(snake_case(name)))


def is_personal(path: str) -> bool:
    """Whether the last step of a path, or a column, is named like personal data or an id."""
    path = snake_case(path.removeprefix("masked_"))
    return bool(_AT_THE_END.search(path) or _PERSONS_NAME.search(path))
