"""Shapes: what a sample of JSON documents has at each path, in kinds and counts.

A shape holds no value of a document. Names of members are kept, except those that look like data
themselves, as in an object that is keyed by e-mail addresses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from sqs2pg.cli.doctor import personal_values
from sqs2pg.cli.doctor.personal_names import Category, category_of
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.settings.fields import EPOCHS

NAME_BYTES_MAX = 100
MEMBERS_MAX = 64
"""An object of more members, most of them rare, is a map: its names are data."""
DEPTH_MAX = 64
"""Deeper documents are not looked into; the pipeline refuses them."""

# 2000 to 2100, in seconds.
_EPOCHS = (946_684_800, 4_102_444_800)
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)\Z")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+\Z")
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3}){0,2}\Z")
_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?P<offset> ?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?))?\Z"
)
_TWO = r"[0-9]{2}"
_CLOCK = rf"{_TWO}:{_TWO}"
PATTERNS = {
    "%Y/%m/%d": rf"[0-9]{{4}}/{_TWO}/{_TWO}",
    "%Y/%m/%d %H:%M:%S": rf"[0-9]{{4}}/{_TWO}/{_TWO} {_CLOCK}:{_TWO}",
    "%d.%m.%Y": rf"{_TWO}\.{_TWO}\.[0-9]{{4}}",
    "%d.%m.%Y %H:%M": rf"{_TWO}\.{_TWO}\.[0-9]{{4}} {_CLOCK}",
    "%d.%m.%Y %H:%M:%S": rf"{_TWO}\.{_TWO}\.[0-9]{{4}} {_CLOCK}:{_TWO}",
    "%d/%b/%Y:%H:%M:%S %z": rf"{_TWO}/[A-Z][a-z]{{2}}/[0-9]{{4}}:{_CLOCK}:{_TWO} [+-][0-9]{{4}}",
    "%a, %d %b %Y %H:%M:%S %z": (
        rf"[A-Z][a-z]{{2}}, {_TWO} [A-Z][a-z]{{2}} [0-9]{{4}} {_CLOCK}:{_TWO} [+-][0-9]{{4}}"
    ),
}
"""Ways to write a moment that cannot be read in two ways. 03/04/2026 can, so it stays a text."""
_PATTERNS = {pattern: re.compile(rf"(?:{text})\Z") for pattern, text in PATTERNS.items()}
_KEY = re.compile(r"[0-9]{3,}\Z|[0-9a-fA-F]{16,}\Z|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}")
"""Names that are rather ids: no producer names a member so."""


class Shape(msgspec.Struct):
    """What was seen at one path, an array's elements all together."""

    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    """null, text, number, boolean, object, array."""
    forms: Counter[str] = msgspec.field(default_factory=Counter)
    """What texts and numbers hold, such as `integer` and `text: timestamptz`."""
    personal: Counter[Category] = msgspec.field(default_factory=Counter)
    """What texts and numbers look like by themselves."""
    prose: int = 0
    """Texts of several words."""
    beside: int = 0
    """Texts that are no address, or hold more than one address."""
    versions: int = 0
    """Texts such as 2.3.0, 2.3 and 2."""
    epochs: set[str] = msgspec.field(default_factory=lambda: set(EPOCHS))
    """Units in which each number, quoted or not, is a moment between 2000 and 2100."""
    members: dict[str, Shape] = {}
    element: Shape | None = None
    empty: int = 0
    """Arrays without elements."""
    hidden: int = 0
    """Members that are left out: their names look like data, or no path can have them."""
    hidden_personal: Counter[Category] = msgspec.field(default_factory=Counter)

    @property
    def seen(self) -> int:
        """How often it was there, null or not."""
        return self.kinds.total()

    @property
    def present(self) -> int:
        """How often it was there and not null."""
        return self.kinds.total() - self.kinds["null"]

    @property
    def is_map(self) -> bool:
        """Whether the names of its members are data, not a schema."""
        if self.hidden_personal or self.hidden > len(self.members):
            return True
        objects = self.kinds["object"]
        seen = sum(member.seen for member in self.members.values())
        return len(self.members) > MEMBERS_MAX and seen < 0.2 * objects * len(self.members)

    def categories_below(self, steps: tuple[str, ...] = ()) -> Counter[Category]:
        """Return everything that looks personal in it, by names and by values."""
        found = self.personal + self.hidden_personal
        for name, member in self.members.items():
            path = (*steps, name)
            if (category := category_of(path)) and not member.kinds.keys() <= {"boolean", "null"}:
                found[category] += member.present
            found += member.categories_below(path)
        if self.element is not None:
            found += self.element.categories_below(steps)
        return found


