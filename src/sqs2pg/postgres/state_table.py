"""State tables: one row per key. Rows are staged, and then merged into the table by one INSERT.

COPY cannot meet a row that is there. So a batch's lines are copied into a temporary table
(`staging.py`), and one INSERT … ON CONFLICT takes them on from there, in the order of their keys:
two writers that meet then wait for each other and never deadlock. MERGE would not do: two at once
raise a unique violation, which looks like a bad row.

Must never do: let an older version, or one without a version, change a row.
"""

from __future__ import annotations

from sqs2pg.message import RowChanges
from sqs2pg.postgres.identifiers import quote_identifier, quote_literal
from sqs2pg.postgres.staging import LINE, Staging, column_list
from sqs2pg.postgres.tombstones import Tombstones, is_later


class Merge(Staging, frozen=True):
    """How staged lines get into one table, merged by key."""

    key: tuple[str, ...]
    update: tuple[str, ...] = ()
    """The columns that a newer row changes. None of them: the first row of a key stays."""
    newer: str = ""
    """The column that orders versions; "": the later commit wins."""
    keep_if_null: bool = False
    knows_old: bool = True
    """Whether RETURNING tells an inserted row from an updated one: PostgreSQL 18 and later."""
    tombstones: Tombstones | None = None
    """None: no row of it is remembered once it is deleted, and no line deletes."""
    triggers: bool = False
    """Whether a trigger of the table may swallow rows: BEFORE INSERT, FOR EACH ROW."""
    sealed: tuple[str, ...] = ()
    """The columns whose originals the vault keeps. None of them: what lines are held is not asked.
    """

    @property
    def rights(self) -> dict[str, tuple[str, ...]]:
        """The privileges on the table that a merge needs, with their columns.

        To set a column to what was proposed for it PostgreSQL wants SELECT on the column.
        """
        read = [*self.key, *self.update]
        rights = {"INSERT": self.columns, "SELECT": tuple(dict.fromkeys(read))}
        rights |= {"UPDATE": self.update} if self.update else {}
        return rights | ({"DELETE": ()} if self._flag else {})

    @property
    def _staged(self) -> tuple[str, ...]:
        return (*self.columns, *(self.tombstones.staged if self.tombstones else ()))

    @property
    def _flag(self) -> str:
        """The staged column that says whether a line deletes, quoted for SQL; "": no line does."""
        flag = self.tombstones.flag if self.tombstones else ""
        return flag and quote_identifier(flag)

    @property
    def _form(self) -> tuple[str, ...]:
        return ("", *self.key)

    @property
    def _ddl(self) -> list[str]:
        """A key that is NULL is refused here: a unique index would take it any number of times."""
        lines = [
            f"{quote_identifier(name)} {type_}{' NOT NULL' if name in self.key else ''}"
            for name, type_ in zip(self.columns, self.types, strict=True)
        ]
        if self.tombstones is not None:
            lines += [
                f"{quote_identifier(name)} {'boolean' if name == self.tombstones.flag else 'text'}"
                " NOT NULL"
                for name in self.tombstones.staged
            ]
        if self.keep_if_null:
            # For the look at other versions.
            lines.append(f"UNIQUE ({column_list(self.key)}, {LINE})")
        return lines

    def apply(self) -> str:
        """Return the statements that merge what is staged.

        They give one row: how many rows were inserted, how many inserted or updated, and how many
        deleted. With `sealed` also the places, from 0, of the lines of which the table holds
        nothing.
        """
        if not self.update:
            return self._ignore()
        several = f"\nseveral AS ({self._several()})," if self.keep_if_null else ""
        counting = f"\ncounting AS ({self._counting()})," if self.keep_if_null else ""
        newest = f"newest AS ({self._newest()}),"
        names, key = column_list(self.columns), column_list(self.key)
        first = f"old.{quote_identifier(self.key[0])} IS NULL" if self.knows_old else "true"
        held, left_out = self._held(), self._left_out()
        source = "newest" if self.tombstones is None else "live"
        # The count makes the rows go before others come: a key that does both is inserted anew.
        kept = "\n    WHERE (SELECT count(*) FROM deleted) >= 0" if self._flag else ""
        booked = f"\nbefore AS MATERIALIZED (SELECT {self._booked()} AS n{kept}),"
        deleted = "(SELECT count(*) FROM deleted)" if self._flag else "0"
        live = f"\nlive AS MATERIALIZED ({self._live()})," if self.tombstones else ""
        source += " n" + (f"\n    JOIN oldest o ON {self._same('n', 'o')}" if self._firsts else "")
        source += "" if self.knows_old else " CROSS JOIN before"
        before = self._oldest() + ("" if self.knows_old else booked)
        merge = f"""WITH {self._buried()}{newest}{several}{self._deleting()}{counting}{live}{before}
written AS (
    INSERT INTO {self.table} AS t ({names})
    SELECT {self._proposed()} FROM {source}{kept}
    ORDER BY {column_list(self.key, "n.")}
    ON CONFLICT ({key}) DO UPDATE SET {self._changes()}{self._condition()}
    RETURNING {first} AS fresh{self._returned("t.")}
){held}
SELECT {self._inserted()}, count(*), {deleted}{left_out} FROM written"""
        return self._guarded(merge, self.tombstones) if self.tombstones and self._flag else merge

    def _newest(self) -> str:
        """Return the query of the newest line of each key; of equal versions it is the first."""
        key = column_list(self.key)
        order = self._newest_first("") if self.update else LINE
        return f"SELECT DISTINCT ON ({key}) * FROM {self.stage} ORDER BY {key}, {order}"

    @property
    def _firsts(self) -> tuple[str, ...]:
        """The columns that keep what the first version of a row has: they are not in `update`."""
        others = {*self.key, *self.update}
        return tuple(name for name in self.columns if name not in others) if self.update else ()

    def _oldest(self) -> str:
        """Return the query of each key's oldest line that no deletion follows: `oldest`.

        So the lines of one batch give the same row as if they came one by one, in their order.
        """
        if not self._firsts:
            return ""
        key = column_list(self.key, "s.")
        version = f"s.{quote_identifier(self.newer)} NULLS FIRST, " if self.newer else ""
        return f"""
oldest AS (
    SELECT DISTINCT ON ({key}) {column_list((*self.key, *self._firsts), "s.")} FROM {self.stage} s
    WHERE true{self._stands()} ORDER BY {key}, {version}s.{LINE}
),"""

    def _stands(self) -> str:
        """Return the condition that a line, as `s`, sets a row that no deletion has ended.

        It begins with AND; empty where none can.
        """
        stands = self._after_tombstone("s")
        if self._flag:
            later = self._is_newer("s", "e") if self.newer else f"s.{LINE} > e.{LINE}"
            ended = f"SELECT FROM ended e WHERE {self._same('s', 'e')} AND ({later}) IS NOT TRUE"
            stands += f" AND NOT s.{self._flag} AND NOT EXISTS ({ended})"
        return stands

    def count_swallowed(self) -> str:
        """Return the query how many staged keys have no row after `apply`, and should have one."""
        same, source = self._same("n", "t"), self._newest()
        if self.tombstones is not None:
            source = f"WITH {self._buried()}newest AS ({source}) {self._live()}"
        return f"""SELECT count(*) FROM ({source}) n
WHERE NOT EXISTS (SELECT FROM {self.table} t WHERE {same})"""

    # -- delete_when ------------------------------------------------------------------------

    def _deleting(self) -> str:
        """Return the queries of what deletes rows.

        A key may have lines that delete, and newer ones: its row goes, and a new one comes.
        """
        gone, flag = self.tombstones, self._flag
        if gone is None or not flag:
            return ""
        key, same = column_list(self.key), self._same("n", "t")
        noted = ""
        if self.newer:
            version, target = quote_identifier(self.newer), quote_literal(gone.target)
            same += f" AND {self._is_newer('n', 't')}"
            noted = f"""
noted AS (
    INSERT INTO sqs2pg.tombstone AS b (target, key, version)
    SELECT {target}, {gone.mark}, to_jsonb({version}) FROM ended
    WHERE {version} IS NOT NULL ORDER BY 2
    ON CONFLICT (target, key) DO UPDATE SET version = excluded.version, deleted_at = now()
),"""
        return f"""
ended AS MATERIALIZED (
    SELECT DISTINCT ON ({key}) n.* FROM {self._first_lines()} n
    WHERE n.{flag}{self._after_tombstone("n")}
    ORDER BY {key}, {self._newest_first("n.")}
),
deleted AS MATERIALIZED (
    DELETE FROM {self.table} t USING ended n WHERE {same} RETURNING 1
),{noted}"""

    def _live(self) -> str:
        """Return the query of the newest lines that are newer than any deletion of their key."""
        stays = f"NOT n.{self._flag}" if self._flag else "true"
        return f"SELECT n.* FROM newest n WHERE {stays}{self._after_tombstone('n')}"

    def _first_lines(self) -> str:
        """Return the lines; of equal versions of a key the first, since others change nothing."""
        if not self.newer:
            return self.stage
        names = f"{column_list(self.key)}, {quote_identifier(self.newer)}"
        lines = f"SELECT DISTINCT ON ({names}) * FROM {self.stage} ORDER BY {names}, {LINE}"
        return f"({lines})"

    def _after_tombstone(self, row: str) -> str:
        """Return the condition that a line is newer than its tombstones, if there are any.

        It begins with AND; empty where nothing is remembered.
        """
        if not (self.newer and self.tombstones):
            return ""
        return f" AND {self.tombstones.spare(row, self.newer)}"

    def _buried(self) -> str:
        """Return the query of the tombstones of the staged lines: `buried`."""
        if not (self.newer and self.tombstones):
            return ""
        return f"buried AS MATERIALIZED ({self.tombstones.of_stage(self.stage)}),\n"

    def _same(self, one: str, other: str) -> str:
        """Return the condition that two rows have one key."""
        return " AND ".join(f"{other}.{k} = {one}.{k}" for k in map(quote_identifier, self.key))

    def _guarded(self, merge: str, gone: Tombstones) -> str:
        """Return a merge during which, and until COMMIT, nobody else merges the same keys.

        Otherwise one writer could delete what it does not see yet, and another insert it.
        """
        return f"{self._guard(gone, 'guarded')};\n{merge};\n{self._unguard('guarded')}"

    def _guard(self, gone: Tombstones, name: str) -> str:
        return f"""WITH guarded AS (
    INSERT INTO sqs2pg.key_guard (key) SELECT DISTINCT {gone.guard} FROM {self.stage}
    ORDER BY 1 ON CONFLICT DO NOTHING RETURNING ctid
)
SELECT set_config('sqs2pg.{name}', coalesce(array_agg(ctid), '{{}}')::text, true) FROM guarded"""

    def _unguard(self, name: str) -> str:
        places = f"current_setting('sqs2pg.{name}')::tid[]"
        return f"DELETE FROM sqs2pg.key_guard WHERE ctid = ANY ({places})"

    # -- the slow path merges in pieces, whose keys are in no order ------------------------------

    def reserve(self) -> str:
        """Return the statement that keeps others from the staged keys until COMMIT; "": none does.

        The order of keys is kept, so two that reserve wait for each other and never deadlock. Keys
        that the table does not have yet are only reserved where rows are deleted.
        """
        if self.tombstones and self._flag:
            return self._guard(self.tombstones, self._reserved)
        if not self.update:
            return ""
        keys, key = f"SELECT DISTINCT {column_list(self.key)} FROM {self.stage}", self.key
        return f"""SELECT count(*) FROM (
    SELECT FROM {self.table} t JOIN ({keys}) s ON {self._same("s", "t")}
    ORDER BY {column_list(key, "t.")} FOR UPDATE OF t) locked"""

    def release(self) -> str:
        """Return the statement that follows the pieces after `reserve`; "": none does."""
        return self._unguard(self._reserved) if self.tombstones and self._flag else ""

    @property
    def _reserved(self) -> str:
        return f"reserved_{self.stage.rpartition('_')[2]}"

    def changes(self, lines: int, inserted: int, written: int, deleted: int) -> RowChanges:
        """Return what became of staged lines, from what `apply` returned."""
        left = lines - written - deleted
        if not self.update:
            return RowChanges(inserted=inserted, ignored=left)
        updated = written - inserted
        return RowChanges(inserted, updated, superseded=left, deleted=deleted)

    def _ignore(self) -> str:
        key = column_list(self.key)
        newest = f",\nnewest AS ({self._newest()})" if self.sealed else ""
        return f"""WITH written AS (
    INSERT INTO {self.table} ({column_list(self.columns)})
    SELECT {column_list(self.columns)} FROM {self.stage} ORDER BY {key}, {LINE}
    ON CONFLICT ({key}) DO NOTHING RETURNING 1 AS fresh{self._returned("")}
){newest}{self._held()}
SELECT count(*), count(*), 0{self._left_out()} FROM written"""

    # -- what is held: the vault seals no line that is superseded or ignored ----------------------

    @property
    def _kept(self) -> tuple[str, ...]:
        """The sealed columns that a row may have from an older line than the newest one."""
        kept = {*self._firsts, *(self.update if self.keep_if_null else ())}
        return tuple(name for name in self.sealed if name in kept)

    def _returned(self, row: str) -> str:
        if not self.sealed:
            return ""
        return f", {column_list((*self.key, *self._kept), row)}"

    def _held(self) -> str:
        """Return the query of the lines that the table has something of: `held`."""
        if not self.sealed:
            return ""
        key = self._same("n", "w")
        if not self._kept:
            return f",\nheld AS (SELECT n.{LINE} FROM newest n JOIN written w ON {key})"
        same = " OR ".join(f"w.{name} = n.{name}" for name in map(quote_identifier, self._kept))
        return f""",
held AS (
    SELECT n.{LINE} FROM {self.stage} n JOIN written w ON {key}
    WHERE n.{LINE} IN (SELECT {LINE} FROM newest) OR {same}
)"""

    def _left_out(self) -> str:
        """Return the column of `apply` with the places of the other lines.

        Where a trigger may have changed a row's key nobody knows whose line it was: all are held.
        """
        if not self.sealed:
            return ""
        places = (
            f"SELECT {LINE}, row_number() OVER (ORDER BY {LINE}) - 1 AS place FROM {self.stage}"
        )
        left_out = f"""(SELECT coalesce(array_agg(l.place ORDER BY l.place), '{{}}')
    FROM ({places}) l WHERE NOT EXISTS (SELECT FROM held h WHERE h.{LINE} = l.{LINE}))"""
        if self.triggers:
            changed = "(SELECT count(*) FROM held) < count(*)"
            left_out = f"CASE WHEN {changed} THEN '{{}}' ELSE {left_out} END"
        return f", {left_out}"

    def _inserted(self) -> str:
        if self.knows_old:
            return "count(*) FILTER (WHERE fresh)"
        return f"{self._booked()} - (SELECT n FROM before)"

    def _booked(self) -> str:
        """Return how many rows this transaction has added so far, by the server's statistics.

        To the table and its partitions; deleted ones are taken off. A row that another writer has
        put in at the same moment was inserted and deleted again before it is updated. The system
        column xmax, by which others tell, cannot be read in a partition whose columns stand in
        another order.
        """
        table = f"{quote_literal(self.table)}::regclass"
        tables = f"SELECT {table} AS relid UNION SELECT relid FROM pg_partition_tree({table})"
        added = (
            "pg_stat_get_xact_tuples_inserted(r.relid) - pg_stat_get_xact_tuples_deleted(r.relid)"
        )
        return f"(SELECT sum({added})::bigint FROM ({tables}) r)"

    def _newest_first(self, row: str) -> str:
        """Return the order of one key's lines: the newest first, of equal versions the first."""
        if not self.newer:
            return f"{row}{LINE} DESC"
        return f"{row}{quote_identifier(self.newer)} DESC NULLS LAST, {row}{LINE}"

    def _changes(self) -> str:
        if not self.keep_if_null:
            return ", ".join(f"{name} = excluded.{name}" for name in self._update)
        newer = f" AND {self._is_newer('s', 't')}" if self.newer else ""
        return ", ".join(
            f"{name} = coalesce({self._latest(name, 'excluded', newer)}, t.{name})"
            for name in self._update
        )

    def _condition(self) -> str:
        return f"\n    WHERE {self._is_newer('excluded', 't')}" if self.newer else ""

    def _is_newer(self, row: str, than: str) -> str:
        name = quote_identifier(self.newer)
        return f"({is_later(f'{row}.{name}', f'{than}.{name}')})"

    # -- keep_if_null: a column has the newest value that any version of the key has -----------

    def _several(self) -> str:
        """Return the query whether any key is staged more than once."""
        grouped = f"SELECT FROM {self.stage} GROUP BY {column_list(self.key)} HAVING count(*) > 1"
        return f"SELECT EXISTS ({grouped}) AS versions"

    def _counting(self) -> str:
        """Return the query of the lines that count: those newer than any deletion of their key.

        As a set, which is hashed: asked line by line it would be the dearest part of a merge.
        """
        lines = f"SELECT s.{LINE} FROM {self._first_lines()} s"
        return f"{lines} WHERE true{self._stands()}"

    def _proposed(self) -> str:
        kept = self.update if self.keep_if_null else ()
        return ", ".join(
            self._latest(quote_identifier(name), "n")
            if name in kept
            else f"{'o' if name in self._firsts else 'n'}.{quote_identifier(name)}"
            for name in self.columns
        )

    def _latest(self, name: str, row: str, only: str = "") -> str:
        """Return what a column gets from the staged lines of one key, as if they came one by one.

        `row` is the newest of them; `only` is a condition on the others, as `s`.
        """
        # IS TRUE keeps the set a set: otherwise it is joined anew for each row.
        only += f" AND (s.{LINE} IN (SELECT {LINE} FROM counting)) IS TRUE"
        same = self._same(row, "s")
        found = (
            f"SELECT s.{name} FROM {self.stage} s WHERE {same} AND s.{name} IS NOT NULL{only}"
            f" ORDER BY {self._newest_first('s.')} LIMIT 1"
        )
        return f"CASE WHEN (SELECT versions FROM several) THEN ({found}) ELSE {row}.{name} END"

    @property
    def _update(self) -> tuple[str, ...]:
        return tuple(map(quote_identifier, self.update))
