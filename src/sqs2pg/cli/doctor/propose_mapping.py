"""Propose the mapping of a sample of JSON documents: fields, exploded arrays, routes.

A guess, for people to read. It holds no value of a message, only names, types and counts.

    one kind of document          fields into one table
    arrays of objects             a route each, with one row per element; the documents' own route
    a wrapper of one array        `explode` into one table
    documents with no common name a route for each kind
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from sqs2pg.cli.doctor.personal_names import Category, category_of
from sqs2pg.cli.doctor.propose_field import Proposed, dropped, explain, propose_scalar
from sqs2pg.cli.doctor.sample_shapes import Shape, shape_of, step_of
from sqs2pg.cli.options import counted
from sqs2pg.settings.fields import DROP

DEPTH_MAX = 5
"""How deep an object may lie to get columns of its own; a deeper one becomes one jsonb column."""
ROUTES_MAX = 8
"""As many tables as the C executor takes."""
SOURCE_BYTES_MAX = 200
ALL_REQUIRED_FROM = 5
"""From so many samples on, all that each of them has is required; of fewer only an id is."""
_WRAPPER_MAX = 3
"""Values beside an array in a document that is only its wrapper."""
_INHERITED = frozenset({"location", "national_id", "account", "name", "address", "phone", "email"})
"""What an object stands for, its members do too: {"name": {"first": …, "last": …}}."""
_ID = re.compile(r"(^|_)(id|uuid|guid|key|number|no|ref)$")


class Table(msgspec.Struct):
    """One table and its fields."""

    table: str
    fields: list[Proposed]
    explode: str = ""
    when: str = ""
    """A name that its documents have."""
    notes: list[str] = []


class Proposal(msgspec.Struct):
    """The tables of a mapping: one, or one per route."""

    tables: list[Table]
    routed: bool


class Leaf(msgspec.Struct):
    """A value of documents that gets a field of its own."""

    source: str
    steps: tuple[str, ...]
    shape: Shape
    inherited: Category | None
    array: bool = False
    """It is an array of objects, which may become a table."""


def of_documents(documents: Sequence[Any], table: str, *, explode: bool = True) -> Proposal:
    """Return the proposal for documents, which are objects. `explode`: arrays may be exploded."""
    tables: list[Table] = []
    for when, chosen in _kinds(documents):
        name = f"{table[:40]}_{_snake(when)}"[:63] if when else table
        tables += _tables_of(chosen, name, when, explode=explode)
    tables = tables or [Table(table, [])]
    for one, unique in zip(tables, _column_names([one.table for one in tables]), strict=True):
        one.table = unique
    routed = len(tables) > 1 or bool(tables[0].when)
    return Proposal(tables, routed)


def leaves(shape: Shape, *, prefix: str = "", explode: bool) -> list[Leaf]:
    """Return the values of an object, each with its source."""
    return list(_leaves(shape, prefix, (), None, 0, explode=explode))


def _kinds(documents: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    """Return the kinds of documents, each with the name it is known by: "" where there is one."""
    each = [set(_names([one])) for one in documents]
    if not all(each) or set[str]().union(*each[:1]).intersection(*each):
        return [("", documents)]
    kinds: list[tuple[str, Sequence[Any]]] = []
    rest = list(each)
    while rest and len(kinds) < ROUTES_MAX:
        names = Counter(name for one in rest for name in one)
        name = max(names, key=lambda one: (names[one], one))
        # Every route takes what fits it, whatever other routes took.
        pairs = zip(documents, each, strict=True)
        kinds.append((name, [document for document, its in pairs if name in its]))
        rest = [one for one in rest if name not in one]
    return [("", documents)] if rest else kinds


def _names(documents: Iterable[Any]) -> Iterator[str]:
    for document in documents:
        for name, value in document.items():
            if value is not None and step_of(name) and not shape_of([{name: 0}]).hidden:
                yield name


def _tables_of(documents: Sequence[Any], name: str, when: str, *, explode: bool) -> list[Table]:
    """Return the table of documents of one kind, and one for each array that is exploded."""
    shape = shape_of(documents)
    total = len(documents)
    # Of several kinds two may have an array of one name, and each route would take both.
    found = leaves(shape, explode=explode and not when)
    arrays = [leaf for leaf in found if leaf.array][: ROUTES_MAX - 1]
    main = Table(name, [], when=when and (step_of(when)))
    own = [leaf for leaf in found if leaf not in arrays]
    _fill(main, own, shape, total, "messages")
    if not arrays:
        return [main]
    key = _key(main.fields)
    if len(arrays) == 1 and len(own) <= _WRAPPER_MAX:
        [array] = arrays
        if array.shape.present == total and (key is None or array.shape.empty == 0):
            whole = _child(array, name, main.fields)
            whole.when = ""  # there is no other table: a document without it is a fault
            return [whole]
    anchor = _anchor(shape, total)
    if not anchor or not main.fields:
        kept = list(leaves(shape, explode=False))
        main.fields.clear()
        _fill(main, kept, shape, total, "messages")
        return [main]
    main.when = step_of(anchor)
    return [main, *(_child(a, f"{name[:40]}_{_snake(a.source)}"[:63], key) for a in arrays)]


def _anchor(shape: Shape, total: int) -> str:
    """Return a name that every document has, an id if there is one; "" where there is none."""
    always = [name for name, member in shape.members.items() if member.present == total]
    return next((n for n in always if _ID.search(_snake(n))), next(iter(always), ""))


def _key(fields: list[Proposed]) -> list[Proposed] | None:
    """Return the field by which rows of other tables refer to a document's row."""
    required = [one for one in fields if one.field.get("required") and not one.left_out]
    return sorted(required, key=_rank_as_key)[:1] or None


