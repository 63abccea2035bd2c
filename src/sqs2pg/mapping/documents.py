"""Documents: what a mapping takes from JSON of any shape, or why it takes nothing: the reference.

It opens a document level by level along each path, and so finds the first thing that is wrong and
names it. Most documents have nothing wrong and are read faster by `decode.py`, which leaves all
others to this.

Promises: records of the mapping's fields, or a PermanentFault with a code and at most a name of the
mapping and the index of a record; never a value, nor a name that a producer chose. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping import json_slices
from sqs2pg.mapping.condition import DocumentCondition
from sqs2pg.mapping.conversions import json_kind
from sqs2pg.mapping.document_paths import exists, scopes
from sqs2pg.mapping.envelope.records import RECORDS_MAX, Records
from sqs2pg.mapping.expression_views import Sight, StepBudget, Viewer, views
from sqs2pg.mapping.json_slices import Slice
from sqs2pg.mapping.known_names import has_unknown, known_names, member_names
from sqs2pg.mapping.lazy_expressions import evaluators
from sqs2pg.mapping.unknown_members import UnknownShape
from sqs2pg.message import Message
from sqs2pg.settings import (
    RECORD_INDEX,
    Filter,
    Target,
    attribute_keys,
    is_of_message,
    required_sources,
    source_paths,
)
from sqs2pg.settings.expression_rules import reads_element, syntaxes

Values = tuple[str | None, ...]
"""One record for one target: the texts of its sources, in the order of `sources_of`."""

_View = tuple[Any, StepBudget]
"""What the expressions of a record see, and what they may still cost."""


class _DocumentAt(NamedTuple):
    """A document of a message."""

    document: Slice
    sight: Sight | None
    """What expressions see of it; None where there are none."""
    first: int
    """The index of its first record in the message."""
    several: bool
    """The message may hold more than one record."""


Normalize = Callable[[str], str]
"""From a slice of JSON, not null, to the text that a field's converter takes."""
NORMALIZERS: Mapping[str, Normalize] = {
    "string": json_slices.string,
    "number": json_slices.number,
    "boolean": json_slices.boolean,
    "array": json_slices.array,
    "any": json_slices.anything,
    "number_text": json_slices.number_or_string,
    "boolean_text": json_slices.boolean_or_string,
    "scalar": json_slices.scalar_or_string,
    "json_text": json_slices.anything_or_string,
}
"""By the kind of JSON value. They raise PermanentFault `wrong_type`."""


class TargetRecords(NamedTuple):
    """The records of some messages for one target, column by column."""

    messages: Sequence[int]
    """For each the number of its message in the batch; they rise."""
    indexes: Sequence[int]
    """For each its index in the message, from 0."""
    columns: Sequence[Sequence[Any]]
    """For each source, in the order of `sources_of`, a text of each record; None: missing."""


class DecodedBatch:
    """The records of messages that were decoded together."""

    __slots__ = ("count", "targets")

    def __init__(self, count: int, targets: Sequence[TargetRecords]) -> None:
        """`count`: messages; some may be in no target."""
        self.count = count
        self.targets = targets

    def __repr__(self) -> str:
        return f"DecodedBatch({self.count})"

    def __rich_repr__(self) -> Any:
        yield self.count


class DecodedMessage(msgspec.Struct, gc=False, eq=False):
    """What one message holds: written as a whole or quarantined as a whole."""

    batch: DecodedBatch
    """Has its records."""
    number: int = 0
    """Its own in the batch."""
    several: bool = False
    """It may hold more than one record, so a fault names the record."""
    dropped: int = 0
    """Number of records that no route takes, where the settings drop those."""
    dropped_fields: Sequence[str] = ()
    """Sources that the settings drop, once for each document that has them."""
    event: str | None = None
    """The event id that the producer set in the field `ledger.dedupe_key`."""
    unknown: Sequence[UnknownShape] = ()
    """Members that no path of the mapping names."""
    message: Message | None = None
    """The message with the attributes that its envelope adds, if it adds any."""

    def __repr__(self) -> str:
        return f"DecodedMessage({self.number})"

    def __rich_repr__(self) -> Any:
        yield self.number


class Source(msgspec.Struct, frozen=True):
    """One source of a target, compiled."""

    name: str
    """The source, or a stand-in for a field without one (`settings.attribute_keys`)."""
    required: bool
    kind: str
    """What its value must be in JSON, as `FieldType.json_kind`; "none" without a source."""
    depth: int = 0
    """How many exploded arrays deep."""
    steps: tuple[str | int, ...] = ()
    """From there."""
    expression: str = ""
    """What makes its value instead of a path."""
    shown: str = ""
    """Its name in faults, if it is not `name`."""


