"""Mapping: messages -> rows, compiled from the settings and the targets' columns.

There are two implementations of one protocol. `FlatMapping` is for one target whose fields are all
strings at the top of the document: msgspec decodes them in one pass by a compiled schema.
`DocumentMapping` is for everything else: nested documents, numbers, several records per message,
several targets.

Promises: a message gives all of its rows or one PermanentFault. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol, cast

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.decode import Decoder
from sqs2pg.mapping.documents import DecodedMessage, DocumentReader, located
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.mapping.originals import Originals
from sqs2pg.mapping.transform import Transformer
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.message import Message, MessageAttribute, Record, Row, TargetLines
from sqs2pg.settings import Settings, Target, source_paths

_message_id = attrgetter("message_id")

Decoded = Any
"""What a mapping decoded one message to. Only the mapping that made it can read it."""


class MessageMapping(Protocol):
    """From messages to rows, in two steps, so that decoding faults are known before masking."""

    def decode_all(self, messages: Sequence[Message]) -> list[Decoded | PermanentFault]:
        """Decode a batch; return each message's records, or its fault."""

    def decode(self, message: Message) -> Decoded:
        """Decode one message. Raises PermanentFault."""

    def event(self, decoded: Decoded) -> str | None:
        """Return the event id that the producer set in the field `ledger.dedupe_key`."""

    def count_dropped(self, decoded: Sequence[Decoded]) -> Mapping[str, int]:
        """Return how many records had each field that the settings drop, by its source."""

    def rows(
        self,
        keys: Sequence[str],
        messages: Sequence[Message],
        decoded: Sequence[Decoded],
        originals: Originals | None = None,
    ) -> list[Row | PermanentFault]:
        """Return each message's row, masked, or the fault of its first bad record.

        What the vault is to seal is added to `originals`.
        """


class FlatMapping:
    """One target, one record per message, strings at the top of the document."""

    def __init__(
        self, settings: Settings, columns: Sequence[Column], masks: Sequence[Operator | Mask | None]
    ) -> None:
        [target] = settings.targets
        self.decoder = Decoder(
            target.fields,
            settings.unknown_fields,
            settings.ledger.dedupe_key,
            settings.dropped,
        )
        self.count_dropped = self.decoder.count_dropped
        attributes = self.decoder.attributes
        subject = _subject(settings, target, attributes)
        self.transformer = Transformer(target.fields, columns, attributes, masks, subject)

    def decode_all(self, messages: Sequence[Message]) -> list[Record | PermanentFault]:
        """See MessageMapping."""
        return _decode_all(self.decode, messages)

    def decode(self, message: Message) -> Record:
        """See MessageMapping."""
        return self.decoder.decode(message.body)

    def event(self, decoded: Record) -> str | None:
        """See MessageMapping."""
        return self.decoder.dedupe_value(decoded)

    def rows(
        self,
        keys: Sequence[str],
        messages: Sequence[Message],
        decoded: Sequence[Record],
        originals: Originals | None = None,
    ) -> list[Row | PermanentFault]:
        """See MessageMapping."""
        lines = self.transformer.lines(messages, decoded, originals)
        if set(map(type, lines)) == {str}:
            return list(map(Row, keys, map(_message_id, messages), cast("list[str]", lines)))
        return [
            Row(key, message.message_id, line) if isinstance(line, str) else line
            for key, message, line in zip(keys, messages, lines, strict=True)
        ]