def shape_of(values: Iterable[Any]) -> Shape:
    """Return the shape of decoded JSON values, whose fractions are Decimal."""
    shape = Shape()
    for value in values:
        _add(shape, value, 0)
    return shape


def _add(shape: Shape, value: Any, depth: int) -> None:
    kind = type(value)
    if kind is dict:
        shape.kinds["object"] += 1
        for name, inner in value.items() if depth < DEPTH_MAX else ():
            _add_member(shape, name, inner, depth)
    elif kind is list:
        shape.kinds["array"] += 1
        shape.empty += not value
        shape.element = shape.element or Shape()
        for inner in value if depth < DEPTH_MAX else ():
            _add(shape.element, inner, depth + 1)
    elif value is None:
        shape.kinds["null"] += 1
    elif kind is bool:
        shape.kinds["boolean"] += 1
    elif kind is str:
        shape.kinds["text"] += 1
        _add_text(shape, value, depth)
    else:
        shape.kinds["number"] += 1
        shape.forms[_number_form(value)] += 1
        _add_number(shape, value)


def _add_member(shape: Shape, name: str, inner: Any, depth: int) -> None:
    found = personal_values.categories(name)
    if found or not step_of(name) or _KEY.match(name):
        shape.hidden += 1
        shape.hidden_personal.update(found)
        # What is below it may be personal, too.
        below = shape_of([inner]).categories_below() if depth < DEPTH_MAX else Counter()
        shape.hidden_personal.update(below)
        return
    _add(shape.members.setdefault(name, Shape()), inner, depth + 1)


def step_of(name: str) -> str:
    """Return a member's name as a step of a path; "" for one that no path can have."""
    odd = not name or re.search(r"[\"\\']", name) or not name.isprintable()
    if odd or len(name.encode()) > NAME_BYTES_MAX:
        return ""
    return name if not re.search(r"[.\[\]]", name) and name != "$" else f"['{name}']"


def _add_number(shape: Shape, value: int | Decimal) -> None:
    least, most = _EPOCHS
    shape.epochs = {u for u in shape.epochs if least <= value / Decimal(EPOCHS[u]) < most}
    if type(value) is int and personal_values.is_card(str(value)):
        shape.personal["account"] += 1


def _number_form(value: int | Decimal) -> str:
    if type(value) is Decimal:
        return "numeric"
    assert isinstance(value, int)
    if -(2**31) <= value < 2**31:
        return "integer"
    return "bigint" if -(2**63) <= value < 2**63 else "numeric"


def _add_text(shape: Shape, value: str, depth: int) -> None:
    form = _text_form(value)
    shape.versions += bool(_VERSION.match(value))
    shape.forms[f"text: {form}"] += 1
    if form in ("integer", "bigint", "numeric"):
        number = Decimal(value)
        _add_number(shape, int(value) if form != "numeric" and len(value) < 20 else number)
        return
    shape.epochs = shape.epochs if form == "empty" else set()
    if form != "text":
        return
    words = [word for word in value.split() if any(map(str.isalpha, word))]
    shape.prose += len(words) > 2
    shape.beside += not personal_values.is_alone(value)
    shape.personal.update(personal_values.categories(value))
    if value[:1] in ("{", "[") and depth < DEPTH_MAX and len(value) <= personal_values.TEXT_MAX:
        shape.personal.update(set(_in_json(value)))


def _in_json(text: str) -> Counter[Category]:
    """Return what looks personal in a text that is JSON."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return Counter()
    return shape_of([_exact(value)]).categories_below()


def _exact(value: Any) -> Any:
    if type(value) is dict:
        return {name: _exact(inner) for name, inner in value.items()}
    if type(value) is list:
        return list(map(_exact, value))
    return Decimal(repr(value)) if type(value) is float else value


def _text_form(value: str) -> str:
    if not value:
        return "empty"
    if len(value) >= 64:
        return "text"
    if value in ("true", "false"):
        return "boolean"
    if _WHOLE.match(value):
        return _number_form(int(value))
    if _FRACTION.match(value):
        return "numeric"
    for type_ in ("uuid", "date", "timestamptz"):
        # A timestamp converts to a date, too.
        if (type_ != "date" or len(value) == 10) and _converts(type_, value):
            return type_
    if match := _ISO.match(value):
        return "iso8601" if match["offset"] else "iso8601 without offset"
    return next((p for p, pattern in _PATTERNS.items() if pattern.match(value)), "text")


def _converts(type_: str, value: str) -> bool:
    try:
        FIELD_TYPES[type_].convert(value)
    except PermanentFault:
        return False
    return True
