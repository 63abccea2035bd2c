"""Document types: the paths of a mapping as the types by which msgspec decodes a document.

All paths of all targets are put together into a tree. Each object on the way becomes a Struct; an
array that is exploded becomes a list of its element's Struct. Where a path ends, the value is
decoded if it is a text or a boolean to all who read it, and else stays a slice (`Raw`). A slice
also stays where a path goes on in a way that no Struct has: into one element of an array, or below
a value that is kept whole. The rest of such a path is followed in the slice.

Some mappings have no such types: `NoTypesError`. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple, cast

import msgspec

from sqs2pg.message import Record
from sqs2pg.settings.source_paths import EACH, Step

Leaf = Literal["text", "boolean", "slice"]
"""What is found where a path ends."""
Use = Literal[
    "string", "number", "boolean", "array", "any", "number_text", "boolean_text", "scalar",
    "when", "event", "dropped",
]  # fmt: skip
"""Who reads a value: a field, by the kind of JSON that it wants; or what else looks at it."""

ABSENT = msgspec.Raw()
"""The slice of a value that is not there."""


class NoTypesError(Exception):
    """No Struct says what the mapping reads."""


class Place(NamedTuple):
    """Where a path leads in a decoded document."""

    depth: int
    """How many exploded arrays deep: 0 is from the document."""
    names: tuple[str, ...]
    """The attributes on the way, from the document or the element."""
    leaf: Leaf
    rest: tuple[str | int, ...] = ()
    """The steps that are left, to take in the slice."""

    def reader(self) -> Callable[[Sequence[Any]], Sequence[Any]]:
        """Return the function from documents, or elements, to what each has in this place.

        It is None where an object on the way, or the element, is null.
        """
        names = self.names
        if not names:
            return lambda scopes: scopes
        read = attrgetter(".".join(names))

        def read_all(scopes: Sequence[Any]) -> Sequence[Any]:
            try:
                return list(map(read, scopes))
            except AttributeError:  # something on the way is null
                return [_read_carefully(scope, names) for scope in scopes]

        return read_all


def _read_carefully(value: Any, names: Sequence[str]) -> Any:
    for name in names:
        if value is None:
            return None
        value = getattr(value, name)
    return value


class Node:
    """A place in the tree: the document, a member of an object, or an element of an array."""

    def __init__(self) -> None:
        self.members: dict[str, Node] = {}
        self.element: Node | None = None
        self.uses: set[Use] = set()
        self.goes_on = False

    def add(self, steps: Sequence[Step], use: Use | None) -> None:
        """Add a path and who reads it; None: only what is below it is read.

        From an index on it is not in the tree, but in a slice.
        """
        node = self
        for step in steps:
            if isinstance(step, int):
                node.goes_on = True
                break
            node = node.child(step)
        if use is not None:
            node.uses.add(use)

    def place(self, steps: Sequence[Step]) -> Place:
        """Return where a path leads that was added. Raises NoTypesError."""
        node, depth = self, 0
        names: list[str] = []
        for number, step in enumerate(steps):
            if node.leaf == "slice":
                rest = [one for one in steps[number:] if one is not EACH]
                if len(rest) < len(steps) - number:
                    raise NoTypesError  # an array that is exploded is in it
                return Place(depth, tuple(names), "slice", tuple(rest))
            assert not isinstance(step, int), "what is before an index is a slice"
            if step is EACH:
                depth, names = depth + 1, []
            else:
                names.append(node.attributes()[step])
            node = node.child(step)
        return Place(depth, tuple(names), node.leaf or "slice")

    def record(self, *, forbid_unknown: bool) -> type[Record]:
        """Return the Struct of an object. Raises NoTypesError."""
        if self.uses or self.element or self.goes_on:
            raise NoTypesError  # the document itself is read as if it were a value
        attributes = self.attributes()
        made = msgspec.defstruct(
            "MappedRecord",
            [
                (attributes[name], *node.type_(forbid_unknown=forbid_unknown))
                for name, node in self.members.items()
            ],
            bases=(Record,),
            rename={attribute: name for name, attribute in attributes.items()},
            forbid_unknown_fields=forbid_unknown,
            frozen=True,
            gc=False,
            eq=False,
        )
        return cast("type[Record]", made)

    def closed_slices(self) -> Iterator[tuple[Step, ...]]:
        """Yield the path of each slice in which a path knows no names."""
        if self.leaf == "slice":
            if not self.uses & {"any", "array", "dropped"}:
                yield ()
            return
        below: list[tuple[Step, Node]] = [*self.members.items()]
        if self.element is not None:
            below.append((EACH, self.element))
        for step, node in below:
            for steps in node.closed_slices():
                yield (step, *steps)

    @property
    def leaf(self) -> Leaf | None:
        """What is found here, if a path ends here."""
        if not self.uses:
            return None
        if not (self.goes_on or self.members or self.element):
            if "string" in self.uses and self.uses <= {"string", "when", "event"}:
                return "text"
            if "boolean" in self.uses and self.uses <= {"boolean", "when"}:
                return "boolean"
        return "slice"

    def type_(self, *, forbid_unknown: bool) -> tuple[Any, Any]:
        """Return the type of the value, and what it is where it is missing."""
        leaf = self.leaf
        if leaf == "text":
            return str | None, None
        if leaf == "boolean":
            return bool | None, None
        if leaf == "slice":
            if self.element or (forbid_unknown and (self.members or self.goes_on)):
                raise NoTypesError  # an array is exploded in it, or names in it must be known
            return msgspec.Raw, ABSENT
        if self.element is None:
            record = self.record(forbid_unknown=forbid_unknown)
            return record | None, record()
        if self.members:
            raise NoTypesError  # no value is an object and an array
        inner, _ = self.element.type_(forbid_unknown=forbid_unknown)
        element: Any = inner if inner is msgspec.Raw else inner | None
        return list[element] | None, None

    def child(self, step: str | None) -> Node:
        """Return the node below; it is added if it is new."""
        if step is EACH:
            self.element = self.element or Node()
            return self.element
        return self.members.setdefault(step, Node())

    def attributes(self) -> dict[str, str]:
        """Return the Struct's attribute for each member.

        They are ours (f0, f1, …): a member may have any name, `__class__` too.
        """
        return {name: f"f{number}" for number, name in enumerate(self.members)}