class DocumentMapping:
    """Several targets, or records of any shape and number."""

    def __init__(
        self,
        settings: Settings,
        columns: Sequence[Sequence[Column]],
        masks: Sequence[Sequence[Operator | Mask | None]],
    ) -> None:
        self.reader = DocumentReader(
            settings.targets,
            unknown_fields=settings.unknown_fields,
            unmatched=settings.unmatched,
            dedupe_key=settings.ledger.dedupe_key,
            routed=bool(settings.route),
            dropped=settings.dropped,
        )
        self.envelope = Envelope(settings.envelope)
        self.transformers = [
            Transformer(
                target.fields,
                its_columns,
                attributes,
                its_masks,
                _subject(settings, target, attributes),
            )
            for target, its_columns, attributes, its_masks in zip(
                settings.targets, columns, self.reader.attributes, masks, strict=True
            )
        ]

    def decode_all(self, messages: Sequence[Message]) -> list[DecodedMessage | PermanentFault]:
        """See MessageMapping."""
        return _decode_all(self.decode, messages)

    def decode(self, message: Message) -> DecodedMessage:
        """See MessageMapping."""
        opened = self.envelope.open(message)
        unit = self.reader.read(opened.documents, several=opened.several)
        if opened.attributes:
            unit.message = _with_attributes(message, opened.attributes)
        return unit

    def event(self, decoded: DecodedMessage) -> str | None:
        """See MessageMapping."""
        return decoded.event

    def count_dropped(self, decoded: Sequence[DecodedMessage]) -> Counter[str]:
        """See MessageMapping."""
        return Counter(name for unit in decoded for name in unit.dropped_fields)

    def rows(
        self,
        keys: Sequence[str],
        messages: Sequence[Message],
        decoded: Sequence[DecodedMessage],
        originals: Originals | None = None,
    ) -> list[Row | PermanentFault]:
        """See MessageMapping."""
        texts: list[dict[int, list[str]]] = [{} for _ in messages]
        faults: dict[int, tuple[int, PermanentFault]] = {}
        for target, transformer in enumerate(self.transformers):
            picked = [
                (number, extract)
                for number, unit in enumerate(decoded)
                for extract in unit.extracts
                if extract.target == target
            ]
            lines = transformer.lines(
                [decoded[number].message or messages[number] for number, _ in picked],
                [extract.record for _, extract in picked],
                originals,
            )
            for (number, extract), line in zip(picked, lines, strict=True):
                if isinstance(line, str):
                    texts[number].setdefault(target, []).append(line)
                elif number not in faults or extract.index < faults[number][0]:
                    faults[number] = (extract.index, line)
        rows: list[Row | PermanentFault] = []
        for number, (key, message, unit) in enumerate(zip(keys, messages, decoded, strict=True)):
            if number in faults:
                index, fault = faults[number]
                rows.append(located(fault, index, unit.several, fault.detail))
            else:
                rows.append(_row(key, message.message_id, texts[number], unit.dropped))
        return rows


def _decode_all(
    decode: Callable[[Message], Decoded], messages: Sequence[Message]
) -> list[Decoded | PermanentFault]:
    decoded: list[Decoded | PermanentFault] = []
    for message in messages:
        try:
            decoded.append(decode(message))
        except PermanentFault as fault:
            # The traceback refers to this frame, and the frame to the fault: only the cyclic
            # collector could free the batch.
            decoded.append(fault.with_traceback(None))
    return decoded


def _with_attributes(message: Message, added: Mapping[str, str]) -> Message:
    """Return the message with the attributes that its envelope adds, for defaults to read."""
    attributes = dict(message.message_attributes or {})
    attributes.update({name: MessageAttribute("String", text) for name, text in added.items()})
    return msgspec.structs.replace(message, message_attributes=attributes, payload=None)


def _subject(settings: Settings, target: Target, attributes: Mapping[str, str]) -> str:
    """Return the source of the person's id in the target; "" where nothing is sealed."""
    subject = settings.vault.subject
    if not settings.vault.enabled or not any(field.recover for field in target.fields):
        return ""
    if subject not in attributes:
        raise SettingsError(
            f"no field of table {target.table} has the person's id",
            code="no_subject_column",
            hint=f"map {subject!r} (vault.subject) to one of its columns, or recover nothing there",
        )
    return subject


def _row(key: str, message_id: str, texts: Mapping[int, list[str]], dropped: int) -> Row:
    parts = [TargetLines(target, "".join(lines), len(lines)) for target, lines in texts.items()]
    first = parts[0] if parts else TargetLines(0, "", 0)
    return Row(key, message_id, first.text, first.count, first.target, tuple(parts[1:]), dropped)


def is_flat(settings: Settings) -> bool:
    """Whether FlatMapping can do these settings."""
    targets = settings.targets
    dedupe_key = settings.ledger.dedupe_key
    return (
        len(targets) == 1
        and not settings.route
        and not targets[0].explode
        and not settings.envelope.layers
        and settings.envelope.records == "one"
        and (not dedupe_key or source_paths.is_plain(dedupe_key))
        and all(map(source_paths.is_plain, settings.dropped))
        and all(
            FIELD_TYPES[field.type].json_kind == "string" and source_paths.is_plain(field.source)
            for field in targets[0].fields
        )
    )


def compile_mapping(
    settings: Settings,
    columns: Sequence[Sequence[Column]],
    masks: Sequence[Sequence[Operator | Mask | None]],
) -> MessageMapping:
    """Return the mapping of the settings' targets.

    `columns[t]` and `masks[t]` are those of the fields of target t. Raises SettingsError where they
    do not fit together.
    """
    if is_flat(settings):
        return FlatMapping(settings, columns[0], masks[0])
    return DocumentMapping(settings, columns, masks)
