"""Decode: Message -> Record. One pass over the body, against a schema compiled at start.

Promises: every body either gives a Record of the mapping's fields or a PermanentFault with a
code and at most the name of a field of the mapping. Never a value, never a producer's field
name: the JSON library's own messages are read for their kind and dropped.

No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal, cast

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.message import Record
from sqs2pg.settings import Field

# Every field of the built-in types is a JSON string; conversion to the column's type is the
# transform's work. A required one must be there and not be empty.
_REQUIRED = Annotated[str, msgspec.Meta(min_length=1)]
_OPTIONAL = str | None
# A dropped value is skipped, not made: a slice of the body, whatever it holds.
_ABSENT = msgspec.Raw()


UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises of a body that cannot be read, whatever the mapping."""


def unreadable(error: Exception) -> PermanentFault:
    """Return the fault of a body that raised one of UNREADABLE; without `error`, which holds it."""
    if isinstance(error, UnicodeError):
        return PermanentFault("bad_unicode")
    if isinstance(error, RecursionError):
        return PermanentFault("too_deep")
    if isinstance(error, msgspec.ValidationError):
        return PermanentFault("out_of_range")  # JSON, with a number past what msgspec reads
    return PermanentFault("not_json")


class Decoder:
    """Compiled from the mapping: bodies in, records out."""

    def __init__(
        self,
        fields: Iterable[Field],
        unknown_fields: Literal["drop", "quarantine"],
        dedupe_key: str = "",
        dropped: Iterable[str] = (),
    ) -> None:
        """`dropped` are names that are known and go nowhere."""
        required: dict[str, bool] = {dedupe_key: False} if dedupe_key else {}
        for field in fields:
            required[field.source] = required.get(field.source, False) or field.required
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
        """The name that the event's producer gave it, of a record; None where it has none."""
        self._decode = cast("Callable[[str], Record]", msgspec.json.Decoder(record).decode)

    def count_dropped(self, records: Sequence[Record]) -> dict[str, int]:
        """Return in how many records each dropped name stood; names that stood in none left out."""
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
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            fault = self._explain(str(error))
        except UNREADABLE as error:
            fault = unreadable(error)
        # Out here, so that the fault has no `__context__`: those exceptions hold the body.
        try:
            raise fault
        finally:
            del fault  # a frame that holds its own fault would keep the body until a collection

    def _explain(self, text: str) -> PermanentFault:
        # msgspec quotes an unknown field's name, which is a producer's word and may be personal
        # data, or look like any other of its messages: so first by how the text begins, and a
        # place only where it is one of the mapping's own.
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
