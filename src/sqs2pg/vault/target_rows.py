"""Where the rows of a person are in the targets, for erasing them and for giving them new tokens.

Derived from the mapping and the keys, then completed from the catalog. A target is refused where no
column says whose a row is, or only in a way that cannot be searched for.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.column_cells import masked
from sqs2pg.mapping.columns import require_replaceable
from sqs2pg.mapping.conversions import edited_or_missing
from sqs2pg.mapping.field_types import ARRAY, FIELD_TYPES, INTEGER_RANGES, NUMBER_TYPES
from sqs2pg.mask.registry import compile_operator
from sqs2pg.postgres.catalog import (
    COLUMN_LENGTH,
    COLUMN_NOT_NULL,
    COLUMN_SCALE,
    COLUMN_TYPE,
    OF_COLUMNS,
    WITH_PARTITIONS,
)
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.settings import Field, Target
from sqs2pg.settings.expression_rules import reads
from sqs2pg.settings.staged_fields import person_column
from sqs2pg.vault.erased_keys import ErasedKeys, ReadKeys, keys_reader

REHEARSAL_HINTS = {
    "postgres_42501": "run it as the owner of the schemas and of the targets, without row-level "
    "security in its way",
    "postgres_55000": "the table is published and has no replica identity, or is a view that takes "
    "no changes: ALTER TABLE … REPLICA IDENTITY FULL, or give the view an INSTEAD OF trigger",
}
"""What to do where rows of a target cannot be changed, by the fault's code."""
PAGES_AT_ONCE = 16_384
"""Pages of a table that one statement scans where no index helps: 128 MiB."""

# The type as a cast takes it: `character` without a length would mean one letter.
_COLUMNS = f"""SELECT a.attname,
       CASE t.typname WHEN 'bpchar' THEN 'bpchar' ELSE format_type(a.atttypid, NULL) END,
       {COLUMN_TYPE}, {COLUMN_NOT_NULL}, {COLUMN_LENGTH},
       CASE WHEN {COLUMN_TYPE} = 'numeric' AND m.typmod > 4
            THEN ((m.typmod - 4) >> 16 & 65535) - {COLUMN_SCALE} END
{OF_COLUMNS}"""
# A partition that is detached and attached again gets another row in pg_inherits.
_TABLES = f"""WITH tree AS ({WITH_PARTITIONS})
SELECT c.relkind, format('%%I.%%I', n.nspname, c.relname), c.oid::bigint,
       coalesce(i.xmin::text, ''),
       pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::bigint,
       EXISTS (SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_attribute a
               ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
               WHERE x.indrelid = c.oid AND x.indisvalid AND x.indpred IS NULL AND a.attname = %s),
       EXISTS (SELECT FROM pg_catalog.pg_partitioned_table p
               LEFT JOIN pg_catalog.pg_attribute a
               ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs)
               WHERE p.partrelid = c.oid
               AND (a.attname = ANY (%s) OR 0 = ANY (p.partattrs::smallint[])))
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
ORDER BY 2"""
# Tables outside the target that have all of its columns, such as a partition that was detached.
_ALIKE = """SELECT format('%%I.%%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm')
AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND c.oid <> pg_catalog.to_regclass(%s) AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND NOT i.inhdetachpending)
AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute t
    WHERE t.attrelid = pg_catalog.to_regclass(%s) AND t.attnum > 0 AND NOT t.attisdropped
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
        AND NOT a.attisdropped AND a.attname = t.attname AND a.atttypid = t.atttypid))
ORDER BY 1"""

# What fills a NOT NULL column, for the types other than text that a mask, or another column of the
# person's id, may go to. Text is filled with the random id.
_FILLERS = {
    "inet": "'0.0.0.0'::inet",
    "uuid": "gen_random_uuid()",
    "bool": "false",
    "bytea": "''::bytea",
    "date": "'epoch'::date",
    "interval": "'0'::interval",
    "jsonb": "'{}'::jsonb",
    "timestamptz": "'epoch'::timestamptz",
    **dict.fromkeys(NUMBER_TYPES, "0"),
}

Spellings = Callable[[str], list[str]]
"""The function from a person's id to every text that may stand for it in the target's column."""


class PersonColumns(msgspec.Struct):
    """The columns of one target table that an erasure reads or changes."""

    table: str
    """Quoted for SQL."""
    column: str
    """The column that says whose a row is."""
    spellings: Spellings
    masked: tuple[str, ...]
    """Columns with masks, which are cleared. Not those by which a row of a state table is known."""
    named: bool = False
    """Whether the tally names this target: it is not the pipeline's first."""
    type: str = "text"
    """The type of `column` as a cast takes it."""
    base: str = "text"
    """Its pg_type.typname; for a domain, that of its base type."""
    length_max: int | None = None
    digits: int | None = None
    """How many digits it has before the point, for a `numeric` with bounds."""
    fillers: dict[str, str] = {}
    """What fills a masked column that cannot be NULL, in SQL, by the column's name. In it `m.name`
    is the random id of the erased person."""
    is_key: bool = False
    """Whether the person's id is part of the key of a state table: their rows are deleted."""
    versioned: bool = False
    """Whether the rows of a state table have versions."""
    read_keys: ReadKeys | None = None
    """Asks the catalog how deleted rows are remembered."""
    keys: ErasedKeys | None = None
    """How they are; None: not at all."""
    version_type: str = ""
    """The type of the column that orders versions, as a cast takes it."""