def sources_of(target: Target) -> list[Source]:
    """Return the sources of a target, each once. Raises SettingsError `mixed_types`."""
    kinds: dict[str, str] = {}
    for field in target.fields:
        of_body = json_kind(field) if field.is_read else "none"
        for name in attribute_keys(field):
            kind = "none" if is_of_message(name) else of_body
            if kinds.setdefault(name, kind) != kind:
                raise SettingsError(
                    f"two fields read {name!r}, one as {kinds[name]} and one as {kind}",
                    code="mixed_types",
                    hint="a value has one JSON type: give both fields types of one kind, and the "
                    "same `from`, `format` and `map`",
                )
    made = {attribute_keys(field)[0]: field for field in target.fields if field.expression}
    names = [name for name, kind in kinds.items() if kind != "none" and name not in made]
    paths = source_paths.compile_sources(names, target.explode)
    sources: list[Source] = []
    for name, must in required_sources(target.fields).items():
        source = Source(name, False, "none")
        if name in paths:
            source = Source(name, must, kinds[name], paths[name].depth, paths[name].steps)
        elif name in made:
            field = made[name]
            source = Source(name, must, kinds[name], expression=field.expression, shown=field.name)
        sources.append(source)
    return sources


class DocumentReader:
    """Compiled from the mapping's targets: the JSON of a message in, its records out."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        unknown_fields: Literal["drop", "quarantine"] = "drop",
        unmatched: Literal["drop", "quarantine"] = "quarantine",
        dedupe_key: str = "",
        routed: bool = False,
        dropped: Sequence[str] = (),
        filters: Sequence[Filter] = (),
    ) -> None:
        """`routed`: a record goes only where a `when` holds. `dropped`: sources to ignore.
        `filters`: what says which records are dropped.

        Raises SettingsError.
        """
        self._filters = [(one.route, DocumentCondition(one.when)) for one in filters]
        read = syntaxes(targets, filters)
        self._viewer = Viewer(read) if read else None
        self._extractors = [_Extractor(target) for target in targets]
        self._always = [i for i, e in enumerate(self._extractors) if e.when is None and not routed]
        self._conditional = [
            (i, e.route, e.when) for i, e in enumerate(self._extractors) if e.when is not None
        ]
        self._otherwise = [i for i, e in enumerate(self._extractors) if routed and e.when is None]
        self._drop_unmatched = unmatched == "drop"
        self._dedupe = steps_of(dedupe_key) if dedupe_key else ()
        self._dedupe_key = dedupe_key
        self._dropped = {name: member_names(name) for name in dropped}
        self._known = (
            known_names(targets, dedupe_key, dropped, filters)
            if unknown_fields == "quarantine"
            else None
        )
        self.explodes = any(extractor.explodes for extractor in self._extractors)

    def read(self, records: Records) -> DecodedMessage:
        """Decode one message from its records as texts.

        Raises PermanentFault: `not_json`, `bad_unicode`, `too_deep`, `not_an_object`,
        `missing_field`, `empty_field`, `wrong_type`, `unknown_field`, `unmatched`,
        `too_many_records`, `condition_failed`, `expression_failed`, `expression_too_costly`,
        `out_of_range`.
        """
        documents = _parse(records)
        if isinstance(documents, PermanentFault):
            raise documents
        several = records.several or len(documents) > 1 or self.explodes
        found: list[list[tuple[int, Values]]] = [[] for _ in self._extractors]
        decoded = DecodedMessage(DecodedBatch(1, ()), several=several)
        index = 0
        names: list[str | None] = []
        budget = StepBudget(sum(map(len, records.texts)))
        for document in documents:
            if not document.is_object:
                raise located(PermanentFault("not_an_object"), index, several)
            sight = Sight(self._viewer, document.text, budget) if self._viewer else None
            place = _DocumentAt(document, sight, index, several)
            filtered = any(_holds(when, route, place) for route, when in self._filters)
            is_known = filtered or self._known is None or not has_unknown(document, self._known)
            if not is_known:
                raise located(PermanentFault("unknown_field"), index, several)
            has = [name for name, steps in self._dropped.items() if exists(document, steps)]
            decoded.dropped_fields = [*decoded.dropped_fields, *has]
            if self._dedupe:
                names.append(self._event_name(document, index, several))
            taken = () if filtered else self._taken(place)
            index = self._extract(place, taken, decoded, found)
            if index > RECORDS_MAX:
                raise PermanentFault("too_many_records")
        decoded.event = joined_event(names)
        decoded.batch.targets = list(map(_columns, found))
        return decoded

    def _extract(
        self,
        place: _DocumentAt,
        taken: Sequence[int],
        decoded: DecodedMessage,
        found: Sequence[list[tuple[int, Values]]],
    ) -> int:
        """Add a document's records to those of each target that takes it; none: it is dropped.

        Return the index of the next record.
        """
        decoded.dropped += not taken
        most = 1
        for target in taken:
            records = self._extractors[target].records(place)
            found[target].extend(enumerate(records, place.first))
            most = max(most, len(records))
        return place.first + most

    def _taken(self, place: _DocumentAt) -> Sequence[int]:
        """Return the targets that take a document; none where it is dropped."""
        conditional = (i for i, route, when in self._conditional if _holds(when, route, place))
        taken = [*self._always, *conditional] or self._otherwise
        if not taken and not self._drop_unmatched:
            raise located(PermanentFault("unmatched"), place.first, place.several)
        return taken

    def _event_name(self, document: Slice, index: int, several: bool) -> str | None:
        name = _normalized(document, self._dedupe, json_slices.event_name)
        if isinstance(name, PermanentFault):
            raise located(name, index, several, self._dedupe_key)
        return name or None


class _Extractor:
    """For one target: which documents it takes, and the records that they have for it."""

    def __init__(self, target: Target) -> None:
        self.when = DocumentCondition(target.when) if target.when else None
        self.route = target.route
        self._explode = source_paths.explode_steps(target.explode)
        self._explode_name = target.explode
        self.explodes = bool(self._explode)
        self._sources = sources_of(target)
        self._evaluate = evaluators(
            [(s.name, s.expression, NORMALIZERS[s.kind]) for s in self._sources if s.expression]
        )
        self._narrowed = self._explode if reads_element(target) else ()

    def records(self, place: _DocumentAt) -> list[Values]:
        """Return the document's records. Raises PermanentFault that names field and record."""
        document, sight, first, several = place
        found = self._scopes(document)
        if isinstance(found, PermanentFault):
            raise located(found, first, several, self._explode_name)
        seen = self._views(sight, len(found))
        if isinstance(seen, PermanentFault):
            raise located(seen, first, several)
        return [
            self._read_record(scope, view, first + i, several)
            for i, (scope, view) in enumerate(zip(found, seen, strict=True))
        ]

    def _views(self, sight: Sight | None, count: int) -> Sequence[_View | None] | PermanentFault:
        """Return what the expressions see of each record."""
        if sight is None or not self._evaluate:
            return [None] * count
        if not self._narrowed:
            return [(sight.document, sight.budget)] * count
        try:
            seen = list(views(sight.document, self._narrowed, sight.budget))
        except PermanentFault as fault:
            return fault.with_traceback(None)
        return [(view, sight.budget) for view in seen]

    def _scopes(self, document: Slice) -> list[tuple[Slice, ...]] | PermanentFault:
        try:
            found = list(islice(scopes(document, self._explode), RECORDS_MAX + 1))
        except PermanentFault as fault:
            return fault.with_traceback(None)
        return found if len(found) <= RECORDS_MAX else PermanentFault("too_many_records")

    def _read_record(
        self, scope: tuple[Slice, ...], view: _View | None, index: int, several: bool
    ) -> Values:
        values: list[str | None] = []
        for source in self._sources:
            if source.kind == "none":
                values.append(str(index) if source.name == RECORD_INDEX else None)
                continue
            text = self._text(source, scope, view)
            if source.required and not text and not isinstance(text, PermanentFault):
                text = PermanentFault("missing_field" if text is None else "empty_field")
            if isinstance(text, PermanentFault):
                raise located(text, index, several, source.shown or source.name)
            values.append(text)
        return tuple(values)

    def _text(
        self, source: Source, scope: tuple[Slice, ...], view: _View | None
    ) -> str | PermanentFault | None:
        evaluate = self._evaluate.get(source.name)
        if evaluate is None or view is None:
            return _normalized(scope[source.depth], source.steps, NORMALIZERS[source.kind])
        try:
            return evaluate(*view)
        except PermanentFault as fault:
            return fault.with_traceback(None)