def _rank_as_key(one: Proposed) -> tuple[bool, bool, int]:
    """Return how fit a field is to tell documents apart, the fittest lowest."""
    source, type_ = _snake(one.field["source"]), one.field.get("type")
    return not _ID.search(source), type_ != "uuid", one.field["source"].count(".")


def _child(array: Leaf, table: str, parents: list[Proposed] | None) -> Table:
    element = array.shape.element
    assert element is not None
    child = Table(table, [], explode=array.source, when=array.source)
    repeated = [
        Proposed(dict(one.field), f"of the message; {one.note}" if one.note else "of the message")
        for one in parents or ()
        if not one.left_out
    ]
    index = {"column": f"{_snake(array.steps[-1])[:50]}_index", "type": "integer"}
    child.fields += repeated
    child.fields.append(
        Proposed({**index, "default": "record_index"}, "the element's number in the message")
    )
    found = leaves(element, prefix=f"{array.source}[]", explode=False)
    _fill(child, found, element, element.seen, "elements", above=array.steps)
    if not any(one.field.get("source", "").startswith(f"{array.source}[]") for one in child.fields):
        child.notes.append("its elements have no value that was seen")
    return child


def _fill(
    table: Table,
    found: Sequence[Leaf],
    shape: Shape,
    total: int,
    what: str,
    above: tuple[str, ...] = (),
) -> None:
    """Add the fields of leaves to a table."""
    taken = [one.field["column"] for one in table.fields if "column" in one.field]
    columns = _column_names([".".join(leaf.steps) for leaf in found], taken)
    fields = []
    for leaf, column in zip(found, columns, strict=True):
        one = _of_leaf(leaf, column, above)
        one.why = explain(leaf.shape, total, what)
        fields.append(one)
    _require(fields, total)
    table.fields += fields
    if shape.hidden:
        table.notes.append(
            f"{counted(shape.hidden, 'member is', 'members are')} left out: the name looks like "
            "data or fits no path"
        )


def _of_leaf(leaf: Leaf, column: str, above: tuple[str, ...]) -> Proposed:
    shape, steps = leaf.shape, (*above, *leaf.steps)
    if not shape.present:
        field = {"source": leaf.source, "column": column}
        return Proposed(field, "only null was seen: no type to go by", left_out=True, shape=shape)
    named = category_of(steps)
    if named == "secret" and shape.kinds.keys() & {"object", "array"}:
        return dropped(leaf.source, shape, "looks like secrets")
    if shape.kinds["object"] and shape.is_map and shape.hidden_personal:
        return dropped(leaf.source, shape, "an object whose names look personal")
    return propose_scalar(leaf.source, steps, column, shape, leaf.inherited)


def _require(fields: list[Proposed], total: int) -> None:
    """Mark what every sample has as required, and something at least if there is anything."""
    always = [
        one
        for one in fields
        if one.shape is not None
        and not one.left_out
        and one.field.get("mask") != DROP
        and one.shape.present == total
        and not one.shape.forms["text: empty"]
    ]
    if total < ALL_REQUIRED_FROM:
        named = [one for one in always if _ID.search(_snake(one.field["source"]))]
        always = (named or always)[:1]
    for one in always:
        one.field["required"] = True
        one.why += "; required: every sample has it"


def _leaves(
    shape: Shape,
    path: str,
    steps: tuple[str, ...],
    inherited: Category | None,
    depth: int,
    *,
    explode: bool,
) -> Iterator[Leaf]:
    for name, member in shape.members.items():
        step = step_of(name)
        source = f"{path}.{step}" if path and step[0] != "[" else path + step
        whole = (*steps, name)
        if len(source.encode()) > SOURCE_BYTES_MAX:
            continue
        named = category_of(whole)
        kinds = member.kinds.keys() - {"null"}
        below = named if named in _INHERITED else inherited
        if kinds == {"object"} and named != "secret" and _opens(member, depth):
            yield from _leaves(member, source, whole, below, depth + 1, explode=explode)
        else:
            array = explode and named != "secret" and _is_table(member, kinds)
            yield Leaf(source, whole, member, inherited, array)


def _opens(member: Shape, depth: int) -> bool:
    return bool(member.members) and not member.is_map and depth + 1 < DEPTH_MAX


def _is_table(member: Shape, kinds: set[str]) -> bool:
    """Whether an array's elements can be rows."""
    element = member.element
    return (
        kinds == {"array"}
        and element is not None
        and element.kinds.keys() <= {"object", "null"}
        and bool(element.members)
        and not element.is_map
    )


def _snake(path: str) -> str:
    snake = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", path)
    name = re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_")[:60] or "value"
    return f"c_{name}"[:60] if name[0].isdigit() else name


def _column_names(paths: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return a column's name for each path, all different."""
    used = set(taken)
    names: list[str] = []
    for path in paths:
        name = unique = _snake(path)
        number = 2
        while unique in used:
            unique, number = f"{name[:55]}_{number}", number + 1
        used.add(unique)
        names.append(unique)
    return names


def column_names(paths: Sequence[str]) -> dict[str, str]:
    """Return a column's name for each path, all different."""
    return dict(zip(paths, _column_names(paths), strict=True))
