"""Decode: Message -> Record. One pass over the body, against a schema compiled at start.

Promises: every body either gives a Record of the mapping's fields or a PermanentFault with a
code and at most the name of a field of the mapping. Never a value, never a producer's field
name: the JSON library's own messages are read for their kind and dropped.

No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, cast

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.message import Record
from sqs2pg.settings import Field

# Every field of the built-in types is a JSON string; conversion to the column's type is the
# transform's work. A required one must be there and not be empty (design, section 1).
_REQUIRED = Annotated[str, msgspec.Meta(min_length=1)]
_OPTIONAL = str | None

_PLACE = re.compile(r"at `\$\.([^`]*)`|required field `([^`]*)`")


class Decoder:
    """Compiled from the mapping: bodies in, records out."""

    def __init__(self, fields: Iterable[Field], unknown_fields: Literal["drop", "quarantine"]):
        required: dict[str, bool] = {}
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
        record = msgspec.defstruct(
            "MappedRecord",
            members,
            bases=(Record,),
            rename={attribute: source for source, attribute in self.attributes.items()},
            forbid_unknown_fields=unknown_fields == "quarantine",
            gc=False,
            eq=False,
        )
        self._decode = cast("Callable[[str], Record]", msgspec.json.Decoder(record).decode)

    def decode(self, body: str) -> Record:
        """Return the record of one body.

        Raises PermanentFault: `not_json`, `bad_unicode`, `too_deep`, `not_an_object`,
        `missing_field`, `empty_field`, `wrong_type`, `unknown_field`.
        """
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            raise _explain(str(error)) from None
        except msgspec.DecodeError:
            raise PermanentFault("not_json") from None
        except UnicodeError:
            raise PermanentFault("bad_unicode") from None
        except RecursionError:
            raise PermanentFault("too_deep") from None


def _explain(text: str) -> PermanentFault:
    place = _PLACE.search(text)
    name = (place[1] or place[2]) if place else ""
    if "missing required field" in text or text.startswith("Expected `str`, got `null`"):
        return PermanentFault("missing_field", name)
    if "unknown field" in text:
        return PermanentFault("unknown_field")
    if "of length" in text:
        return PermanentFault("empty_field", name)
    if text.startswith("Expected `object`") and not name:
        return PermanentFault("not_an_object")
    if text.startswith("Expected "):
        return PermanentFault("wrong_type", name)
    return PermanentFault("not_json")
