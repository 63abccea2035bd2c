"""Unknown members: what documents have that no path of the mapping names, by path and sort.

The mapping drops such a member, or quarantines its message. The count shows how producers drift.
What is below an unknown member is not counted. Nor is what is in an array if the mapping reads only
one element of it.

This is the reference; the native executor counts the same in `native/unknown.c`. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec

from sqs2pg.mapping.json_slices import UNREADABLE, raw_text
from sqs2pg.mapping.known_names import KnownNames, known_names
from sqs2pg.settings import Settings, source_paths

# As in native/unknown.h.
NAME_BYTES_MAX = 100
OF_UNIT_MAX = 256
SORTS = {
    ord('"'): "text",
    ord("#"): "number",
    ord("b"): "boolean",
    ord("n"): "null",
    ord("{"): "object",
    ord("["): "array",
}
"""Sorts of JSON values by the character that C has for each."""
_SORTS = {
    str: "text",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
    dict: "object",
    list: "array",
}
_STANDS_FOR: dict[str, Any] = {'"': "", "{": {}, "[": [], "n": None, "t": True, "f": False}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_SHAPES_MAX = 1_000
_decode = msgspec.json.Decoder().decode
_decode_lines = msgspec.json.Decoder().decode_lines


class UnknownMember(NamedTuple):
    """A member that no path names."""

    path: str
    """As the source of a field; "" where no path can have its name, or it is too long."""
    sort: str
    """One of `SORTS`."""


UnknownCounts = Counter[tuple[str, str]]


class UnknownShape:
    """Unknown members that stand together in many documents: counted once, as one thing."""

    __slots__ = ("members",)

    def __init__(self, members: Sequence[UnknownMember]) -> None:
        self.members = members

    def __repr__(self) -> str:
        return f"UnknownShape({len(self.members)})"


class UnknownMembers:
    """Compiled from the settings: documents in, their unknown members out."""

    def __init__(self, settings: Settings) -> None:
        self._known = known_names(
            settings.targets, settings.ledger.dedupe_key, settings.dropped, settings.filters
        )
        self._root = _Node(self._known, "")

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for the names that are known."""
        text = msgspec.json.encode(self._known, order="deterministic")
        return sha256(text).hexdigest()[:16]

    def find(self, texts: Iterable[str]) -> list[UnknownShape]:
        """Return the unknown members of one unit's documents; none of a text that is no object."""
        return self._of([_document(text) for text in texts])

    def find_each(self, units: Sequence[Sequence[str]]) -> list[list[UnknownShape]]:
        """Do as `find` for each of many units, whose documents are read at once where they can."""
        texts = [text for unit in units for text in unit]
        lines = "\n".join(texts)
        documents: list[Any] = []
        if lines.count("\n") < len(texts):  # then each is one line
            with suppress(*UNREADABLE):
                documents = _decode_lines(lines)
        if len(documents) != len(texts):
            return [self.find(unit) for unit in units]
        rest = iter(documents)
        return [self._of([one for _, one in zip(unit, rest, strict=False)]) for unit in units]

    def _of(self, documents: Sequence[Any]) -> list[UnknownShape]:
        found: list[UnknownShape] = []
        for document in documents:
            if type(document) is dict:
                self._root.find(document, found)
        if found[1:] and sum(len(one.members) for one in found) > OF_UNIT_MAX:
            each = chain.from_iterable(one.members for one in found)
            return [UnknownShape(tuple(islice(each, OF_UNIT_MAX)))]
        return found


def _document(text: str) -> Any:
    try:
        return _decode(text)
    except UNREADABLE:
        return _outline(text)


def _outline(text: str) -> Any:
    """Return a document without its values: one of them is a number that no type of Python holds.

    It is None where the document cannot be read.
    """
    stands_for = _STANDS_FOR.get(text.lstrip()[:1], 0)
    try:
        if type(stands_for) is dict:
            return {name: _outline(raw_text(raw)) for name, raw in _members(text).items()}
        if type(stands_for) is list:
            return [_outline(raw_text(raw)) for raw in _elements(text)]
    except UNREADABLE:
        return None
    return stands_for


def counts_of(found: Iterable[UnknownShape]) -> UnknownCounts:
    """Return how often each member is in the shapes of many units."""
    counts: UnknownCounts = Counter()
    for shape, times in Counter(found).items():
        for member in shape.members:
            counts[member] += times
    return counts


class _Node:
    """An object with some known members."""

    def __init__(self, known: KnownNames, path: str) -> None:
        self._members = known.members or {}
        self._path = path
        self._shapes: dict[tuple[Any, ...], UnknownShape | None] = {}
        self._below: list[tuple[str, _Node, _Node | None]] = []
        for name, below in self._members.items():
            if below.members:
                inner = source_paths.member(path, name)
                element = None if below.indexed else _Node(below, f"{inner}[]")
                self._below.append((name, _Node(below, inner), element))

    def find(self, value: dict[str, Any], found: list[UnknownShape]) -> None:
        """Add what an object has that is not known, and what the objects in it have."""
        if not self._members:
            return
        for name in value:
            if name not in self._members:
                self._add_shape(value, found)
                break
        for name, node, element in self._below:
            inner = value.get(name)
            if type(inner) is dict:
                node.find(inner, found)
            elif type(inner) is list and element is not None:
                for one in inner:
                    if type(one) is dict:
                        element.find(one, found)

    def _add_shape(self, value: dict[str, Any], found: list[UnknownShape]) -> None:
        # By names and types: most objects of one place have the same ones.
        key = (*value, *map(type, value.values()))
        try:
            shape = self._shapes[key]
        except KeyError:
            shape = self._shape(value)
            if len(self._shapes) < _SHAPES_MAX:
                self._shapes[key] = shape
        if shape is not None:
            found.append(shape)

    def _shape(self, value: dict[str, Any]) -> UnknownShape | None:
        unknown = [
            UnknownMember(unknown_path(self._path, name), _SORTS[type(inner)])
            for name, inner in value.items()
            if name not in self._members
        ]
        return UnknownShape(tuple(unknown[:OF_UNIT_MAX])) if unknown else None


def unknown_path(path: str, name: str) -> str:
    """Return the path of a member of the object at a path; "" where it is left out."""
    return source_paths.member(path, name) if len(name.encode()) <= NAME_BYTES_MAX else ""


def unpacked(
    found: Sequence[tuple[int, bytes, int, int]], node_paths: Sequence[str]
) -> UnknownCounts:
    """Return what C has counted; `node_paths` are the paths of its nodes."""
    counts: UnknownCounts = Counter()
    for node, name, sort, count in found:
        path = unknown_path(node_paths[node], name.decode())
        counts[UnknownMember(path, SORTS[sort])] += count
    return counts
