"""Mapping: messages -> rows, compiled from the settings and the targets' columns.

    envelope ─▶ decode.py, or documents.py for what that leaves ─▶ transform.py

Promises: a message gives all of its rows or one PermanentFault. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, compress
from operator import attrgetter
from typing import NamedTuple, cast

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.budget import RECORD_BYTES, UNBOUNDED, Budget, Meter, budget_of
from sqs2pg.mapping.column_cells import Cell
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.decode import TypedReader
from sqs2pg.mapping.document_types import NoTypesError
from sqs2pg.mapping.documents import (
    DecodedBatch,
    DecodedMessage,
    DocumentReader,
    TargetRecords,
    located,
    sources_of,
)
from sqs2pg.mapping.envelope import Envelope, Opened
from sqs2pg.mapping.envelope.records import Records
from sqs2pg.mapping.originals import Originals
from sqs2pg.mapping.transform import Transformer
from sqs2pg.mapping.unknown_members import UnknownMembers, UnknownShape
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.message import Message, MessageAttribute, Row, TargetLines
from sqs2pg.settings import Settings, Target, read_of_message, required_sources

_message_id = attrgetter("message_id")
_body = attrgetter("body")
_batch = attrgetter("batch")
_number = attrgetter("number")

Decoded = DecodedMessage
"""What a mapping decoded one message to. Only the mapping that made it can read it."""


class MessageMapping:
    """From messages to rows, in two steps, so that decoding faults are known before masking."""

    def __init__(
        self,
        settings: Settings,
        columns: Sequence[Sequence[Column]],
        masks: Sequence[Sequence[Operator | Mask | None]],
    ) -> None:
        """See `compile_mapping`."""
        self._envelope = Envelope(settings.envelope.of_units)
        self._drops = bool(settings.dropped)
        self._mark = _record_mark(settings.targets)
        self._reads_attributes = any(map(read_of_message, settings.fields))
        self._unknown = UnknownMembers(settings)
        self._documents = DocumentReader(
            settings.targets,
            unknown_fields=settings.unknown_fields,
            unmatched="drop" if settings.drops_unmatched else "quarantine",
            dedupe_key=settings.ledger.dedupe_key,
            routed=settings.routed,
            dropped=settings.dropped,
            filters=settings.filters,
        )
        try:
            self._typed: TypedReader | None = TypedReader(settings)
        except NoTypesError:
            self._typed = None
        text_max = budget_of(settings).text_max
        self.transformers = [
            Transformer(
                target.fields, its_columns, its_masks, _subject(settings, target), text_max, number
            )
            for number, (target, its_columns, its_masks) in enumerate(
                zip(settings.targets, columns, masks, strict=True)
            )
        ]
        """By target."""

    def decode_all(
        self, messages: Sequence[Message], budget: Budget = UNBOUNDED
    ) -> list[Decoded | PermanentFault]:
        """Decode a batch; return each message's records, or its fault.

        Of a batch that does not fit the budget, decode the first messages: at least one.
        """
        meter = Meter(budget, self._mark)
        decoded = self._decode_fitting(messages, meter)
        if 0 < budget.bytes_max < meter.spread:
            del decoded[_fitting(decoded, budget) :]
        return decoded

    def _decode_fitting(
        self, messages: Sequence[Message], meter: Meter
    ) -> list[Decoded | PermanentFault]:
        if self._envelope.is_plain and self._typed is not None:
            texts = list(map(_body, messages))  # `_open` of each would give the same
            if self._mark:
                texts = texts[: next((i for i, t in enumerate(texts, 1) if meter.add((t,))), None)]
            read, may_have_unknown = self._typed.read(texts, range(len(texts)), len(texts))
            decoded = cast("list[Decoded | PermanentFault]", read)
            if None in read:
                decoded = [
                    self._read(Opened(Records([text], several=False), {})) if unit is None else unit
                    for text, unit in zip(texts, read, strict=True)
                ]
            self._add_unknown(decoded, {i: (texts[i],) for i in may_have_unknown})
            return decoded
        opened = self._open_fitting(messages, meter)
        messages = messages[: len(opened)]
        units, may_have_unknown = self._read_all(opened)
        decoded = [
            one
            if isinstance(one, PermanentFault)
            else self._completed(self._read(one) if unit is None else unit, message, one)
            for message, one, unit in zip(messages, opened, units, strict=True)
        ]
        those = [(i, opened[i]) for i in may_have_unknown]
        self._add_unknown(
            decoded, {i: one.records.texts for i, one in those if isinstance(one, Opened)}
        )
        return decoded

    def decode(self, message: Message) -> Decoded:
        """Decode one message. Raises PermanentFault."""
        [decoded] = self.decode_all([message])
        if isinstance(decoded, PermanentFault):
            raise decoded
        return decoded

    def unknown_in(self, message: Message) -> Sequence[UnknownShape]:
        """Return the members of a message that no path names, though it has a fault."""
        opened = self._open(message)
        return (
            () if isinstance(opened, PermanentFault) else self._unknown.find(opened.records.texts)
        )

    def _add_unknown(
        self,
        decoded: Sequence[Decoded | PermanentFault],
        texts: Mapping[int, Sequence[str]],
    ) -> None:
        """Count the unknown members of some units, by their index the documents of each."""
        if not texts:
            return
        for index, found in zip(texts, self._unknown.find_each([*texts.values()]), strict=True):
            unit = decoded[index]
            if found and isinstance(unit, DecodedMessage):
                unit.unknown = found

    def size_of(self, decoded: Decoded) -> int:
        """Return what one message that was decoded alone counts in a budget, in bytes."""
        return sum(
            RECORD_BYTES + sum(len(value) for value in values if isinstance(value, str))
            for target in decoded.batch.targets
            for values in zip(*target.columns, strict=True)
        )

    def event(self, decoded: Decoded) -> str | None:
        """Return the event id that the producer set in the field `ledger.dedupe_key`."""
        return decoded.event

    def count_dropped(self, decoded: Sequence[Decoded]) -> Mapping[str, int]:
        """Return how many records had each field that the settings drop, by its source."""
        if not self._drops:
            return {}
        return Counter(name for unit in decoded for name in unit.dropped_fields)

    def rows(
        self,
        keys: Sequence[str],
        messages: Sequence[Message],
        decoded: Sequence[Decoded],
        originals: Originals | None = None,
    ) -> list[Row | PermanentFault]:
        """Return each message's row, masked, or the fault of its first bad record.

        What the vault is to seal is added to `originals`: nothing of a message at fault.
        """
        given = messages
        if not self._envelope.is_plain:
            given = [unit.message or one for unit, one in zip(decoded, messages, strict=True)]
        groups = _groups(decoded)
        made = [
            self._lines(target, given, groups, originals)
            for target in range(len(self.transformers))
        ]
        usual = len(made) == 1 and made[0].messages == range(len(messages))
        if usual and set(map(type, made[0].lines)) <= {str}:  # one line for each message
            return list(
                map(Row, keys, map(_message_id, messages), cast("list[str]", made[0].lines))
            )
        rows = _rows(keys, messages, decoded, made)
        if originals is not None:
            # Only now is it known: one record may have a fault, or one target's.
            pairs = zip(given, rows, strict=True)
            originals.leave_out(message for message, row in pairs if not isinstance(row, Row))
        return rows

    def _open_fitting(
        self, messages: Sequence[Message], meter: Meter
    ) -> list[Opened | PermanentFault]:
        opened: list[Opened | PermanentFault] = []
        for message in messages:
            opened.append(self._open(message))
            if isinstance(opened[-1], Opened) and meter.add(opened[-1].records.texts):
                break
        return opened

    def _open(self, message: Message) -> Opened | PermanentFault:
        try:
            return self._envelope.open(message)
        except PermanentFault as fault:
            # The traceback refers to this frame, and the frame to the fault: only the cyclic
            # collector could free the batch.
            return fault.with_traceback(None)

    def _read_all(
        self, opened: Sequence[Opened | PermanentFault]
    ) -> tuple[Sequence[Decoded | None], list[int]]:
        """Return what messages hold, None of those that `documents.py` must read.

        Then the messages that may have unknown members.
        """
        if self._typed is None:
            return [None] * len(opened), list(range(len(opened)))
        texts: list[str] = []
        messages: list[int] = []  # of a message that has no texts, nothing is found
        for number, one in enumerate(opened):
            if isinstance(one, Opened):
                texts += one.records.texts
                messages += [number] * len(one.records.texts)
        return self._typed.read(texts, messages, len(opened))

    def _read(self, opened: Opened) -> Decoded | PermanentFault:
        try:
            return self._documents.read(opened.records)
        except PermanentFault as fault:
            return fault.with_traceback(None)

    def _completed(
        self, decoded: Decoded | PermanentFault, message: Message, opened: Opened
    ) -> Decoded | PermanentFault:
        """Add what only the envelope knows."""
        if isinstance(decoded, DecodedMessage):
            records = opened.records
            decoded.several = decoded.several or records.several or len(records.texts) > 1
            if opened.attributes and self._reads_attributes:
                decoded.message = _with_attributes(message, opened.attributes)
        return decoded

    def _lines(
        self,
        target: int,
        messages: Sequence[Message],
        groups: Sequence[tuple[DecodedBatch, Mapping[int, int] | None]],
        originals: Originals | None,
    ) -> _Lines:
        """Return the lines that the messages' records have for a target."""
        chosen = [_chosen(batch.targets[target], places) for batch, places in groups]
        chosen = [its for its in chosen if its.messages]
        if not chosen:
            return _Lines((), (), ())
        its = chosen[0]
        if len(chosen) > 1:
            numbers, indexes, columns = zip(*chosen, strict=True)
            joined = [list(chain.from_iterable(each)) for each in zip(*columns, strict=True)]
            its = TargetRecords(
                list(chain.from_iterable(numbers)), list(chain.from_iterable(indexes)), joined
            )
        of = messages
        if its.messages != range(len(messages)):
            of = list(map(messages.__getitem__, its.messages))
        lines = self.transformers[target].lines(of, its.columns, originals)
        return _Lines(its.messages, its.indexes, lines)


