"""Documents: a message's JSON of any shape -> the records of each target.

The general case; `decode.py` is for messages whose fields are all strings at the top. Numbers keep
every digit: they stay text from the JSON to the column.

Promises, as `decode.py`: records of the mapping's fields, or a PermanentFault with a code and at
most a name of the mapping and the index of a record; never a value. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Literal, cast

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.decode import UNREADABLE, unreadable, without_mark
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.message import Message, Record
from sqs2pg.settings import (
    RECORD_INDEX,
    Field,
    Target,
    When,
    attribute_key,
    required_sources,
    source_paths,
)

RECORDS_MAX = 100_000
"""Most records of one message: a megabyte of `1,1,1,…` must not become a million rows."""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


class ExtractedRecord(msgspec.Struct, gc=False, eq=False):
    """One record and where it goes."""

    target: int
    """Index among the mapping's targets."""
    index: int
    """Index among the records of its message, from 0."""
    record: Record

    def __repr__(self) -> str:
        return f"ExtractedRecord({self.target}, {self.index})"

    def __rich_repr__(self) -> Any:
        yield self.index


class DecodedMessage(msgspec.Struct, gc=False, eq=False):
    """The records of one message: written as a whole or quarantined as a whole."""

    extracts: list[ExtractedRecord]
    dropped: int = 0
    """Number of records that no route takes, where the settings drop those."""
    dropped_fields: list[str] = msgspec.field(default_factory=list)
    """Sources that the settings drop, once for each document that has them."""
    several: bool = False
    """It may hold more than one record, so a fault names the record."""
    message: Message | None = None
    """The message with the attributes that its envelope adds, if it adds any."""
    event: str | None = None
    """The event id that the producer set in the field `ledger.dedupe_key`."""


class DocumentReader:
    """Compiled from the mapping's targets: documents in, decoded messages out."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        unknown_fields: Literal["drop", "quarantine"] = "drop",
        unmatched: Literal["drop", "quarantine"] = "quarantine",
        dedupe_key: str = "",
        routed: bool = False,
        dropped: Sequence[str] = (),
    ) -> None:
        """`routed`: a record goes only where a `when` holds. `dropped`: sources to ignore.

        Raises SettingsError.
        """
        self._extractors = [_Extractor(target) for target in targets]
        self.attributes = [extractor.attributes for extractor in self._extractors]
        """For each target: source name -> attribute of its records."""
        self._always = [i for i, e in enumerate(self._extractors) if e.when is None and not routed]
        self._conditional = [i for i, e in enumerate(self._extractors) if e.when is not None]
        self._otherwise = [i for i, e in enumerate(self._extractors) if routed and e.when is None]
        self._drop_unmatched = unmatched == "drop"
        self._dedupe = _steps(dedupe_key) if dedupe_key else ()
        self._dedupe_key = dedupe_key
        self._dropped = {name: _member_names(name) for name in dropped}
        self._known = (
            _known_names(targets, dedupe_key, dropped) if unknown_fields == "quarantine" else None
        )

    def read(self, documents: Sequence[Any], *, several: bool = False) -> DecodedMessage:
        """Decode one message from its documents, each a decoded JSON value.

        `several`: the envelope allows any number of documents. Raises PermanentFault:
        `not_an_object`, `missing_field`, `empty_field`, `wrong_type`, `unknown_field`,
        `unmatched`, `too_many_records`.
        """
        decoded = DecodedMessage([], several=several or len(documents) > 1)
        decoded.several = decoded.several or any(e.explodes for e in self._extractors)
        index = 0
        names: list[str | None] = []
        for document in documents:
            if type(document) is not dict:
                raise located(PermanentFault("not_an_object"), index, decoded.several)
            if self._known is not None:
                self._refuse_unknown(document, self._known, index, decoded.several)
            for name, steps in self._dropped.items():
                if _exists(document, steps):
                    decoded.dropped_fields.append(name)
            if self._dedupe:
                names.append(self._event_name(document, index, decoded.several))
            index = self._extract(document, decoded, index)
            if index > RECORDS_MAX:
                raise PermanentFault("too_many_records")
        if names and None not in names:
            decoded.event = "\x1f".join(name for name in names if name)
        return decoded

    def _extract(self, document: Any, decoded: DecodedMessage, first: int) -> int:
        """Add the document's records; return the index of the next one."""
        taken = [
            *self._always,
            *(i for i in self._conditional if self._extractors[i].takes(document)),
        ]
        taken = taken or self._otherwise
        if not taken:
            if not self._drop_unmatched:
                raise located(PermanentFault("unmatched"), first, decoded.several)
            decoded.dropped += 1
            return first + 1
        most = 0
        for target in taken:
            records = self._extractors[target].records(document, first, decoded.several)
            decoded.extracts += [
                ExtractedRecord(target, first + i, record) for i, record in enumerate(records)
            ]
            most = max(most, len(records))
        return first + max(most, 1)

    def _event_name(self, document: Any, index: int, several: bool) -> str | None:
        name = _normalized(document, self._dedupe, _event_text)
        if isinstance(name, PermanentFault):
            raise located(name, index, several, self._dedupe_key)
        return name or None

    def _refuse_unknown(self, value: Any, known: _KnownNames, index: int, several: bool) -> None:
        if type(value) is list:
            for element in value:
                self._refuse_unknown(element, known, index, several)
        elif type(value) is dict and known.members is not None:
            for name, inner in value.items():
                below = known.members.get(name)
                if below is None:
                    raise located(PermanentFault("unknown_field"), index, several)
                self._refuse_unknown(inner, below, index, several)


