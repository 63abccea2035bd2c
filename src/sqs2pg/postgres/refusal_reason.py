"""Why PostgreSQL refuses a batch without rows, and what to do: for `check`, and for a start.

The rehearsal gives an SQLSTATE and a table. The catalog says what is behind it: the right, the
column or the function that is missing, row-level security, a read-only login.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from sqs2pg.errors import FatalFault, TransientFault
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.missing_rights import missing_rights
from sqs2pg.postgres.rehearsal import Refusal
from sqs2pg.postgres.sqlstate import INSUFFICIENT_PRIVILEGE, STATEMENT_MODE
from sqs2pg.postgres.sqlstate_hints import STATEMENT_MODE_HINT, hint_of
from sqs2pg.postgres.target_copy import TargetTable

# Somebody else's lock, load or restart: it may pass by itself.
_PASSING = ("08", "25P", "40", "53", "55P03", "55006", "57", "58")

_READ_ONLY = """SELECT pg_is_in_recovery(), current_user, quote_ident(current_user), source
FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'"""
_TARGET = """SELECT c.relkind, row_security_active(c.oid),
    current_setting('row_security')::boolean, quote_ident(current_user)
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"""
_TEMPORARY = """SELECT current_user,
    has_database_privilege(current_database(), 'TEMPORARY'),
    format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), current_user)"""
_INGEST = """SELECT current_user, quote_ident(current_user), EXISTS (
    SELECT FROM pg_catalog.pg_roles r
    WHERE r.rolname = 'sqs2pg_ingest' AND pg_has_role(r.oid, 'USAGE'))"""


class _Reason(NamedTuple):
    """What is refused, what to do, and whether it may end by itself."""

    what: str
    hint: str
    passes: bool = False


def is_passing(refusal: Refusal) -> bool:
    """Whether the refusal may end by itself: a lock, too much load, a restart."""
    fault = refusal.fault
    return fault.sqlstate.startswith(_PASSING) and fault.place != STATEMENT_MODE


async def explain_refusal(
    session: Session, refusal: Refusal, targets: Sequence[TargetTable]
) -> FatalFault | TransientFault:
    """Return the refusal as an error for people. `session` may be any of the same role.

    A TransientFault where it may end by itself: the server is a standby that may be promoted.
    """
    state = refusal.fault.sqlstate
    try:
        reason = await _reason(session, refusal, targets)
    except psycopg.Error:
        reason = None
    what, hint, passes = reason or _in_general(refusal)
    said = f"no batch can be written: {what} (SQLSTATE {state})"
    if passes:
        return TransientFault(said, code=f"postgres_{state}", hint=hint, table=refusal.table)
    return FatalFault(said, code=f"postgres_{state}", hint=hint)


def _in_general(refusal: Refusal) -> _Reason:
    where = f"{refusal.needs} on {refusal.table}" if refusal.table else "its transaction"
    place = refusal.fault.place
    about = f" ({place})" if place and place not in refusal.table else ""
    hint = hint_of(refusal.fault.sqlstate)
    return _Reason(f"PostgreSQL refuses {where}{about}", hint, is_passing(refusal))


async def _reason(
    session: Session, refusal: Refusal, targets: Sequence[TargetTable]
) -> _Reason | None:
    state = refusal.fault.sqlstate
    if refusal.fault.place == STATEMENT_MODE:
        what = "a pooler in statement pooling mode is in between, which allows no transactions"
        return _Reason(what, STATEMENT_MODE_HINT)
    if state == "25006":
        return await _read_only(session)
    for target in targets:
        if target.name == refusal.table:
            return await _of_target(session, target, refusal)
    if state == INSUFFICIENT_PRIVILEGE and not refusal.table and any(t.staging for t in targets):
        [(role, may, grant)] = await session.execute(_TEMPORARY)
        if not may:
            what = f"the login {role} may not make temporary tables, in which rows are staged"
            return _Reason(what, grant)
    return await _of_books(session, refusal) if state == INSUFFICIENT_PRIVILEGE else None


async def _read_only(session: Session) -> _Reason:
    [(standby, role, quoted, source)] = await session.execute(_READ_ONLY)
    if standby:
        return _Reason(
            "the server is a standby, which is read-only",
            "connect to the primary: target_session_attrs=read-write",
            passes=True,
        )
    return _Reason(
        f"the login {role} is read-only: default_transaction_read_only is on ({source})",
        f"ALTER ROLE {quoted} SET default_transaction_read_only = off; or choose another login",
    )


async def _of_target(session: Session, target: TargetTable, refusal: Refusal) -> _Reason | None:
    state = refusal.fault.sqlstate
    rows = await session.execute(_TARGET, [target.table])
    if not rows:
        return _Reason(f"the table {target.name} is gone", "restore it, or run `sqs2pg migrate`")
    [(kind, row_security, row_security_on, role)] = rows
    if state == "0A000" and row_security:
        return _Reason(
            f"row-level security of {target.name} applies to this login by now, and COPY is not "
            "possible under it",
            "start it again: it writes the table by INSERT then",
        )
    if row_security and not row_security_on:
        return _Reason(
            f"row-level security of {target.name} applies to this login, whose row_security is off",
            f"ALTER ROLE {role} SET row_security = on",
        )
    if state == "42P10":
        return _Reason(
            f"{target.name} has no unique index of its key any more",
            "run `sqs2pg check`: it prints the CREATE UNIQUE INDEX",
        )
    if kind == "f":
        return _Reason(
            f"the server of the foreign table {target.name} does not take its rows now",
            "look at its CREATE SERVER and USER MAPPING, and at the table over there",
            is_passing(refusal),
        )
    if state == INSUFFICIENT_PRIVILEGE:
        missing = await missing_rights(session, target)
        if missing:
            return _Reason(
                f"this login lacks, for {target.name}, {'; '.join(one.what for one in missing)}",
                "; ".join(one.grant for one in missing),
            )
        if row_security:
            return _Reason(
                f"a policy of {target.name} uses a table or function that this login may not use",
                "look at its policies (\\d in psql), and GRANT the login SELECT or EXECUTE on what "
                "they name",
            )
    if state in ("42P01", "42703", "42883"):
        return _Reason(
            f"a trigger or default of {target.name} uses a table, column or function that is not "
            "there",
            "look at its triggers FOR EACH STATEMENT and its defaults (\\d+ in psql)",
        )
    return None


async def _of_books(session: Session, refusal: Refusal) -> _Reason:
    [(role, quoted, member)] = await session.execute(_INGEST)
    lacks = f" lacks {refusal.needs} on {refusal.table}" if refusal.table else " may not begin one"
    if member:
        hint = "run `sqs2pg migrate` as the schema's owner: it grants sqs2pg_ingest its rights anew"
    else:
        hint = f"GRANT sqs2pg_ingest TO {quoted}"
    return _Reason(f"the login {role}{lacks}", hint)
