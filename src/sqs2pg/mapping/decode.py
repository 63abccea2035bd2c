"""Decode: the usual way from a batch of JSON documents to the texts of their records.

msgspec decodes a document in one pass, by the types of `document_types.py`; the values are then
read column by column. This only accepts. A message in which anything is not as the mapping wants it
is left to `documents.py`, which alone says what is wrong with it, if anything is. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import compress, repeat
from typing import Any, cast

import msgspec

from sqs2pg.mapping import json_slices
from sqs2pg.mapping.document_batch import Batch, Column, Expanded
from sqs2pg.mapping.document_expressions import BatchViews, TargetExpressions
from sqs2pg.mapping.document_paths import exists
from sqs2pg.mapping.document_routes import Routes
from sqs2pg.mapping.document_types import ABSENT, Node, NoTypesError, Use
from sqs2pg.mapping.document_values import Reading
from sqs2pg.mapping.documents import (
    NORMALIZERS,
    DecodedBatch,
    DecodedMessage,
    Source,
    TargetRecords,
    joined_event,
    sources_of,
    steps_of,
)
from sqs2pg.mapping.expression_views import Viewer
from sqs2pg.mapping.json_slices import SHORT, SPACE, UNREADABLE, Slice, raw_text, too_deep
from sqs2pg.mapping.known_names import member_names
from sqs2pg.settings import RECORD_INDEX, Settings, Target, source_paths
from sqs2pg.settings.expression_rules import syntaxes
from sqs2pg.settings.routes import conditions
from sqs2pg.settings.source_paths import EACH, Step

_USES: Mapping[str, Use] = {
    "string": "string",
    "number": "number",
    "boolean": "boolean",
    "array": "array",
    "any": "any",
    "number_text": "number_text",
    "boolean_text": "boolean_text",
    "scalar": "scalar",
    "json_text": "any",
}


class TypedReader:
    """Compiled from the settings: documents in, the records of their messages out."""

    def __init__(self, settings: Settings) -> None:
        """Raises NoTypesError if documents can only be read along their paths."""
        root = _tree(settings)
        forbid_unknown = settings.unknown_fields == "quarantine"
        self._decode = _decoder(root, forbid_unknown=forbid_unknown)
        self._decode_closed: Callable[[str], Any] | None = None
        with suppress(NoTypesError):
            self._decode_closed = _decoder(root, forbid_unknown=True)
        self._targets = [_Target(target, root) for target in settings.targets]
        self._routes = Routes(settings, root)
        dedupe = settings.ledger.dedupe_key
        self._event = (
            Reading(root.place(steps_of(dedupe)), json_slices.event_name) if dedupe else None
        )
        self._dropped = {name: _Presence(root, name) for name in settings.dropped}
        self._explodes = any(target.explode for target in settings.targets)
        read = syntaxes(settings.targets, settings.filters)
        self._viewer = Viewer(read) if read else None
        # Without routes each slice is read for each document, which tells its kind.
        closed = [root.place(steps) for steps in root.closed_slices()]
        unread = closed if forbid_unknown and settings.route else []
        if any(place.depth for place in unread):
            raise NoTypesError
        self._unread = [Reading(place, json_slices.scalar) for place in unread]

    def read(
        self, texts: Sequence[str], messages: Sequence[int], count: int
    ) -> tuple[list[DecodedMessage | None], list[int]]:
        """Return what each of `count` messages holds, None of those that are left.

        Then the messages that may have unknown members. `texts[i]` is a document of message
        `messages[i]`; those rise.
        """
        documents, open_ = self._documents(texts)
        batch = Batch(texts, documents, messages)
        seen = BatchViews(self._viewer, batch) if self._viewer else None
        for unread in self._unread:
            batch.leave_wrong(unread(batch.documents), range(len(batch.documents)))
        taken, unmatched = self._routes.take(batch, seen)
        expanded = [
            target.expand(batch, positions)
            for target, positions in zip(self._targets, taken, strict=True)
        ]
        batch.number(expanded)
        decoded = DecodedBatch(
            count,
            [
                target.records(batch, its, seen)
                for target, its in zip(self._targets, expanded, strict=True)
            ],
        )
        found = list(map(DecodedMessage, repeat(decoded), range(count), repeat(self._explodes)))
        for message, dropped in unmatched.items():
            found[message].dropped = dropped
        self._add_events(batch, found)
        self._add_dropped_fields(batch, found)
        may_have_unknown = sorted({messages[position] for position in open_})
        if not batch.left:
            return cast("list[DecodedMessage | None]", found), may_have_unknown
        kept = [None if i in batch.left else decoded for i, decoded in enumerate(found)]
        return kept, may_have_unknown

    def _documents(self, texts: Sequence[str]) -> tuple[list[Any], list[int]]:
        """Return each text's document, None where it is not of the types.

        Then the positions of those that may have unknown members. The types that forbid them tell,
        up to the first document that has one: the next ones are likely to have it too.
        """
        documents: list[Any] = []
        open_: list[int] = []
        if max(map(len, texts), default=0) >= SHORT:
            texts = ["" if len(t) >= SHORT and too_deep(t) else t for t in texts]
        rest = iter(texts)
        decode = self._decode_closed or self._decode
        while len(documents) < len(texts):
            before = len(documents)
            try:
                documents.extend(map(decode, rest))
            except UNREADABLE:  # the ones before it are in the list already
                position = len(documents)
                documents.append(None)
            else:
                position = len(texts)
            if decode is not self._decode_closed:
                open_ += range(before, position)
            if position == len(texts):
                break
            open_.append(position)
            if decode is not self._decode:
                with suppress(*UNREADABLE):
                    documents[position] = self._decode(texts[position])
                    decode = self._decode
        return documents, open_

    def _add_events(self, batch: Batch, found: Sequence[DecodedMessage]) -> None:
        if self._event is None:
            return
        names = self._event(batch.documents)
        batch.leave_wrong(names, range(len(names)))
        events: dict[int, list[str | None]] = {}
        for message, name in zip(batch.messages, names, strict=True):
            events.setdefault(message, []).append(name if isinstance(name, str) else None)
        for message, each in events.items():
            found[message].event = joined_event([name or None for name in each])

    def _add_dropped_fields(self, batch: Batch, found: Sequence[DecodedMessage]) -> None:
        for name, presence in self._dropped.items():
            present = presence.of(batch.documents)
            for message in compress(batch.messages, present):
                found[message].dropped_fields = [*found[message].dropped_fields, name]


class _Target:
    """One target: where its sources are in a document."""

    def __init__(self, target: Target, root: Node) -> None:
        steps = source_paths.explode_steps(target.explode)
        ends = [i for i, step in enumerate(steps) if step is EACH]
        arrays = [root.place(steps[:end]) for end in ends]
        if any(place.rest for place in arrays):
            raise NoTypesError  # it is in a value that is kept whole
        self._arrays = [place.reader() for place in arrays]
        self._columns = [(source, _reading(source, root)) for source in sources_of(target)]
        self._expressions = TargetExpressions(target)

    def expand(self, batch: Batch, positions: Sequence[int]) -> Expanded:
        """Return the records of the documents at some positions."""
        documents = batch.documents
        if len(positions) < len(documents):
            documents = [documents[position] for position in positions]
        scopes: list[Sequence[Any]] = [documents]
        for read in self._arrays:
            arrays = read(scopes[-1])
            if None in arrays:
                batch.leave(p for p, array in zip(positions, arrays, strict=True) if array is None)
                arrays = [array or () for array in arrays]
            sizes = list(map(len, arrays))
            positions = _repeated(positions, sizes)
            scopes = [_repeated(scope, sizes) for scope in scopes]
            scopes.append([element for array in arrays for element in array])
        return Expanded(positions, scopes)

    def records(self, batch: Batch, its: Expanded, seen: BatchViews | None) -> TargetRecords:
        """Return the records of the batch. `seen`: what expressions see; None without any."""
        indexes = batch.indexes(its)
        made = self._expressions.columns(seen, its)
        columns: list[Column] = []
        for source, read in self._columns:
            if source.expression:
                column = made[source.name]
                batch.leave_wrong(column, its.documents)
            elif read is not None:
                column = read(its.scopes[source.depth])
                if read.may_be_wrong:
                    batch.leave_wrong(column, its.documents)
            elif source.name == RECORD_INDEX:
                column = list(map(str, indexes))
            elif source.kind == "none":
                column = [None] * len(indexes)
            else:
                column = [batch.texts[position].strip(SPACE) for position in its.documents]
            if source.required and not all(column):
                batch.leave(its.documents[i] for i, value in enumerate(column) if not value)
            columns.append(column)
        return TargetRecords(batch.messages_of(its.documents), indexes, columns)


def _repeated(values: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    return [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]


class _Presence:
    """Whether documents have a field that is dropped."""

    def __init__(self, root: Node, name: str) -> None:
        place = root.place(_dropped_steps(name))
        self._read = place.reader()
        self._below = member_names(name)[len(place.names) :]

    def of(self, documents: Sequence[Any]) -> list[bool]:
        """Return for each document whether it has the field, be it null."""
        found = self._read(documents)
        if not self._below:
            return [raw is not None and raw is not ABSENT for raw in found]
        texts = ["" if raw is None else raw_text(raw) for raw in found]
        return [bool(text) and exists(Slice(text), self._below) for text in texts]


def _decoder(root: Node, *, forbid_unknown: bool) -> Callable[[str], Any]:
    """Return what decodes a document by its types. Raises NoTypesError."""
    return msgspec.json.Decoder(root.record(forbid_unknown=forbid_unknown)).decode


def _tree(settings: Settings) -> Node:
    """Return the paths of a mapping put together. Raises NoTypesError."""
    root = Node()
    for target in settings.targets:
        explode = source_paths.explode_steps(target.explode)
        if any(isinstance(step, int) for step in explode):
            raise NoTypesError
        root.add(explode, None)
        for source in sources_of(target):
            if _is_in_tree(source):
                root.add(source_paths.parse(source.name), _USES[source.kind])
    for when, _ in conditions(settings.targets, settings.filters):
        # What deletes by a part of an element is an expression, which is looked at below.
        if when.field and source_paths.EACH not in source_paths.parse(when.field):
            root.add(steps_of(when.field), "when")
    if settings.ledger.dedupe_key:
        root.add(steps_of(settings.ledger.dedupe_key), "event")
    for name in settings.dropped:
        root.add(_dropped_steps(name), "dropped")
    for syntax in syntaxes(settings.targets, settings.filters):
        for path in sorted(syntax.named, key=str):
            _add_name(root, path)
    return root


def _reading(source: Source, root: Node) -> Reading | None:
    """Return how a source is read; None where it is no part of the document."""
    if not _is_in_tree(source):
        return None
    return Reading(root.place(source_paths.parse(source.name)), NORMALIZERS[source.kind])


def _is_in_tree(source: Source) -> bool:
    """Whether the source is a part of the document: neither made nor the whole, as it stands."""
    is_whole = source.kind == "any" and source.depth == 0 and not source.steps
    return source.kind != "none" and not is_whole and not source.expression


def _add_name(root: Node, path: Sequence[Step]) -> None:
    """Add a path that an expression names, where it changes nothing that is read.

    Where it is not added, the types do not know its name: `documents.py` and `unknown_members.py`
    then say whether it is unknown.
    """
    if not path or not all(isinstance(step, str) for step in path):
        return
    node: Node | None = root
    for step in path:
        if node is None:
            break
        if node.uses or node.goes_on or node.element:
            return
        node = node.members.get(str(step))
    if node is None:
        root.add(path, "any")


def _dropped_steps(name: str) -> list[Step]:
    """Return the steps of a dropped field. An array on its way is none that is exploded."""
    return [step if isinstance(step, str) else 0 for step in source_paths.parse(name)]
