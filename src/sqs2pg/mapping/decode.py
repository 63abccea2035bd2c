"""Decode: Message -> Record. One pass over the body, against a schema compiled at start.

Promises: every body gives either a Record of the mapping's fields or a PermanentFault. The fault
has a code and at most the name of a field of the mapping, never a value or a producer's field name.
Only the kind of the JSON library's own error is used, never its text.

No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal, cast

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.message import Record
from sqs2pg.settings import Field, required_sources

# Every field here is a JSON string; the transform converts it to the column's type. A required
# one must be present and not empty.
_REQUIRED = Annotated[str, msgspec.Meta(min_length=1)]
_OPTIONAL = str | None
# A dropped value is skipped, not decoded: it is a slice of the body.
_ABSENT = msgspec.Raw()


_BOM, _BOM_BYTES = "\ufeff", b"\xef\xbb\xbf"
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for a body that no mapping can read."""


def unreadable(error: Exception) -> PermanentFault:
    """Return the fault of a body that raised one of UNREADABLE. `error` holds the body: drop it."""
    if isinstance(error, UnicodeError):
        return PermanentFault("bad_unicode")
    if isinstance(error, RecursionError):
        return PermanentFault("too_deep")
    if isinstance(error, msgspec.ValidationError):
        return PermanentFault("out_of_range")  # JSON with a number too long for msgspec
    return PermanentFault("not_json")


def without_mark(body: str | bytes) -> str | bytes:
    """Return a body without the byte order mark that may stand before it.

    A reader of JSON may ignore the mark (RFC 8259, section 8.1). Ours do, wherever a body comes
    from: the queue, an archive or an object.
    """
    if isinstance(body, str):
        return body[1:] if body[:1] == _BOM else body
    return body[3:] if body[:3] == _BOM_BYTES else body


class Decoder:
    """Compiled from the mapping: bodies in, records out."""

    def __init__(
        self,
        fields: Iterable[Field],
        unknown_fields: Literal["drop", "quarantine"],
        dedupe_key: str = "",
        dropped: Iterable[str] = (),
    ) -> None:
        """`dropped` are the names of known fields that go to no column."""
        required = {dedupe_key: False} if dedupe_key else {}
        required.update(required_sources(fields))
        # Attribute names are ours (f0, f1, …): a source may be any JSON key, `__class__` too.
        self.attributes = {source: f"f{index}" for index, source in enumerate(required)}
        """Source name -> attribute of the record."""
        members: list[Any] = [
            (self.attributes[source], _REQUIRED)
            if must
            else (self.attributes[source], _OPTIONAL, None)
            for source, must in sorted(required.items(), key=lambda item: not item[1])
        ]
        names = {attribute: source for source, attribute in self.attributes.items()}
        self._dropped: dict[str, Callable[[Record], msgspec.Raw]] = {}
        for index, source in enumerate(s for s in dropped if s not in self.attributes):
            names[f"d{index}"] = source
            members.append((f"d{index}", msgspec.Raw, _ABSENT))
            self._dropped[source] = attrgetter(f"d{index}")
        record = msgspec.defstruct(
            "MappedRecord",
            members,
            bases=(Record,),
            rename=names,
            forbid_unknown_fields=unknown_fields == "quarantine",
            gc=False,
            eq=False,
        )
        self.dedupe_value: Callable[[Record], str | None] = (
            attrgetter(self.attributes[dedupe_key]) if dedupe_key else lambda _: None
        )
        """From a record to the event id that the producer set; None where there is none."""
        self._decode = cast("Callable[[str], Record]", msgspec.json.Decoder(record).decode)

    def count_dropped(self, records: Sequence[Record]) -> dict[str, int]:
        """Return how many records had each dropped name; names that none had are left out."""
        counts = {
            source: sum(read(record) is not _ABSENT for record in records)
            for source, read in self._dropped.items()
        }
        return {source: count for source, count in counts.items() if count}

    def decode(self, body: str) -> Record:
        """Return the record of one body.

        Raises PermanentFault: `not_json`, `bad_unicode`, `too_deep`, `not_an_object`,
        `missing_field`, `empty_field`, `wrong_type`, `unknown_field`.
        """
        if body[:1] == _BOM:
            body = body[1:]
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            fault = self._explain(str(error))
        except UNREADABLE as error:
            fault = unreadable(error)
        # Raised here, so that the fault has no `__context__`: those exceptions hold the body.
        try:
            raise fault
        finally:
            del fault  # a frame that holds its own fault keeps the body until the next collection

    def _explain(self, text: str) -> PermanentFault:
        # msgspec quotes an unknown field's name. The producer chose it: it may be personal data, or
        # look like another of msgspec's messages. So the beginning of the text is compared first,
        # and a field is named only if it is one of the mapping's own.
        if text.startswith("Object contains unknown field"):
            return PermanentFault("unknown_field")
        name = next((s for s in self.attributes if text.endswith(f"at `$.{s}`")), "")
        if text.startswith("Object missing required field"):
            name = next((s for s in self.attributes if text.endswith(f"field `{s}`")), "")
            return PermanentFault("missing_field", name)
        if text.startswith("Expected `str`, got `null`"):
            return PermanentFault("missing_field", name)
        if text.startswith("Expected `str` of length"):
            return PermanentFault("empty_field", name)
        if text.startswith("Expected `object`"):
            return PermanentFault("not_an_object")
        return PermanentFault("wrong_type", name)