def _record_mark(targets: Sequence[Target]) -> str:
    """Return what stands in a document at least once for each of its records but one.

    Empty where a document is one record. Elements with fields inside are objects.
    """
    exploded = [target for target in targets if target.explode]
    if not exploded:
        return ""
    inside = all(any(source.depth for source in sources_of(target)) for target in exploded)
    return "{" if inside else ","


def _fitting(decoded: Sequence[Decoded | PermanentFault], budget: Budget) -> int:
    """Return how many of the messages fit the budget by the length of their values; at least one.

    For messages whose rows may repeat long values.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    for batch in {unit.batch for unit in decoded if isinstance(unit, DecodedMessage)}:
        for messages, _, columns in batch.targets:
            for column in columns:
                for number, value in zip(messages, column, strict=True):
                    if isinstance(value, str):
                        sizes[id(batch), number] += len(value)
    total = 0
    for taken, unit in enumerate(decoded, 1):
        if isinstance(unit, DecodedMessage):
            total += sizes[id(unit.batch), unit.number]
        if total >= budget.bytes_max:
            return taken
    return len(decoded)


def _groups(
    decoded: Sequence[Decoded],
) -> Sequence[tuple[DecodedBatch, Mapping[int, int] | None]]:
    """Return the batches in which messages were decoded, each with their places in `decoded`.

    Places are by the number in the batch; None: every message is here, in the batch's order.
    """
    batches = set(map(_batch, decoded))
    if len(batches) == 1:
        [batch] = batches
        if list(map(_number, decoded)) == list(range(batch.count)):
            return [(batch, None)]
    groups: dict[DecodedBatch, dict[int, int]] = {}
    for place, unit in enumerate(decoded):
        groups.setdefault(unit.batch, {})[unit.number] = place
    return list(groups.items())


def _chosen(its: TargetRecords, places: Mapping[int, int] | None) -> TargetRecords:
    """Return the records of the messages that have a place, by which they are then known."""
    if places is None:
        return its
    here = [number in places for number in its.messages]
    return TargetRecords(
        [places[number] for number in compress(its.messages, here)],
        list(compress(its.indexes, here)),
        [list(compress(column, here)) for column in its.columns],
    )


class _Lines(NamedTuple):
    """The lines for one target."""

    messages: Sequence[int]
    """For each the place of its message."""
    indexes: Sequence[int]
    """For each the index of its record in the message."""
    lines: Sequence[Cell]


def _rows(
    keys: Sequence[str],
    messages: Sequence[Message],
    decoded: Sequence[Decoded],
    made: Sequence[_Lines],
) -> list[Row | PermanentFault]:
    """Put the lines of each message together, those of its targets in their order."""
    texts: list[dict[int, list[str]]] = [{} for _ in messages]
    faults: dict[int, tuple[int, PermanentFault]] = {}
    for target, its in enumerate(made):
        for number, index, line in zip(*its, strict=True):
            if isinstance(line, str):
                texts[number].setdefault(target, []).append(line)
            elif number not in faults or index < faults[number][0]:
                faults[number] = (index, line)
    rows: list[Row | PermanentFault] = []
    for number, (key, message, unit) in enumerate(zip(keys, messages, decoded, strict=True)):
        if number in faults:
            index, fault = faults[number]
            rows.append(located(fault, index, unit.several, fault.detail))
        else:
            rows.append(_row(key, message.message_id, texts[number], unit.dropped))
    return rows


def _row(key: str, message_id: str, texts: Mapping[int, list[str]], dropped: int) -> Row:
    parts = [TargetLines(target, "".join(lines), len(lines)) for target, lines in texts.items()]
    first = parts[0] if parts else TargetLines(0, "", 0)
    return Row(key, message_id, first.text, first.count, first.target, tuple(parts[1:]), dropped)


def _with_attributes(message: Message, added: Mapping[str, str]) -> Message:
    """Return the message with the attributes that its envelope adds, for defaults to read."""
    attributes = dict(message.message_attributes or {})
    attributes.update({name: MessageAttribute("String", text) for name, text in added.items()})
    return msgspec.structs.replace(message, message_attributes=attributes, payload=None)


def _subject(settings: Settings, target: Target) -> str:
    """Return the source of the person's id in the target; "" where nothing is sealed."""
    subject = settings.vault.subject
    if not settings.vault.enabled or not any(field.recover for field in target.fields):
        return ""
    if subject not in required_sources(target.fields):
        raise SettingsError(
            f"no field of table {target.table} has the person's id",
            code="no_subject_column",
            hint=f"map {subject!r} (vault.subject) to one of its columns, or recover nothing there",
        )
    return subject


def compile_mapping(
    settings: Settings,
    columns: Sequence[Sequence[Column]],
    masks: Sequence[Sequence[Operator | Mask | None]],
) -> MessageMapping:
    """Return the mapping of the settings' targets.

    `columns[t]` and `masks[t]` are those of the fields of target t. Raises SettingsError where they
    do not fit together.
    """
    return MessageMapping(settings, columns, masks)