class Leaf(msgspec.Struct, frozen=True):
    """One table that holds rows: the target, or a partition of it."""

    table: str
    """Quoted for SQL."""
    pages: int
    indexed: bool
    """Whether the column that says whose a row is leads an index."""

    def ranges(self, *, indexed: bool, at_once: int = PAGES_AT_ONCE) -> list[str]:
        """Return conditions on `t.ctid`, one per statement, that cover all pages in parts.

        `indexed`: the statement uses an index and needs no parts. `at_once`: the pages of a part.
        """
        if indexed or self.pages <= at_once:
            return [""]
        starts = range(0, self.pages, at_once)
        bounded = [
            f" AND t.ctid >= '({start},0)'::tid AND t.ctid < '({start + at_once},0)'::tid"
            for start in starts[:-1]
        ]
        return [*bounded, f" AND t.ctid >= '({starts[-1]},0)'::tid"]


def person_columns(
    target: Target, keyring: Keyring, reference_key: bytes | None = None, *, named: bool = False
) -> PersonColumns:
    """Return the columns of one target.

    Without `reference_key` an erasure of a state table cannot remember the rows that it deletes.
    Raises SettingsError `no_subject_column` where its rows cannot be told apart by person.
    """
    table, fields, subject = quote_table(target.table), target.fields, target.subject
    about = [field for field in fields if field.first_source == subject]
    finders = [(field, spellings) for field in about if (spellings := _spellings(field, keyring))]
    if not finders:
        raise SettingsError(
            f"no column of table {table} says whose a row is in a way that can be found again",
            code="no_subject_column",
            hint=f"map {subject!r} (vault.subject) to a column of it, kept or masked by an "
            "operator that gives equal values equal masks",
        )
    field, spellings = finders[0]
    others = [other.column for other in about if other.column != field.column]
    sources = field.body_sources
    write = target.write
    known_by = (*write.key, write.newer) if write.keeps_state else ()
    masked = [
        other.column
        for other in fields
        # An expression may contain the person's id, in which nobody would find it again.
        if other not in about
        and (other.mask != "keep" or reads(other, sources))
        and other.column not in known_by
    ]
    return PersonColumns(
        table,
        field.column,
        spellings,
        (*masked, *others),
        named,
        is_key=write.keeps_state and bool(person_column(target)),
        versioned=bool(write.newer),
        read_keys=None if reference_key is None else keys_reader(target, reference_key),
    )


def _spellings(field: Field, keyring: Keyring) -> Spellings | None:
    convert, edit = FIELD_TYPES[field.type].convert, edited_or_missing(field)
    if field.mask == "keep":

        def kept(id_: str) -> list[str]:
            try:
                stored = convert(edit(id_))
            except PermanentFault:
                return []  # such an id was never stored
            return _forms(stored)

        return kept
    domain = field.domain or field.name
    operators = [
        compile_operator(
            field.mask,
            kind=field.mask_kind,
            domain=domain,
            keyring=keyring.with_active("pseudonym", version),
        )
        for version in keyring.versions("pseudonym")
    ]
    properties = operators[0].properties
    if not (properties.deterministic and properties.joinable):
        return None

    masks = [masked(field, operator.mask) for operator in operators]

    def spellings(id_: str) -> list[str]:
        try:
            found = (mask(form) for mask in masks for form in _forms(edit(id_)))
            return list(dict.fromkeys(token for token in found if token is not None))
        except PermanentFault:
            return []  # such an id was never stored

    return spellings


def _forms(id_: str) -> list[str]:
    """Return an id's canonically equivalent spellings: all of them have one reference."""
    forms = (unicodedata.normalize(form, id_) for form in ("NFC", "NFD"))
    return list(dict.fromkeys([id_, *forms]))


async def with_column_types(session: Session, target: PersonColumns) -> PersonColumns:
    """Return the columns, completed with what the catalog says of them.

    Raises psycopg.Error, SettingsError where the column is missing or takes no random id.
    """
    rows = await session.execute(_COLUMNS, [target.table])
    known = {row[0]: _Known(*row[1:]) for row in rows}
    if target.column not in known:
        raise SettingsError(
            f"table {target.table} has no column {target.column!r}",
            code="target_column",
            hint="correct the mapping, or the table",
        )
    found = known[target.column]
    require_replaceable(target.column, found.base, target.table)
    keys = await target.read_keys(session) if target.read_keys else None
    return msgspec.structs.replace(
        target,
        keys=keys,
        version_type=known[keys.newer].type if keys else "",
        masked=tuple(column for column in target.masked if column in known),
        type=found.type,
        base=found.base,
        length_max=found.length_max,
        digits=found.digits,
        fillers={
            column: _filler(known[column])
            for column in target.masked
            if column in known and known[column].not_null
        },
    )


