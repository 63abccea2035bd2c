"""Column cells: the values of one field -> the cells of one column, converted and masked.

Each distinct value is converted, masked and escaped once. A mask that is not a function of its
value (it has a random nonce) is made for every row. No I/O here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast, overload

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError, Stage
from sqs2pg.mapping.cell_limits import CellLimits, fitted_array, limits_of
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.conversions import (
    constant_text,
    converter_of,
    converts,
    map_results,
    text_editor,
    unconverted,
)
from sqs2pg.mapping.copy_text import NULL, escaped
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.mapping.ledger_key import DAY_MS, day_of
from sqs2pg.mapping.message_sources import json_of_text, reader
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.message import Message
from sqs2pg.settings import Field, is_of_message, read_of_message
from sqs2pg.settings.mask_rules import MASKABLE

Cell = str | PermanentFault


class ColumnPlan:
    """How one field is made into the cells of one column."""

    def __init__(self, field: Field, column: Column, mask: Operator | Mask | None) -> None:
        self._name = field.name
        self._sources = field.sources
        element = FIELD_TYPES[field.type].element
        self._edit = None if element else text_editor(field)
        self._convert = converter_of(field)
        if field.type == "jsonb" and read_of_message(field):
            self._convert = json_of_text
        # A mask that is not a function of its value is made for every row (decision 0013).
        self._each = isinstance(mask, Operator) and not mask.properties.deterministic
        self._mask = masked(field, mask.mask if isinstance(mask, Operator) else mask)
        self._limits = limits_of(field, column)
        self._plain = mask is None and field.type == "text" and self._limits.only_length
        if element and field.mask != "nullify":
            of_element = msgspec.structs.replace(field, type=element)
            mask_one = mask.mask if isinstance(mask, Operator) else mask
            self._convert = fitted_array(of_element, self._limits, masked(of_element, mask_one))
            self._mask, self._limits = None, CellLimits()
        # Else it is known as soon as the record is read.
        self._required = field.required and (
            len(field.sources) > 1 or (field.edits_text and field.is_read)
        )
        self._dated = field.type == "date" and field.default == "sent_date"
        self._from_message = None if self._dated else _from_message(field)
        self._of_day = self
        if self._dated and converts(field):
            self._of_day = ColumnPlan(unconverted(field), column, mask)
        self._unconverted: ColumnPlan | None = None
        if self._from_message and converts(field) and not is_of_message(str(field.default)):
            # What SQS says has the form of the type already.
            self._unconverted = ColumnPlan(unconverted(field), column, mask)
        self.missing: Cell = NULL
        self._default: str | None = None
        if field.default is not None and not (self._dated or self._from_message):
            self._set_default(field, column, mask)
        elif not column.nullable and not self._dated:
            self.missing = PermanentFault("missing_field", field.name, stage=Stage.MASK)
        self._check_map(field, column, mask)

    def _set_default(self, field: Field, column: Column, mask: Operator | Mask | None) -> None:
        """Make the cell of a constant default. Raises SettingsError `bad_default`."""
        assert field.default is not None
        edit = text_editor(field, is_default=True)
        text = constant_text(field.default)
        self._default = edit(text) if edit else text
        if self._default is not None:
            self.missing = self.cell(self._default)
        if isinstance(self.missing, PermanentFault) and field.format:
            # It may be in the form of the type: a timestamp beside epochs.
            self.missing = ColumnPlan(unconverted(field), column, mask).missing
        if isinstance(self.missing, PermanentFault):
            raise SettingsError(
                f"the default of field {field.name!r} cannot be written to column "
                f"{column.name!r}: {self.missing.code}",
                code="bad_default",
                hint="give the [[field]] a default of its type that the column can hold",
            )

    def _check_map(self, field: Field, column: Column, mask: Operator | Mask | None) -> None:
        """Refuse a map that would quarantine every message it is used for."""
        plan, element = self, bool(FIELD_TYPES[field.type].element)
        results = map_results(field)
        if element and results:
            bare = msgspec.structs.replace(
                unconverted(field), from_="text", format=field.format, timezone=field.timezone
            )
            plan = ColumnPlan(bare, column, mask)
        for text in results:
            cell = plan.cell(json.dumps([text]) if element else text)
            if isinstance(cell, PermanentFault):
                raise SettingsError(
                    f"a value in `map` or `otherwise` of field {field.name!r} cannot be written to "
                    f"column {column.name!r}: {cell.code}",
                    code="bad_map",
                    hint="the field's type, or its format, must take each of them, and the column "
                    "must hold them",
                )

    def texts(
        self, values: Sequence[str | None], faults: dict[int, PermanentFault]
    ) -> Sequence[str | None]:
        """Return the edited text of each value; None where it is missing or has a fault."""
        if self._edit is not None:
            values = self._edited(values, faults)
        if self._required and not all(values):
            for index, value in enumerate(values):
                if not value:
                    code = "missing_field" if value is None else "empty_field"
                    fault = PermanentFault(code, self._name, stage=Stage.MASK)
                    faults.setdefault(index, fault)
        return values

    def _edited(
        self, values: Sequence[str | None], faults: dict[int, PermanentFault]
    ) -> Sequence[str | None]:
        assert self._edit is not None
        bad: dict[str | None, Cell] = {}
        distinct = cast("set[str]", set(values) - {None})
        known: dict[str | None, str | None] = {None: None}
        known.update(self._transform_each(distinct, self._edit, bad))
        if bad:
            for index, value in enumerate(values):
                if isinstance(fault := bad.get(value), PermanentFault):
                    faults.setdefault(index, fault)
        return list(map(known.get, values))

    def fault_of(
        self, fault: PermanentFault, columns: Sequence[Sequence[str | None]], index: int
    ) -> PermanentFault:
        """Return a record's fault with the name of the source that its value came from."""
        present = (
            source
            for source, column in zip(self._sources, columns, strict=True)
            if column[index] is not None
        )
        return PermanentFault(fault.code, next(present, self._name), stage=fault.stage)

    def cells(
        self,
        messages: Sequence[Message],
        values: Sequence[str | None],
        faults: dict[int, PermanentFault],
    ) -> Sequence[str]:
        """Return the cell of each text; "" where it has a fault, put into `faults`."""
        if self._from_message and None in values:
            if self._unconverted is not None:
                return self._cells_apart(messages, values, faults)
            said = [
                self._from_message(message) if value is None else None
                for message, value in zip(messages, values, strict=True)
            ]
            if self._edit is not None:
                said = list(self._edited(said, faults))
            values = [
                other if value is None else value for value, other in zip(values, said, strict=True)
            ]
        if self._plain and self._all_clean(values):
            return cast("Sequence[str]", values)
        if self._each:
            return self._cells_each(values, faults)
        known = self._known(set(values))
        kinds = set(map(type, known.values()))
        if self._dated and None in known:
            stamps = [message.attributes.sent_timestamp // DAY_MS for message in messages]
            day_cell = self._of_day.cell
            days = {day: day_cell(day_of(day * DAY_MS).isoformat()) for day in set(stamps)}
            kinds.update(map(type, days.values()))
            cells = [
                days[day] if value is None else known[value]
                for value, day in zip(values, stamps, strict=True)
            ]
        else:
            cells = list(map(known.__getitem__, values))
        if PermanentFault in kinds:
            for index, cell in enumerate(cells):
                if isinstance(cell, PermanentFault):
                    faults.setdefault(index, cell)
                    cells[index] = ""
        return cast("list[str]", cells)  # the faults have just been taken out

    def _cells_apart(
        self,
        messages: Sequence[Message],
        values: Sequence[str | None],
        faults: dict[int, PermanentFault],
    ) -> list[str]:
        """As `cells`, where what is missing comes from the message and is not converted."""
        assert self._unconverted is not None
        cells = [""] * len(values)
        for plan, is_missing in ((self, False), (self._unconverted, True)):
            chosen = [i for i, value in enumerate(values) if (value is None) is is_missing]
            own: dict[int, PermanentFault] = {}
            made = plan.cells([messages[i] for i in chosen], [values[i] for i in chosen], own)
            for index, cell in zip(chosen, made, strict=True):
                cells[index] = cell
            for place, fault in own.items():
                faults.setdefault(chosen[place], fault)
        return cells

    def _cells_each(
        self, values: Sequence[str | None], faults: dict[int, PermanentFault]
    ) -> list[str]:
        """As `cells`, but value by value, so that equal values get different masks."""
        cells: list[str] = []
        for index, value in enumerate(values):
            present = self._default if value is None else value
            cell = self.missing if present is None else self.cell(present)
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

    def cell(self, value: str) -> Cell:
        """Return the cell of one edited text."""
        return self._known({value})[value]

    def _fitted(self, text: str) -> Cell:
        try:
            return self._fit(text)
        except PermanentFault as fault:
            return self._named(fault)

    def _named(self, fault: PermanentFault) -> PermanentFault:
        return PermanentFault(fault.code, self._name, stage=fault.stage)

    def _fit(self, text: str) -> str:
        text = self._limits.fit(text)
        if not text.isprintable() or "\\" in text:
            if "\x00" in text:
                raise PermanentFault("nul_character", stage=Stage.MASK)
            if not _encodable(text):
                raise PermanentFault("bad_unicode", stage=Stage.MASK)
            return escaped(text)
        return text


def map_cells(field: Field, column: Column, mask: Operator | Mask | None) -> dict[str, str]:
    """Return the cell of each text that a field's map can give. Raises SettingsError."""
    plan = ColumnPlan(field, column, mask)
    cells = {text: plan.cell(text) for text in map_results(field)}
    return {text: cell for text, cell in cells.items() if isinstance(cell, str)}


def missing_cell(field: Field, column: Column, mask: Operator | Mask | None) -> Cell:
    """Return the cell of a missing value that has a constant default or none, or its fault.

    Raises SettingsError `bad_default`.
    """
    return ColumnPlan(field, column, mask).missing


@overload
def masked(field: Field, mask: Mask) -> Mask: ...
@overload
def masked(field: Field, mask: Mask | None) -> Mask | None: ...
def masked(field: Field, mask: Mask | None) -> Mask | None:
    """Return the mask, taking the value's text in the form that the field's type gives it."""
    # The other types are pseudonymized only in marks of keys (`key_marks.py`).
    converted = field.type in MASKABLE or field.mask == "pseudonymize"
    if mask is None or field.type == "text" or not converted:
        return mask
    convert = converter_of(field)
    return lambda value: mask(convert(value))


def _from_message(field: Field) -> Callable[[Message], str | None] | None:
    """Return the function that reads a field's default from the message; None for a constant."""
    default = field.default
    if not isinstance(default, str):
        return None
    if default == "sent_time" and field.type == "bigint":
        return lambda message: str(message.attributes.sent_timestamp)
    if read := reader(default):
        return read
    return {
        "message_id": lambda message: message.message_id,
        "sent_date": lambda message: day_of(message.attributes.sent_timestamp).isoformat(),
        "sent_time": lambda message: _timestamp(message.attributes.sent_timestamp),
        "record_index": lambda _: None,  # the record has it already
    }.get(default)


def _timestamp(sent_ms: int) -> str:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=sent_ms)
    return moment.isoformat(timespec="milliseconds")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
