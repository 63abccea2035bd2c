"""`when` of a route, and `delete_when` of a state table: for which records something holds."""

from typing import Annotated

from msgspec import Meta

from sqs2pg.settings.fields import JSON_NAME, Constant, Section


class When(Section, frozen=True):
    """`when` of a route: a field of the record and its conditions, which must all hold; or an
    expression.
    """

    field: Annotated[str, Meta(max_length=256, pattern=JSON_NAME)] = ""
    expression: Annotated[
        str,
        Meta(
            max_length=4096,
            description="instead of the others: JMESPath; it holds unless its result is false, "
            "null, or an empty text, array or object",
        ),
    ] = ""
    equals: Constant | None = None
    any_of: tuple[Constant, ...] = ()
    exists: bool | None = None
