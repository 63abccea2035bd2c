"""Propose one field: its type and conversions from what was seen, its mask from what it shows.

Nothing that looks personal is proposed as kept and unmarked: it is masked, dropped or marked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from sqs2pg.cli.doctor.personal_names import Category, category_of, snake_case
from sqs2pg.cli.doctor.sample_shapes import PATTERNS, Shape
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.settings.fields import DROP
from sqs2pg.settings.mask_rules import MASKABLE

_NUMBERS = ["integer", "bigint", "numeric"]
_MOMENT = re.compile(
    r"(^|_)(ts|time|times|timestamp|date|datetime|epoch|at|on|since|until|when|created|updated|"
    r"modified|deleted|expires?|expiry|expiration|seen|started|ended|finished|iat|exp|nbf|valid|"
    r"start|end|received|sent|occurred|logged)(_|$)"
)
_WORD_OF_CODES = re.compile(
    r"(^|_)(id|ids|uuid|code|codes|sku|ean|isbn|version|ref|reference|key|hash|serial|zip|"
    r"postcode|plz|iban|phone|no|nr|number)$"
)
_LONE_COUNTS = re.compile(r"(^|_)(tokens?|cookies?|sessions?|users?|members?|contacts?|cards?)$")
"""Names that, with a number in them, count something: total_tokens."""
_COUNTED = ("secret", "person_id", "account", "name")
_NO_KIND = "text"


class Proposed(msgspec.Struct):
    """One field, and what people should know about it."""

    field: dict[str, Any]
    note: str = ""
    left_out: bool = False
    """Shown, but as a comment."""
    why: str = ""
    """In kinds and counts, for --explain."""
    shape: Shape | None = None
    """What was seen of it, for a proposal that must be changed."""


def category(steps: Sequence[str], shape: Shape, inherited: Category | None) -> Category | None:
    """Return what a value stands for, by its name and by what was seen; None: nothing personal."""
    scalars = shape.kinds.keys() - {"null", "boolean"}
    if not scalars and shape.kinds["boolean"]:
        return None
    named = category_of(tuple(steps)) or inherited
    name = _snake(steps[-1]) if steps else ""
    counts = _LONE_COUNTS.search(name) and (name.endswith("s") or named == "secret")
    if counts and scalars == {"number"} and named in _COUNTED:
        named = None  # total_tokens: a number that counts them
    if named:
        return named
    if not shape.personal:
        return None
    found, count = max(shape.personal.items(), key=lambda one: (one[1], one[0]))
    if found == "account" and shape.kinds["number"] and count < 0.3 * shape.present:
        return None  # one whole number in ten passes the check of a card's number
    return "secret" if shape.personal["secret"] else found


def propose_scalar(
    source: str, steps: Sequence[str], column: str, shape: Shape, inherited: Category | None
) -> Proposed:
    """Return a field for a value that is no object."""
    field: dict[str, Any] = {"source": source, "column": column}
    stands_for = category(steps, shape, inherited)
    type_settings, note = _typed(shape, _snake(steps[-1]), personal=bool(stands_for))
    field |= type_settings
    if stands_for:
        return _masked(field, shape, stands_for, named=bool(category_of(tuple(steps)) or inherited))
    if shape.kinds.keys() & {"array", "object"}:
        below = shape.categories_below(tuple(steps))
        if below:
            return dropped(source, shape, f"holds what looks personal ({_listed(below)})")
    return Proposed(field, note, shape=shape)


def dropped(source: str, shape: Shape, why: str) -> Proposed:
    """Return a field that is known and written nowhere."""
    note = f"{why}: dropped; judge for yourself"
    return Proposed({"source": source, "mask": DROP}, note, shape=shape)


def _masked(field: dict[str, Any], shape: Shape, stands_for: Category, *, named: bool) -> Proposed:
    looks = f"looks personal ({stands_for})"
    type_ = field.get("type", "text")
    if type_ in ("inet", "date", "timestamptz", "version") and shape.kinds.keys() <= {
        "text",
        "null",
    }:
        field = {"source": field["source"], "column": field["column"]}
        type_ = "text"
    if stands_for == "secret":
        return dropped(field["source"], shape, "looks like a secret")
    if shape.prose and not named and stands_for != "user_agent":
        return dropped(field["source"], shape, f"a text with personal data in it ({stands_for})")
    if type_ not in MASKABLE:
        return dropped(field["source"], shape, f"{looks}, and no mask fits its type")
    field.pop("empty", None)
    if type_ == "text" and (kind := _kind(shape)) != _NO_KIND:
        field["kind"] = kind
    note = f"{looks}: masked; judge for yourself"
    return Proposed({**field, "mask": "pseudonymize"}, note, shape=shape)


def _kind(shape: Shape) -> str:
    """Return the kind whose canonical form every value has."""
    whole = shape.kinds.keys() <= {"text", "null"} and not shape.prose
    if not whole or shape.beside or shape.forms["text: empty"]:
        return _NO_KIND
    for kind in ("ip", "email"):
        if shape.personal[kind] == shape.kinds["text"] and len(shape.personal) == 1:
            return kind
    return _NO_KIND


def _typed(shape: Shape, name: str, *, personal: bool) -> tuple[dict[str, Any], str]:
    """Return type and conversions, and a note."""
    kinds = shape.kinds.keys() - {"null"}
    if kinds & {"object", "array"}:
        return _container(shape, kinds)
    if not kinds:
        return {}, ""
    forms = set(shape.forms)
    texts = {form.removeprefix("text: ") for form in forms if form.startswith("text: ")}
    numbers = {form for form in forms if not form.startswith("text: ")}
    settings: dict[str, Any] = {}
    if "empty" in texts and texts != {"empty"}:
        settings["empty"] = "null"
        texts.discard("empty")
    if kinds == {"boolean"} or (kinds == {"boolean", "text"} and texts == {"boolean"}):
        quoted = {"from": "text"} if texts else {}
        return {"type": "boolean", **quoted, **settings}, ""
    if texts == {"boolean"} and kinds == {"text"}:
        return {"type": "boolean", "from": "text", **settings}, ""
    if "boolean" in kinds or (numbers and not texts <= set(_NUMBERS)):
        return {"type": "jsonb"}, f"of several types: {_listed(shape.kinds)}"
    if texts <= set(_NUMBERS):
        return _number(shape, name, texts, numbers, settings, personal=personal)
    return _moment(texts, settings)


def _container(shape: Shape, kinds: set[str]) -> tuple[dict[str, Any], str]:
    if kinds == {"array"} and shape.element is not None:
        element, _ = _typed(shape.element, "", personal=False)
        scalars = shape.element.kinds.keys() <= {"text", "number", "boolean", "null"}
        array = f"{element.get('type', 'text')}[]"
        quoted = element.get("from") or element.get("format") or "empty" in element
        if scalars and shape.element.present and quoted:
            array = "text[]" if shape.element.kinds.keys() <= {"text", "null"} else ""
        if scalars and shape.element.present and array in FIELD_TYPES:
            return {"type": array}, ""
    if len(kinds) > 1:
        return {"type": "jsonb"}, f"of several types: {_listed(shape.kinds)}"
    return {"type": "jsonb"}, ""


def _number(
    shape: Shape,
    name: str,
    texts: set[str],
    numbers: set[str],
    settings: dict[str, Any],
    *,
    personal: bool,
) -> tuple[dict[str, Any], str]:
    if not numbers and (personal or _WORD_OF_CODES.search(name)):
        return {}, ""  # digits that nobody adds up, with zeros in front some day
    if not personal and _MOMENT.search(name):
        for unit in ("epoch_s", "epoch_ms", "epoch_us"):
            if unit in shape.epochs:
                return {"type": "timestamptz", "format": unit, **settings}, ""
    widest = max(texts | numbers, key=_NUMBERS.index)
    quoted = {"from": "text"} if texts else {}
    return {"type": widest, **quoted, **(settings if texts else {})}, ""


def _moment(texts: set[str], settings: dict[str, Any]) -> tuple[dict[str, Any], str]:
    if texts in ({"uuid"}, {"date"}, {"timestamptz"}):
        return {"type": next(iter(texts)), **settings}, ""
    if texts <= {"iso8601", "timestamptz"}:
        return {"type": "timestamptz", "format": "iso8601", **settings}, ""
    if texts <= {"iso8601", "timestamptz", "iso8601 without offset"}:
        note = "some times have no offset: taken as UTC; judge for yourself"
        moment = {"type": "timestamptz", "format": "iso8601", "timezone": "UTC"}
        return {**moment, **settings}, note
    if len(texts) == 1 and (pattern := next(iter(texts))) in PATTERNS:
        if not re.search("%H", pattern):
            return {"type": "date", "format": pattern, **settings}, ""
        if "%z" in pattern:
            return {"type": "timestamptz", "format": pattern, **settings}, ""
        note = "its times have no offset: taken as UTC; judge for yourself"
        moment = {"type": "timestamptz", "format": pattern, "timezone": "UTC"}
        return {**moment, **settings}, note
    return {}, ""


def _snake(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", snake_case(name).lower())


def _listed(counts: Any) -> str:
    return ", ".join(sorted(name for name, count in counts.items() if count and name != "null"))


def explain(shape: Shape, total: int, what: str) -> str:
    """Return what was seen at a path, in kinds and counts; `total` of `what`, such as messages."""
    parts = [f"in {shape.present} of {total} {what}"]
    if shape.kinds["null"]:
        parts.append(f"null in {shape.kinds['null']}")
    parts.append(_counted(shape.kinds, {"null"}))
    for name, counts in (("forms", shape.forms), ("looks like", shape.personal)):
        if counts:
            parts.append(f"{name}: {_counted(counts, set())}")
    if shape.element is not None:
        parts.append(f"elements: {_counted(shape.element.kinds, set()) or 'none'}")
    return "; ".join(filter(None, parts))


def _counted(counts: Any, without: set[str]) -> str:
    chosen = sorted((n, c) for n, c in counts.items() if c and n not in without)
    return ", ".join(f"{name} {count}" for name, count in chosen)
