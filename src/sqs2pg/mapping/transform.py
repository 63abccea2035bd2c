"""Transform: records -> lines of the target in COPY text format, every field converted and masked.

It works column by column, not row by row. Within a batch each distinct value of a column is
converted, masked and escaped once, so a device seen a hundred times is masked once. A mask that is
not a function of its value (it has a random nonce) is made for every row. Cleartext lives here only
as long as its batch.

Promises: a value is masked, or kept because the mapping says so, or gives a PermanentFault with a
code and the field's name. It never passes through by accident. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast, overload

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError, Stage
from sqs2pg.mapping.cell_limits import CellLimits, fitted_array, limits_of
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.convert import text as unchanged_text
from sqs2pg.mapping.copy_text import NULL, escaped
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.mapping.ledger_key import DAY_MS, day_of
from sqs2pg.mapping.originals import Originals, fields_id
from sqs2pg.mapping.subject import stored_form
from sqs2pg.mask.canonical import text as canonical_text
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.message import Message
from sqs2pg.settings import ATTRIBUTE, Field, attribute_key, required_sources
from sqs2pg.settings.mask_rules import MASKABLE

Cell = str | PermanentFault


class Transformer:
    """Compiled from the mapping and the target's columns: records in, lines out."""

    def __init__(
        self,
        fields: Sequence[Field],
        columns: Sequence[Column],
        masks: Sequence[Operator | Mask | None],
        subject: str = "",
        text_max: int = 0,
    ) -> None:
        """`subject`: the source of the person's id, where the vault is on; else "". `text_max`:
        bytes of one message's lines, beyond which it is a fault; 0: any number.
        """
        self._text_max = text_max
        sources = list(required_sources(fields))
        places = [sources.index(attribute_key(field)) for field in fields]
        self._columns = [
            (place, _ColumnPlan(field, column, mask))
            for place, field, column, mask in zip(places, fields, columns, masks, strict=True)
        ]
        self._recoverable = [
            (index, field.source, places[index])
            for index, field in enumerate(fields)
            if field.recover
        ]
        self._fields_id = fields_id(fields)
        self._subject_source = subject
        self._subject = sources.index(subject) if subject else None
        self._stored_form = stored_form(fields, subject)

    def lines(
        self,
        messages: Sequence[Message],
        values: Sequence[Sequence[str | None]],
        originals: Originals | None = None,
    ) -> list[Cell]:
        """Return a COPY line, newline included, or a fault for each record, in order.

        `values` has a column of texts for each source, in the order of `required_sources`; record i
        is made of `values[…][i]`. It came in `messages[i]`, which dates the row. What the vault is
        to seal is added to `originals`; then a record without a person's id is a fault.
        """
        faults: dict[int, PermanentFault] = {}
        table: Sequence[Sequence[str]] = [
            plan.cells(messages, values[place], faults) for place, plan in self._columns
        ]
        if originals is not None and self._subject is not None:
            subjects = self._subjects(values[self._subject], faults)
            part = originals.part(messages, subjects, self._fields_id)
            for index, source, place in self._recoverable:
                part.add(source, values[place], table[index])
        # In characters first: most batches are far below.
        if 0 < self._text_max < 4 * sum(sum(map(len, column)) + len(column) for column in table):
            table = self._within_text_max(messages, table, faults)
        lines: list[Cell] = [line + "\n" for line in map("\t".join, zip(*table, strict=True))]
        for index, fault in faults.items():
            lines[index] = fault
        return lines

    def _within_text_max(
        self,
        messages: Sequence[Message],
        table: Sequence[Sequence[str]],
        faults: dict[int, PermanentFault],
    ) -> list[list[str]]:
        """Return the cells without those of messages whose lines are too long together."""
        sizes: dict[int, int] = {}
        too_large: dict[int, PermanentFault] = {}
        for index, message in enumerate(messages):
            size = sum(_utf8_size(column[index]) + 1 for column in table)
            sizes[id(message)] = sizes.get(id(message), 0) + size
            if sizes[id(message)] > self._text_max:
                too_large[id(message)] = PermanentFault("rows_too_large", stage=Stage.MASK)
        for index, message in enumerate(messages):
            if id(message) in too_large:
                faults[index] = too_large[id(message)]
        return [
            ["" if index in faults else cell for index, cell in enumerate(column)]
            for column in table
        ]

    def _subjects(
        self, ids: Sequence[str | None], faults: dict[int, PermanentFault]
    ) -> Sequence[str | None]:
        """Return each record's person; None, and a fault, where the id is missing or invalid."""
        unchanged = self._stored_form is unchanged_text and all(ids)
        if unchanged and "".join(cast("Sequence[str]", ids)).isascii():
            return ids
        known: dict[str | None, str | None] = {}
        bad: dict[str | None, str] = {None: "no_subject", "": "no_subject"}
        for id_ in set(ids) - bad.keys():
            try:
                known[id_] = subject = self._stored_form(cast("str", id_))
                canonical_text(subject)
            except PermanentFault as fault:
                bad[id_] = fault.code
        if not bad.keys().isdisjoint(ids):
            for index, id_ in enumerate(ids):
                if id_ in bad:
                    code = bad[id_]
                    faults.setdefault(
                        index, PermanentFault(code, self._subject_source, stage=Stage.MASK)
                    )
        return [None if id_ in bad else known[id_] for id_ in ids]