def _holds(when: DocumentCondition, route: str, place: _DocumentAt) -> bool:
    """Whether a condition holds for a document. Raises PermanentFault that names the route."""
    try:
        return when.holds(place.document, place.sight)
    except PermanentFault as raised:
        fault = raised.with_traceback(None)
    raise located(fault, place.first, place.several, route)


def steps_of(text: str) -> tuple[str | int, ...]:
    """Return the steps of a path from the document's top, through no exploded array."""
    return source_paths.compile_sources([text])[text].steps


def joined_event(names: Sequence[str | None]) -> str | None:
    """Return the event id of a message, from those of its documents; None where one has none."""
    if not names or None in names:
        return None
    return "\x1f".join(name for name in names if name)


def located(fault: PermanentFault, index: int, several: bool, name: str = "") -> PermanentFault:
    """Return the fault with its place: the record's index if there may be several, the field."""
    detail = " ".join(filter(None, (f"record {index}" if several else "", name)))
    return PermanentFault(fault.code, detail, stage=fault.stage)


def _columns(records: Sequence[tuple[int, Values]]) -> TargetRecords:
    """Return the records of one message, each with its index, column by column."""
    if not records:
        return TargetRecords((), (), ())
    indexes, values = zip(*records, strict=True)
    return TargetRecords([0] * len(indexes), indexes, list(zip(*values, strict=True)))


def _parse(records: Records) -> list[Slice] | PermanentFault:
    documents: list[Slice] = []
    try:
        for text in records.texts:
            documents.append(json_slices.parse(text))  # noqa: PERF401 - its length is wanted below
    except PermanentFault as fault:
        return located(fault, len(documents), records.lines)
    return documents


def _normalized(
    scope: Slice, steps: Sequence[str | int], normalize: Normalize
) -> str | PermanentFault | None:
    # Returned, not raised: a fault raised while another is handled would keep that one, and the
    # value with it, as its context.
    try:
        value = scope.read(steps)
        return None if value is None else normalize(value.text)
    except PermanentFault as fault:
        return fault.with_traceback(None)
