"""What a mapping reads of a body, by both of its readers: the usual one, and the reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import compile_mapping
from sqs2pg.mapping.documents import DecodedMessage, DocumentReader
from sqs2pg.mapping.envelope.records import Records
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import Field, LedgerSettings, Settings, required_sources


class Reader:
    """Compiled from fields of one target."""

    def __init__(
        self,
        fields: Iterable[Field],
        unknown_fields: Any = "drop",
        dedupe_key: str = "",
        dropped: Sequence[str] = (),
    ) -> None:
        fields = tuple(fields)
        settings = Settings(
            field=(*fields, *(Field(source=name, mask="drop") for name in dropped)),
            unknown_fields=unknown_fields,
            ledger=LedgerSettings(dedupe_key=dedupe_key),
        )
        columns = [Column(field.column, "text") for field in fields]
        self.mapping = compile_mapping(settings, [columns], [[None] * len(fields)])
        self._reference = DocumentReader(
            settings.targets,
            unknown_fields=unknown_fields,
            dedupe_key=dedupe_key,
            dropped=settings.dropped,
        )
        self.sources = list(required_sources(fields))

    def decode(self, body: str) -> DecodedMessage:
        """Return what a body holds, after checking that both readers agree. Raises the fault."""
        [found] = self.mapping.decode_all([Message("m", "h", body, SystemAttributes(0))])
        try:
            expected: Any = self._reference.read(Records([body], several=False))
        except PermanentFault as fault:
            expected = fault
        assert type(found) is type(expected)
        if isinstance(found, PermanentFault):
            assert (found.code, found.detail) == (expected.code, expected.detail)
            raise found
        assert self._values(found) == self._values(expected)
        assert found.event == expected.event
        assert list(found.dropped_fields) == list(expected.dropped_fields)
        return found

    def values(self, body: str) -> dict[str, Any]:
        """Return the text of each source. Raises PermanentFault."""
        return self._values(self.decode(body))

    def _values(self, decoded: DecodedMessage) -> dict[str, Any]:
        [records] = decoded.batch.targets
        [*texts] = [column[decoded.number] for column in records.columns]
        return dict(zip(self.sources, texts, strict=True))


def columns_of(
    fields: Iterable[Field], records: Sequence[dict[str, Any]]
) -> list[list[str | None]]:
    """Return records as the columns that a transform takes."""
    return [[record.get(source) for record in records] for source in required_sources(fields)]
