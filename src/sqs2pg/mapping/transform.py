"""Transform: records -> lines of the target in COPY text format, every field converted and masked.

It works column by column, not row by row. Within a batch each distinct value of a column is
converted, masked and escaped once, so a device seen a hundred times is masked once. A mask that is
not a function of its value (it has a random nonce) is made for every row. Cleartext lives here only
as long as its batch.

Promises: a value is masked, or kept because the mapping says so, or gives a PermanentFault with a
code and the field's name. It never passes through by accident. No I/O here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mapping.column_cells import Cell, ColumnPlan
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.convert import text as unchanged_text
from sqs2pg.mapping.message_sources import MessageSources
from sqs2pg.mapping.originals import Originals, fields_id
from sqs2pg.mapping.subject import stored_form, subject_sources
from sqs2pg.mask.canonical import text as canonical_text
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.message import Message
from sqs2pg.settings import Field, attribute_keys, required_sources
from sqs2pg.settings.staged_fields import DELETES


class Transformer:
    """Compiled from the mapping and the target's columns: records in, lines out."""

    def __init__(
        self,
        fields: Sequence[Field],
        columns: Sequence[Column],
        masks: Sequence[Operator | Mask | None],
        subject: str = "",
        text_max: int = 0,
        target: int = 0,
    ) -> None:
        """`subject`: the source of the person's id, where the vault is on; else "". `text_max`:
        bytes of one message's lines, beyond which it is a fault; 0: any number. `target`: the
        number of its target.
        """
        self._text_max = text_max
        self._target = target
        sources = list(required_sources(fields))
        self._columns = [
            (
                [sources.index(key) for key in attribute_keys(field)],
                ColumnPlan(field, column, mask),
            )
            for field, column, mask in zip(fields, columns, masks, strict=True)
        ]
        self._recoverable = [
            (index, field.name) for index, field in enumerate(fields) if field.recover
        ]
        self._of_message = MessageSources(fields)
        self._fields_id = fields_id(fields)
        self._subject_source = subject
        self._subject = (
            list(map(sources.index, subject_sources(fields, subject))) if subject else []
        )
        self._stored_form = stored_form(fields, subject)
        self._deletes = next((i for i, f in enumerate(fields) if f.column == DELETES), None)

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
        values = self._of_message.filled(messages, values, faults)
        texts: list[Sequence[str | None]] = []
        made: list[Sequence[str]] = []
        for places, plan in self._columns:
            found = [values[place] for place in places]
            own = faults if len(found) == 1 else {}
            texts.append(plan.texts(_first_present(found), own))
            made.append(plan.cells(messages, texts[-1], own))
            if own is not faults:
                for index, fault in own.items():
                    faults.setdefault(index, plan.fault_of(fault, found, index))
        table: Sequence[Sequence[str]] = made
        if originals is not None and self._subject:
            ids = _first_present([values[place] for place in self._subject])
            gone = [] if self._deletes is None else made[self._deletes]
            # What deletes a row names its key, and perhaps nobody.
            nameless = {i for i, cell in enumerate(gone) if cell == "true" and not ids[i]}
            subjects = self._subjects(ids, faults, nameless)
            part = originals.part(messages, subjects, self._fields_id, self._target)
            for index, source in self._recoverable:
                part.add(source, texts[index], table[index])
        # In characters first: most batches are far below.
        if 0 < self._text_max < 4 * sum(sum(map(len, column)) + len(column) for column in table):
            table = self._within_text_max(messages, table, faults)
        lines: list[Cell] = [line + "\n" for line in map("\t".join, zip(*table, strict=True))]
        for index, fault in faults.items():
            lines[index] = fault
        return lines

    def faults_of(
        self, column: int, messages: Sequence[Message], texts: Sequence[str | None]
    ) -> dict[int, PermanentFault]:
        """Return the faults of values of one column, by the index of the record.

        The column must have one source, of which `texts` are, as in `lines`.
        """
        _, plan = self._columns[column]
        faults: dict[int, PermanentFault] = {}
        plan.cells(messages, plan.texts(texts, faults), faults)
        return faults

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
        self,
        ids: Sequence[str | None],
        faults: dict[int, PermanentFault],
        nameless: Collection[int],
    ) -> Sequence[str | None]:
        """Return each record's person; None, and a fault, where the id is missing or invalid.

        `nameless`: the records that need no person.
        """
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
                if id_ in bad and index not in nameless:
                    code = bad[id_]
                    faults.setdefault(
                        index, PermanentFault(code, self._subject_source, stage=Stage.MASK)
                    )
        return [None if id_ in bad else known[id_] for id_ in ids]


def _first_present(columns: Sequence[Sequence[str | None]]) -> Sequence[str | None]:
    """Return for each record the first value that is not missing."""
    first, *others = columns
    for other in others:
        if None not in first:
            return first
        pairs = zip(first, other, strict=True)
        first = [value if value is not None else more for value, more in pairs]
    return first


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
