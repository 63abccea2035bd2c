"""How rows get into their table: `mode` and what belongs to it, of `[sink]` and `[[route]]`.

It is declared here; `write_rules.py` checks it against the mapping. No I/O.
"""

from typing import Annotated, Literal

from msgspec import Meta

from sqs2pg.settings.fields import Name, Section
from sqs2pg.settings.when import When

Mode = Literal["append", "upsert", "ignore"]


class WriteMode(Section, frozen=True):
    """What becomes of a row whose key the table has already."""

    mode: Annotated[
        Mode,
        Meta(
            description="append: every row is added; upsert: one row per `key`, the newest; "
            "ignore: one row per `key`, the first"
        ),
    ] = "append"
    key: Annotated[
        tuple[Name, ...],
        Meta(description="the columns that a row is known by; they need a unique index"),
    ] = ()
    newer: Annotated[
        str,
        Meta(
            max_length=63,
            description="upsert: the column that orders versions of a row; a row that is not newer "
            "changes nothing, and NULL loses; without it the later commit wins",
        ),
    ] = ""
    update: Annotated[
        tuple[Name, ...],
        Meta(description="upsert: the columns that a newer row changes; default: all but the key"),
    ] = ()
    keep_if_null: Annotated[
        bool, Meta(description="upsert: a value that is missing leaves the column as it is")
    ] = False
    delete_when: Annotated[
        When | None,
        Meta(
            description="upsert: the records that delete the row of their key; an older version "
            "that comes later does not bring it back"
        ),
    ] = None
    retention_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="upsert: rows whose `newer`, a date or a timestamp, is older are deleted; "
            "0: none. `migrate` records it",
        ),
    ] = 0
    digest: Annotated[
        bool | None,
        Meta(
            description="keep a digest of the rows by `key` and `newer`, for `verify --deep`; each "
            "batch then also reads what it has written. Default: where `key` is set and `migrate` "
            "may make triggers on the table"
        ),
    ] = None

    @property
    def keeps_state(self) -> bool:
        """Whether the table has one row per key."""
        return self.mode != "append"

    @property
    def keeps_digest(self) -> bool:
        """Whether a digest of the rows is to be kept, if the table allows it."""
        return bool(self.key) if self.digest is None else self.digest

    @property
    def write(self) -> "WriteMode":
        """These settings alone."""
        return WriteMode(
            mode=self.mode,
            key=self.key,
            newer=self.newer,
            update=self.update,
            keep_if_null=self.keep_if_null,
            delete_when=self.delete_when,
            retention_days=self.retention_days,
            digest=self.digest,
        )


APPEND = WriteMode()
"""Every row is added."""
