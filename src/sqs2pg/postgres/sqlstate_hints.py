"""What to do about each SQLSTATE: a hint for people, by code or by class.

The codes are those of PostgreSQL 18 ("PostgreSQL Error Codes"); a class is their first two letters.
"""

from __future__ import annotations

ROLES_HINT = (
    "ask the owner of the schema sqs2pg, who runs `sqs2pg migrate`, to GRANT this login the role "
    "of what it does: sqs2pg_ingest for run and backfill, sqs2pg_revealer for reveal, "
    "sqs2pg_auditor for verify --audit; everything else is the owner's own"
)
STATEMENT_MODE_HINT = (
    "batches are transactions: set pool_mode = transaction (or session) for this database and "
    "user in the pooler, or connect past it"
)
_LOG = "the server's log has the message; it is not shown here, since it may quote a row"
_AGAIN = "run it again; if it is refused again, look at pg_stat_activity for who holds the lock"
_SCHEMA = (
    "run `sqs2pg check`: it names the table, column or function that is missing; `sqs2pg migrate` "
    "brings sqs2pg's own up to date"
)

_HINTS = {
    "08P01": f"a pooler in between may have refused it: see its log. {STATEMENT_MODE_HINT}",
    "08": "the connection ended: check the server and the network, then run it again",
    "0A": "the table, the server or a pooler in between does not support the statement: "
    "`sqs2pg check` names the table and what to change",
    "22": "a value does not fit its column: compare the table's types with the mapping",
    "23": "a constraint refuses it: look at the one that the error names",
    "25006": "the server or this login is read-only: connect to the primary "
    "(target_session_attrs=read-write), or take back default_transaction_read_only",
    "25": "the transaction was ended by the server or a pooler: run it again",
    "28": "check user and password (sink.dsn, DATABASE_URL, PGPASSWORD, ~/.pgpass)",
    "3D": "create the database (createdb), or correct its name in sink.dsn or DATABASE_URL",
    "3F": "a schema that a table's name begins with is not there: CREATE SCHEMA first",
    "40": "others changed the same rows at the same time: run it again",
    "42501": ROLES_HINT,
    "42": _SCHEMA,
    "44": "a view's WITH CHECK OPTION refuses the row: look at the view",
    "53100": "the server's disk is full: free some space, then run it again",
    "53300": "raise max_connections, or use fewer connections; then run it again",
    "53": "the server is out of memory, disk or connections: free some, then run it again",
    "54": "a limit of the server is exceeded, such as max_stack_depth: see its log",
    "55000": "the table is not in a state that allows it: a published one needs a replica identity "
    "for changes (ALTER TABLE … REPLICA IDENTITY USING INDEX …, or FULL)",
    "55": _AGAIN,
    "57014": "the statement ran out of time, or somebody cancelled it: look for locks and load; "
    "statement_timeout of the login may be too short",
    "57": "the server is stopping, starting or restarting: run it again once it is back",
    "58": "the server cannot use one of its files: see its log and its disk",
    "F0": "the server's configuration file is wrong: see its log",
    "HV": "a foreign table's server refuses it: write to a table of this database instead",
    "P0": "a function or trigger of the database refuses it: look at what it checks",
    "XX": f"this is an internal error of the server, perhaps a damaged index: {_LOG}",
}


def hint_of(sqlstate: str) -> str:
    """Return what to do about an SQLSTATE."""
    return _HINTS.get(sqlstate) or _HINTS.get(sqlstate[:2]) or _LOG
