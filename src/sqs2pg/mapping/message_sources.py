"""Message sources: values that come with a message, not in its body.

    sqs:NAME         what SQS says of the message (`message.SYSTEM_ATTRIBUTES`)
    attribute:NAME   a message attribute of the producer, or what an envelope adds

A field reads them by `source` or by `default`. They are texts, and so the field's type gets a text:
a number's too. A binary attribute is its base64. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.convert import jsonb
from sqs2pg.mapping.json_slices import parse
from sqs2pg.message import Message, system_attribute
from sqs2pg.settings import ATTRIBUTE, SYSTEM, Field, is_of_message, required_sources

ReadMessage = Callable[[Message], str | None]


def reader(source: str) -> ReadMessage | None:
    """Return the function that reads a source of the message; None for one of the body."""
    if source.startswith(SYSTEM):
        name = source.removeprefix(SYSTEM)
        return lambda message: system_attribute(message, name)
    if source.startswith(ATTRIBUTE):
        name = source.removeprefix(ATTRIBUTE)
        return lambda message: _attribute_of(message, name)
    return None


def _attribute_of(message: Message, name: str) -> str | None:
    attribute = (message.message_attributes or {}).get(name)
    return attribute.text if attribute else None


def json_of_text(value: str) -> str:
    """Return JSON that came as a text, for PostgreSQL's `jsonb`.

    Raises PermanentFault: `not_json`, `bad_unicode`, `too_deep`, `nul_character`.
    """
    return jsonb(parse(value).text)


class MessageSources:
    """The sources of one target that come with the message."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self._readers = [
            (place, name, must, read)
            for place, (name, must) in enumerate(required_sources(fields).items())
            if is_of_message(name) and (read := reader(name)) is not None
        ]

    def filled(
        self,
        messages: Sequence[Message],
        values: Sequence[Sequence[str | None]],
        faults: dict[int, PermanentFault],
    ) -> Sequence[Sequence[str | None]]:
        """Return the values with those of the messages in their places.

        `values` has a column for each source, in the order of `required_sources`. A value that is
        required and missing puts its record's fault into `faults`.
        """
        if not self._readers:
            return values
        columns = list(values)
        for place, name, must, read in self._readers:
            columns[place] = column = list(map(read, messages))
            if must and not all(column):
                for index, value in enumerate(column):
                    if not value:
                        code = "missing_field" if value is None else "empty_field"
                        faults.setdefault(index, PermanentFault(code, name))
        return columns