class _Known(NamedTuple):
    """A column as the catalog describes it."""

    type: str
    base: str
    not_null: bool
    length_max: int | None
    digits: int | None


def _filler(column: _Known) -> str:
    """Return the SQL that fills an erased person's NOT NULL column, by its type and length."""
    if column.base in _FILLERS:
        return _FILLERS[column.base]
    if column.base.startswith(ARRAY):
        return "'{}'"
    return f"left(m.name, {column.length_max})" if column.length_max else "m.name"


class TargetTables(NamedTuple):
    """The tables of one target at one moment."""

    leaves: list[Leaf]
    foreign: list[str]
    """Partitions on other servers, which no statement of ours touches. Quoted for SQL."""
    attached: frozenset[tuple[int, str]]
    """Differs as soon as a partition is attached or detached, even one that comes back."""
    by_person: bool
    """Whether a change of the person's columns may move a row to another partition."""


async def target_tables(
    session: Session,
    table: str,
    column: str,
    changed: Sequence[str] = (),
    kinds: Collection[str] = ("r",),
) -> TargetTables:
    """Return the tables that hold a target's rows, and whether `column` leads an index of each.

    `table` is quoted for SQL. `changed` are the columns that are about to change. `kinds` of
    pg_class.relkind count as leaves. Between this and
    a later statement rows may move, and partitions come and go: compare `attached` afterwards, and
    search all the leaves in one statement. Opens a transaction. Raises psycopg.Error.
    """
    async with session.transaction("SET LOCAL lock_timeout = '60s'"):
        rows = await session.execute(_TABLES, [table, table, column, [column, *changed]])
    # A foreign table that is the target itself is searched like a view; a partition is not.
    kinds = {*kinds} - ({"f"} if len(rows) > 1 else set())
    return TargetTables(
        [
            Leaf(name, pages or 0, leads)
            for kind, name, _, _, pages, leads, _ in rows
            if kind in kinds
        ],
        [name for kind, name, *_ in rows if kind == "f" and kind not in kinds],
        frozenset((oid, link) for _, _, oid, link, *_ in rows),
        any(moves for *_, moves in rows),
    )


def whole_if_moving(tables: TargetTables, table: str, *, indexed: bool) -> TargetTables:
    """Return the target as its only leaf where a change may move rows to another partition.

    A partition refuses a row that belongs to another one; the target moves it. `indexed`: as in
    `Leaf`, for statements that need no parts.
    """
    if not tables.by_person:
        return tables
    pages = sum(leaf.pages for leaf in tables.leaves) if indexed else 0
    return tables._replace(leaves=[Leaf(table, pages, indexed)])


async def tables_alike(session: Session, table: str) -> list[str]:
    """Return the tables outside a target that have all of its columns, quoted for SQL.

    A partition that was detached is one; so is a copy that somebody made. `table` is quoted for
    SQL. Raises psycopg.Error.
    """
    return [name for (name,) in await session.execute(_ALIKE, [table, table])]


def random_id(target: PersonColumns, pseudonym: UUID) -> str:
    """Return the random id of an erased person, by the column's type and length."""
    if target.base in INTEGER_RANGES or target.base == "numeric":
        _, highest = INTEGER_RANGES.get(target.base, INTEGER_RANGES["int8"])
        number = pseudonym.int & highest  # one less than a power of two
        return str(number if target.digits is None else number % 10 ** max(target.digits, 0))
    text = str(pseudonym)
    return (
        text
        if not target.length_max or target.length_max >= len(text)
        else (pseudonym.hex[: target.length_max])
    )


def spellings(target: PersonColumns, ids: Iterable[str]) -> list[tuple[str, str]]:
    """Return (id, spelling) pairs: every text that may stand for an id in the column.

    Without those that a column of its type cannot hold: PostgreSQL would quote them in an error,
    which goes to its log.
    """
    return [
        (id_, spelling)
        for id_ in ids
        for spelling in target.spellings(id_)
        if _storable(target.base, spelling)
    ]


def _storable(base: str, spelling: str) -> bool:
    if "\0" in spelling:
        return False
    plain = spelling.isascii() and "_" not in spelling
    try:
        if base in INTEGER_RANGES:
            lowest, highest = INTEGER_RANGES[base]
            return plain and lowest <= int(spelling) <= highest
        if base == "numeric":
            return plain and Decimal(spelling).is_finite()
        if base == "uuid":
            UUID(spelling)
    except (ValueError, ArithmeticError):
        return False
    return True