def parse(body: str | bytes) -> Any:
    """Return the JSON value of a body, numbers exact: int or Decimal.

    Raises PermanentFault: `not_json`, `bad_unicode`, `too_deep`; `out_of_range` for a whole number
    of over 4,300 digits.
    """
    try:
        return _decode(without_mark(body))
    except UNREADABLE as error:
        fault = unreadable(error)
    # Raised here, so that the fault has no `__context__`: those exceptions hold the body.
    try:
        raise fault
    finally:
        del fault


class _Extractor:
    """For one target: whether it takes a document, and the document's records for it."""

    def __init__(self, target: Target) -> None:
        self.when = target.when
        self._condition = _condition(target.when) if target.when else None
        self._explode = source_paths.explode_steps(target.explode)
        self._explode_name = target.explode
        self.explodes = bool(self._explode)
        required = required_sources(target.fields)
        kinds: dict[str, str] = {}
        for field in target.fields:
            source = attribute_key(field)
            kind = _kind(field)
            if kinds.setdefault(source, kind) != kind:
                raise SettingsError(
                    f"two fields read {source!r}, one as {kinds[source]} and one as {kind}",
                    code="mixed_types",
                    hint="a value has one JSON type: give both fields types of one kind",
                )
        self.attributes = {source: f"f{index}" for index, source in enumerate(required)}
        compiled = source_paths.compile_sources(
            [s for s in required if kinds[s] != "none"], target.explode
        )
        self._readers: list[tuple[str, int, tuple[str | int, ...], _Normalize, bool]] = [
            (
                source,
                compiled[source].depth if source in compiled else -1,
                compiled[source].steps if source in compiled else (),
                _NORMALIZERS[kinds[source]],
                must,
            )
            for source, must in required.items()
        ]
        self._record = cast(
            "Callable[..., Record]",
            msgspec.defstruct(
                "MappedRecord",
                [(attribute, str | None, None) for attribute in self.attributes.values()],
                bases=(Record,),
                gc=False,
                eq=False,
            ),
        )

    def takes(self, document: Any) -> bool:
        """Whether the route's condition holds for a document."""
        return self._condition is None or self._condition(document)

    def records(self, document: Any, first: int, several: bool) -> list[Record]:
        """Return the document's records. Raises PermanentFault that names field and record."""
        records: list[Record] = []
        found = self._scopes(document)
        if isinstance(found, PermanentFault):
            raise located(found, first, several, self._explode_name)
        for scope in found:
            records.append(self._read_record(scope, first + len(records), several))
        return records

    def _scopes(self, document: Any) -> list[tuple[Any, ...]] | PermanentFault:
        try:
            found = list(islice(source_paths.scopes(document, self._explode), RECORDS_MAX + 1))
        except PermanentFault as fault:
            return fault.with_traceback(None)
        return found if len(found) <= RECORDS_MAX else PermanentFault("too_many_records")

    def _read_record(self, scope: tuple[Any, ...], index: int, several: bool) -> Record:
        values: list[str | None] = []
        for source, depth, steps, normalize, must in self._readers:
            if depth < 0:
                values.append(str(index) if source == RECORD_INDEX else None)
                continue
            text = _normalized(scope[depth], steps, normalize)
            if isinstance(text, PermanentFault):
                raise located(text, index, several, source)
            if must and not text:
                code = "missing_field" if text is None else "empty_field"
                raise located(PermanentFault(code), index, several, source)
            values.append(text)
        return self._record(*values)