class _ColumnPlan:
    """How one field is made into the cells of one column."""

    def __init__(self, field: Field, column: Column, mask: Operator | Mask | None) -> None:
        self._source = field.name
        self._convert = FIELD_TYPES[field.type].convert
        # A mask that is not a function of its value is made for every row (decision 0013).
        self._each = isinstance(mask, Operator) and not mask.properties.deterministic
        self._mask = masked(field, mask.mask if isinstance(mask, Operator) else mask)
        self._limits = limits_of(field, column)
        self._plain = mask is None and field.type == "text" and self._limits.only_length
        if FIELD_TYPES[field.type].element and field.mask != "nullify":
            element = msgspec.structs.replace(field, type=FIELD_TYPES[field.type].element)
            mask_one = mask.mask if isinstance(mask, Operator) else mask
            self._convert = fitted_array(field, self._limits, masked(element, mask_one))
            self._mask, self._limits = None, CellLimits()
        self._dated = field.type == "date" and field.default == "sent_date"
        self._from_message = None if self._dated else _from_message(field)
        self.missing: Cell = NULL
        self._default: str | None = None
        if field.default is not None and not (self._dated or self._from_message):
            self._default = constant_text(field.default)
            self.missing = self._cell(self._default)
            if isinstance(self.missing, PermanentFault):
                raise SettingsError(
                    f"the default of field {field.name!r} cannot be written to column "
                    f"{column.name!r}: {self.missing.code}",
                    code="bad_default",
                    hint="give the [[field]] a default of its type that the column can hold",
                )
        elif not column.nullable and not self._dated:
            self.missing = PermanentFault("missing_field", field.name, stage=Stage.MASK)

    def cells(
        self,
        messages: Sequence[Message],
        values: Sequence[str | None],
        faults: dict[int, PermanentFault],
    ) -> Sequence[str]:
        """Return the cell of each value; "" where it has a fault, put into `faults`."""
        if self._from_message and None in values:
            values = [
                self._from_message(message) if value is None else value
                for message, value in zip(messages, values, strict=True)
            ]
        if self._plain and self._all_clean(values):
            return cast("Sequence[str]", values)
        if self._each:
            return self._cells_each(values, faults)
        known = self._known(set(values))
        if self._dated and None in known:
            stamps = [message.attributes.sent_timestamp // DAY_MS for message in messages]
            days: dict[int, Cell] = {day: day_of(day * DAY_MS).isoformat() for day in set(stamps)}
            cells = [
                days[day] if value is None else known[value]
                for value, day in zip(values, stamps, strict=True)
            ]
        else:
            cells = list(map(known.__getitem__, values))
        if PermanentFault in set(map(type, known.values())):
            for index, cell in enumerate(cells):
                if isinstance(cell, PermanentFault):
                    faults.setdefault(index, cell)
                    cells[index] = ""
        return cast("list[str]", cells)  # the faults have just been taken out

    def _cells_each(
        self, values: Sequence[str | None], faults: dict[int, PermanentFault]
    ) -> list[str]:
        """As `cells`, but value by value, so that equal values get different masks."""
        cells: list[str] = []
        for index, value in enumerate(values):
            present = self._default if value is None else value
            cell = self.missing if present is None else self._cell(present)
            if isinstance(cell, PermanentFault):
                faults.setdefault(index, cell)
                cell = ""
            cells.append(cell)
        return cells

    def _all_clean(self, values: Sequence[str | None]) -> bool:
        """Whether every value can go into the line unchanged: present, printable, short enough.

        Four passes in C over the whole column are faster than one look at each value. A column that
        fails here is handled value by value.
        """
        try:
            joined = "".join(cast("Sequence[str]", values))
        except TypeError:  # a value is missing
            return False
        longest = self._limits.length_max
        return (
            joined.isprintable()
            and "\\" not in joined
            and (longest is None or max(map(len, values), default=0) <= longest)  # type: ignore[arg-type]
        )

    def _known(self, distinct: set[str | None]) -> dict[str | None, Cell]:
        """Return the cell of each distinct value: converted or masked, checked, escaped."""
        known: dict[str | None, Cell] = {}
        if None in distinct:
            distinct.discard(None)
            known[None] = self.missing
        transform = self._mask or self._convert
        values = cast("set[str]", distinct)
        try:
            texts = dict(zip(values, map(transform, values), strict=True))
        except PermanentFault:
            texts = self._transform_each(values, transform, known)
        if None in texts.values():
            known.update((value, NULL) for value, text in texts.items() if text is None)
            texts = {value: text for value, text in texts.items() if text is not None}
        made = cast("dict[str, str]", texts)
        if self._limits.only_length and self._all_clean(list(made.values())):
            known.update(made)
        else:
            for value, text in made.items():
                known[value] = self._fitted(text)
        return known

    def _transform_each(
        self, values: Iterable[str], transform: Mask, known: dict[str | None, Cell]
    ) -> dict[str, str | None]:
        """Transform each value by itself; put the faults of those that fail into `known`."""
        texts: dict[str, str | None] = {}
        for value in values:
            try:
                texts[value] = transform(value)
            except PermanentFault as fault:
                known[value] = self._named(fault)
        return texts

    def _cell(self, value: str) -> Cell:
        return self._known({value})[value]

    def _fitted(self, text: str) -> Cell:
        try:
            return self._fit(text)
        except PermanentFault as fault:
            return self._named(fault)

    def _named(self, fault: PermanentFault) -> PermanentFault:
        return PermanentFault(fault.code, self._source, stage=fault.stage)

    def _fit(self, text: str) -> str:
        text = self._limits.fit(text)
        if not text.isprintable() or "\\" in text:
            if "\x00" in text:
                raise PermanentFault("nul_character", stage=Stage.MASK)
            if not _encodable(text):
                raise PermanentFault("bad_unicode", stage=Stage.MASK)
            return escaped(text)
        return text


def missing_cell(field: Field, column: Column, mask: Operator | Mask | None) -> Cell:
    """Return the cell of a missing value that has a constant default or none, or its fault.

    Raises SettingsError `bad_default`.
    """
    return _ColumnPlan(field, column, mask).missing


@overload
def masked(field: Field, mask: Mask) -> Mask: ...
@overload
def masked(field: Field, mask: Mask | None) -> Mask | None: ...
def masked(field: Field, mask: Mask | None) -> Mask | None:
    """Return the mask, taking the value's text in the form that the field's type gives it."""
    if mask is None or field.type == "text" or field.type not in MASKABLE:
        return mask
    convert = FIELD_TYPES[field.type].convert
    return lambda value: mask(convert(value))


def constant_text(value: str | float | bool) -> str:
    """Return a constant of the settings as the text that a converter takes."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _from_message(field: Field) -> Callable[[Message], str | None] | None:
    """Return the function that reads a field's default from the message; None for a constant."""
    default = field.default
    if not isinstance(default, str):
        return None
    if default == "sent_time" and field.type == "bigint":
        return lambda message: str(message.attributes.sent_timestamp)
    if default.startswith(ATTRIBUTE):
        name = default.removeprefix(ATTRIBUTE)
        return lambda message: attribute_of(message, name)
    return {
        "message_id": lambda message: message.message_id,
        "sent_date": lambda message: day_of(message.attributes.sent_timestamp).isoformat(),
        "sent_time": lambda message: _timestamp(message.attributes.sent_timestamp),
        "record_index": lambda _: None,  # the record has it already
    }.get(default)


def attribute_of(message: Message, name: str) -> str | None:
    """Return a message attribute as text, base64 if it is binary; None where there is none."""
    attribute = (message.message_attributes or {}).get(name)
    return attribute.text if attribute else None


def _timestamp(sent_ms: int) -> str:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=sent_ms)
    return moment.isoformat(timespec="milliseconds")


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
