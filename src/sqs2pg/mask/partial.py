"""Partial: a few characters by which people recognise a value, with a fixed `***` for the rest.

It shows at most two characters in five and never more than four; the hidden part does not show its
length. It is the weakest mask: people who know some of the values can match them. It is meant for
support staff on the phone, not for analysis.

    text    ***5928              the last four characters
    phone   ***4567              the last four digits
    uuid    ***a46f              the last four hexadecimal digits
    email   a***@example.com     the first character of the mailbox, and the domain
    ip      199.172.***          the first half of IPv4, the first 32 bits of IPv6 (2001:db8:***)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from sqs2pg.mask.canonical import CANONICAL, shown
from sqs2pg.mask.operator import Declaration, Operator, Properties

PROPERTIES = Properties(
    deterministic=True, reversible=False, joinable=False, format_preserving=False
)

HIDDEN = "***"
SHOWN_MAX = 4
"""Characters; four are usual for payment cards (PCI DSS 3.4.1 allows as many)."""


def partial(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises what the kind's canonical form raises."""
    show = _SHOW[kind]
    canonical = CANONICAL[kind]

    def mask(value: str) -> str:
        return show(shown(kind, canonical(value)))

    return Operator("partial", PROPERTIES, mask)


def _count(value: str) -> int:
    """Return how many characters to show: four of 10 or more, none of two."""
    return min(SHOWN_MAX, len(value) * 2 // 5)


def _tail(value: str) -> str:
    count = _count(value)
    tail = value[len(value) - count :]
    # Never begin with half a character: a mark, joiner or selector belongs to the hidden one.
    while tail and unicodedata.category(tail[0]) in ("Mn", "Me", "Mc", "Cf"):
        tail = tail[1:]
    return HIDDEN + tail


def _email(value: str) -> str:
    local, _, domain = value.rpartition("@")
    return f"{local[: min(1, _count(local))]}{HIDDEN}@{domain}"


def _ip(value: str) -> str:
    if ":" not in value:
        return ".".join((*value.split(".")[:2], HIDDEN))
    head = CANONICAL["ip"](value)[:4].hex()
    return ":".join((*(part.lstrip("0") or "0" for part in (head[:4], head[4:])), HIDDEN))


_SHOW: dict[str, Callable[[str], str]] = {
    "text": _tail,
    "phone": _tail,
    "uuid": _tail,
    "email": _email,
    "ip": _ip,
}


DECLARATION = Declaration(
    "partial",
    PROPERTIES,
    lambda kind, _domain, _roots: partial(kind),
    width=len(HIDDEN) + SHOWN_MAX,
    widths={"ip": len("ffff:ffff:" + HIDDEN)},
    shows="shows a part of the value to anyone; people with a list can match it",
)