def _normalized(
    scope: Any, steps: Sequence[str | int], normalize: _Normalize
) -> str | PermanentFault | None:
    # Returned, not raised: a fault raised while another is handled would keep that one, and the
    # value with it, as its context.
    try:
        value = source_paths.read(scope, steps)
        return None if value is None else normalize(value)
    except PermanentFault as fault:
        return fault.with_traceback(None)


def located(fault: PermanentFault, index: int, several: bool, name: str = "") -> PermanentFault:
    """Return the fault with its place: the record's index if there may be several, the field."""
    detail = " ".join(filter(None, (f"record {index}" if several else "", name)))
    return PermanentFault(fault.code, detail, stage=fault.stage)


def _kind(field: Field) -> str:
    return FIELD_TYPES[field.type].json_kind if field.source else "none"


_Normalize = Callable[[Any], str]


def _string(value: Any) -> str:
    if type(value) is not str:
        raise PermanentFault("wrong_type")
    return value


def _number(value: Any) -> str:
    if type(value) is not int and type(value) is not Decimal:
        raise PermanentFault("wrong_type")
    return str(value)


def _boolean(value: Any) -> str:
    if type(value) is not bool:
        raise PermanentFault("wrong_type")
    return "true" if value else "false"


def _event_text(value: Any) -> str:
    return str(value) if type(value) is int else _string(value)


def _any(value: Any) -> str:
    return _encode(value).decode()


_NORMALIZERS: dict[str, _Normalize] = {
    "string": _string,
    "number": _number,
    "boolean": _boolean,
    "any": _any,
    "none": _any,
}


def _condition(when: When) -> Callable[[Any], bool]:
    steps = _steps(when.field)
    wanted = list(when.any_of) + ([when.equals] if when.equals is not None else [])
    exists = when.exists

    def holds(document: Any) -> bool:
        try:
            value = source_paths.read(document, steps)
        except PermanentFault:
            value = None
        if exists is not None and (value is not None) is not exists:
            return False
        return not wanted or any(_same(value, one) for one in wanted)

    return holds


def _steps(text: str) -> tuple[str | int, ...]:
    """Return the steps of a path from the document's top, through no exploded array."""
    return source_paths.compile_sources([text])[text].steps


def _same(value: Any, wanted: Any) -> bool:
    # In JSON, true is not 1. In Python, True == 1.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


class _KnownNames(msgspec.Struct):
    """The member names that a mapping reads at one point of a document; None: any name."""

    members: dict[str, _KnownNames] | None


def _member_names(path: str) -> list[str]:
    return [step for step in source_paths.parse(path) if isinstance(step, str)]


def _exists(value: Any, names: Sequence[str]) -> bool:
    """Whether a path exists, in any element of the arrays on its way."""
    if type(value) is list:
        return any(_exists(element, names) for element in value)
    if not names:
        return True
    return type(value) is dict and names[0] in value and _exists(value[names[0]], names[1:])


def _known_names(
    targets: Sequence[Target], dedupe_key: str, dropped: Sequence[str] = ()
) -> _KnownNames:
    root = _KnownNames({})
    texts = [dedupe_key, *dropped] if dedupe_key else list(dropped)
    for target in targets:
        texts += [field.source for field in target.fields if field.source]
        texts += [target.explode] if target.explode else []
        texts += [target.when.field] if target.when else []
    for text in texts:
        steps = _member_names(text)
        at = root
        for step in steps:
            if at.members is None:
                break
            at = at.members.setdefault(step, _KnownNames({}))
        if not steps:
            root.members = None
    for target in targets:
        for field in target.fields:
            if field.type == "jsonb" and field.source:
                _allow_all_below(root, _member_names(field.source))
    for name in dropped:
        _allow_all_below(root, _member_names(name))
    return root


def _allow_all_below(at: _KnownNames, steps: Sequence[str]) -> None:
    """Allow any name below a path: the field takes all of it."""
    for step in steps:
        if at.members is None:
            return
        at = at.members[step]
    at.members = None
