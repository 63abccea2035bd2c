"""Rows that were deleted after a rotation, under a token that they did not have.

A record that deletes finds the row of its key by the token of the active version. A row with an old
token stays, and so does the tombstone: a mark of the key in clear, which every version shares. A
rekey opens the keys of such rows, makes their marks, and deletes the rows that are older than their
tombstone before they get their new tokens.

Must never do: delete a row as new as its tombstone, or newer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqs2pg.errors import Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.column_cells import masked
from sqs2pg.mapping.key_marks import mark_operator
from sqs2pg.mask.pseudonymize import TOKEN_HEX_DIGITS
from sqs2pg.postgres.catalog import read_columns
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_identifier, quote_literal, quote_table
from sqs2pg.postgres.tombstones import KEY_TEXTS, is_later, stored_version
from sqs2pg.settings import Target
from sqs2pg.settings.staged_fields import MARK, staged_fields
from sqs2pg.vault.crypto import KeyEncryptionKeys, open_value
from sqs2pg.vault.reference_key import reference_key
from sqs2pg.vault.target_rows import Leaf

_ANY = "SELECT EXISTS (SELECT FROM sqs2pg.tombstone WHERE target = %s)"
_PREPARE = f"""{KEY_TEXTS};
CREATE TEMP TABLE IF NOT EXISTS sqs2pg_marks (part oid, address tid, mark bytea) ON COMMIT DROP"""
_KEYS = "SELECT t.tableoid::bigint, t.ctid::text{columns} FROM {leaf} t {joins} WHERE true{range}"
_JOIN = """JOIN pii.token_map m_{number} ON m_{number}.old_token = t.{column}
CROSS JOIN LATERAL (
    SELECT v.token, v.sealed, encode(uuid_send(v.subject), 'hex') AS subject, v.generation,
           k.wrapped_key, k.key_version
    FROM pii.value v
    JOIN pii.subject_key k ON k.subject = v.subject AND k.generation = v.generation
    WHERE v.token_hash = hashtextextended(m_{number}.new_token, 0)
    AND v.token = m_{number}.new_token AND v.field = {field} AND k.wrapped_key IS NOT NULL
    LIMIT 1) v_{number}"""
_SEALED = "token, sealed, subject, generation, wrapped_key, key_version"
_COPY = "COPY pg_temp.sqs2pg_marks FROM STDIN"
_DELETE = """WITH gone AS (
    DELETE FROM {leaf} t USING pg_temp.sqs2pg_marks x
    JOIN sqs2pg.tombstone b ON b.target = {target} AND b.key = x.mark
    WHERE t.tableoid = x.part AND t.ctid = x.address
    AND ({older})
    RETURNING 1)
SELECT count(*) FROM gone"""
_CLEAR = "TRUNCATE pg_temp.sqs2pg_marks"

Mark = Callable[[str], str | None]


class DeletedRows:
    """Finds and deletes the rows of one target that have `delete_when` and `newer`."""

    def __init__(
        self, session: Session, target: Target, fields: Mapping[str, str], keyring: Keyring
    ) -> None:
        """`fields`: the names in the vault of the columns of the key that get new tokens."""
        self._session = session
        self._target = target
        self._fields = fields
        self._keyring = keyring
        self._keks = KeyEncryptionKeys(keyring)
        self._marks: dict[str, Mark] = {}
        self._name = self._type = ""

    @staticmethod
    def leaves_any(target: Target, fields: Mapping[str, str]) -> bool:
        """Whether a target may have such rows, and their marks can be made."""
        write = target.write
        masks = {field.column: field.mask for field in target.fields}
        others = (column for column in write.key if column not in fields)
        return bool(
            write.delete_when and write.newer and all(masks[one] == "keep" for one in others)
        )

    async def prepare(self, name: str, types: Mapping[str, str]) -> None:
        """Make the marks' operators. `name` is the target's in the books.

        Raises KeyFault, SettingsError, TransientFault.
        """
        target, self._name, self._type = self._target, name, types[self._target.write.newer]
        found = await read_columns(self._session, quote_table(target.table))
        columns = [found[field.column] for field in target.fields]
        secret = await reference_key(self._session, self._keyring)
        staged = {field.column: field for field in staged_fields(target)}
        for number, column in enumerate(target.write.key):
            mask = mark_operator(target, columns, secret, column).mask
            # What the table has was converted before; what the vault has was not.
            self._marks[column] = (
                masked(staged[f"{MARK}{number}"], mask) if column in self._fields else mask
            )

    async def drop(self, leaf: Leaf, part: str) -> int:
        """Delete what is older than its tombstone in one range of a table; return how many rows.

        Others must not write to the table meanwhile. Raises psycopg.Error.
        """
        [(any_,)] = await self._session.execute(_ANY, [self._name])
        if not any_:
            return 0
        await self._session.execute(_PREPARE)
        rows = await self._session.execute(self._keys(leaf, part))
        lines = [line for line in map(self._line, rows) if line]
        if not lines:
            return 0
        await self._session.copy(_COPY, "".join(lines))
        version = f"t.{quote_identifier(self._target.write.newer)}"
        statement = _DELETE.format(
            leaf=leaf.table,
            target=quote_literal(self._name),
            older=is_later(stored_version("b.version", self._type), version),
        )
        [(deleted,)] = await self._session.execute(f"{statement};\n{_CLEAR}")
        return int(deleted)

    def _keys(self, leaf: Leaf, part: str) -> str:
        columns, joins = "", []
        for number, column in enumerate(self._target.write.key):
            name = quote_identifier(column)
            if column in self._fields:
                field = quote_literal(self._fields[column])
                joins.append(_JOIN.format(number=number, column=name, field=field))
                columns += "".join(f", v_{number}.{one}" for one in _SEALED.split(", "))
            else:
                columns += f", t.{name}::text"
        return _KEYS.format(leaf=leaf.table, columns=columns, joins=" ".join(joins), range=part)

    def _line(self, row: tuple[Any, ...]) -> str:
        """Return a row's address and mark as a line for COPY; empty where its key does not open."""
        part, address, *values = row
        marks, left = [], iter(values)
        try:
            for column in self._target.write.key:
                text = self._opened(column, left) if column in self._fields else next(left)
                marks.append((self._marks[column](text) or "")[-TOKEN_HEX_DIGITS:])
        except Sqs2pgError:
            return ""
        return f"{part}\t{address}\t\\\\x{''.join(marks)}\n"

    def _opened(self, column: str, values: Any) -> str:
        token, sealed, subject, generation, wrapped, version = (next(values) for _ in range(6))
        key = self._keks.open_data_key(version, wrapped, subject, generation)
        return open_value(key, sealed, self._fields[column], token, subject)
