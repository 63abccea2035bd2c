"""The way into a target: COPY, or staged lines and an INSERT where COPY does not do.

COPY goes past a table's rules, is refused under row-level security, and is more than many foreign
servers take; INSERT is not. The catalog says which of them a table has, for the session's role. The
rehearsal then sends the chosen statements without rows, before anything is received.

Must never do: choose a way on which the server's count is not that of the rows in the table. The
books could not hold, so such a table is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqs2pg.errors import SettingsError
from sqs2pg.postgres.catalog import readable
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.postgres.staging import StagedInsert
from sqs2pg.postgres.state_catalog import read_merge, read_types
from sqs2pg.postgres.state_table import Merge
from sqs2pg.settings import Target

# Of a rule: its name, whether it acts INSTEAD, whether under a condition, whether it inserts. Those
# of ev_type 2 are ON UPDATE: with ON CONFLICT, PostgreSQL accepts neither.
_FACTS = """SELECT c.relkind, row_security_active(c.oid),
    EXISTS (SELECT FROM pg_catalog.pg_policy p
            WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('a', '*')
            AND (0 = ANY (p.polroles) OR EXISTS (
                SELECT FROM unnest(p.polroles) r
                WHERE CASE WHEN r <> 0 THEN pg_has_role(r, 'USAGE') END))),
    ARRAY(SELECT json_build_object(
              'name', r.rulename, 'event', r.ev_type, 'instead', r.is_instead,
              'conditional', r.ev_qual::text <> '<>',
              'inserts', r.ev_action::text ~ 'QUERY :commandType 3 ')
          FROM pg_catalog.pg_rewrite r
          WHERE r.ev_class = c.oid AND r.ev_type IN ('2', '3') AND r.ev_enabled IN ('O', 'A')
          ORDER BY r.rulename)
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"""

_ROW_SECURITY = "row-level security applies to this login, and COPY is not possible under it"
_FOREIGN = "it is a foreign table, and not every foreign server takes COPY"


class _Facts(NamedTuple):
    """What the catalog says of a table, for the session's role."""

    kind: str
    row_security: bool
    """Whether it applies to the role."""
    has_policy: bool
    """Whether any policy could admit a row."""
    rules: list[Mapping[str, object]]

    def named(self, event: str = "3") -> list[str]:
        """Return the names of the rules on an event."""
        return [str(rule["name"]) for rule in self.rules if rule["event"] == event]


async def read_write_path(
    session: Session, target: Target, name: str
) -> Merge | StagedInsert | None:
    """Return how rows get from a staging table into a target; None where COPY writes it.

    `name` is the table's in the books. The table is there, and the mapping fits it. Raises
    SettingsError where no way leads there on which the books hold, TransientFault where the
    database does not describe it.
    """
    reason = await insert_reason(session, target)
    if target.write.keeps_state:
        return await read_merge(session, target, name)
    if not reason:
        return None
    table = quote_table(target.table)
    types = await read_types(session, table)
    columns = tuple(field.column for field in target.fields)
    return StagedInsert(table, columns, tuple(types[column] for column in columns), reason)


async def insert_reason(session: Session, target: Target) -> str:
    """Return why rows are inserted from a staging table; empty where COPY, or a merge, writes them.

    Raises as `read_write_path`, but says nothing of a state table's key.
    """
    table = quote_table(target.table)
    with readable(table):
        rows = await session.execute(_FACTS, [table])
    facts = _Facts(*rows[0])
    _require_policy(target, facts)
    if target.write.keeps_state:
        _require_mergeable(target, facts)
        return ""
    _require_countable(target, facts)
    return _reason(facts)


def _reason(facts: _Facts) -> str:
    """Return why COPY does not write a table; empty where it does."""
    reasons = []
    if facts.row_security:
        reasons.append(_ROW_SECURITY)
    if rules := facts.named():
        reasons.append(f"COPY ignores its rules ON INSERT: {', '.join(rules)}")
    if facts.kind == "f":
        reasons.append(_FOREIGN)
    return "; and ".join(reasons)


def _require_policy(target: Target, facts: _Facts) -> None:
    if not facts.row_security or facts.has_policy:
        return
    table = quote_table(target.table)
    raise SettingsError(
        f"row-level security of table {target.table} applies to this login, and no policy of it "
        "admits an INSERT: every row would be refused",
        code="target_policy",
        hint=f"CREATE POLICY … ON {table} FOR INSERT TO the login WITH CHECK (…); or ALTER ROLE … "
        "BYPASSRLS",
    )


def _require_countable(target: Target, facts: _Facts) -> None:
    """Refuse rules INSTEAD of an insert into a table: its rows are not those that came.

    A view is nothing but its rule. It is accepted if that inserts whatever comes.
    """
    instead = [rule for rule in facts.rules if rule["event"] == "3" and rule["instead"]]
    if not instead:
        return
    names = ", ".join(f"INSTEAD {rule['name']}" for rule in instead)
    if facts.kind == "v":
        [first, *others] = instead
        if first["inserts"] and not (first["conditional"] or others):
            return
        raise SettingsError(
            f"the rules of view {target.table} may leave rows out, or write them twice, and the "
            f"books could not hold: {names}",
            code="target_rule",
            hint="give the view one rule ON INSERT DO INSTEAD INSERT without a condition, or an "
            "INSTEAD OF INSERT trigger",
        )
    raise SettingsError(
        f"rules ON INSERT take rows away from table {target.table}, and the books could not hold: "
        f"{names}",
        code="target_rule",
        hint="name the table that the rule writes to in sink.table, or make the rule a trigger "
        "(CREATE TRIGGER … BEFORE or AFTER INSERT) and DROP RULE",
    )


def _require_mergeable(target: Target, facts: _Facts) -> None:
    if facts.kind in "vf":
        raise SettingsError(
            f'table {target.table} has mode = "{target.write.mode}", and is '
            + ("a view" if facts.kind == "v" else "a foreign table"),
            code="target_rule",
            hint="name a table of this database: only its unique index keeps one row per key",
        )
    if rules := [*facts.named(), *facts.named("2")]:
        raise SettingsError(
            f"table {target.table} has rules ON INSERT or ON UPDATE "
            f"({', '.join(rules)}), and PostgreSQL accepts no ON CONFLICT with them",
            code="target_rule",
            hint="make each a trigger (CREATE TRIGGER … BEFORE or AFTER), then DROP RULE",
        )
