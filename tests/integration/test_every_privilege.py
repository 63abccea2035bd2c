"""Every table, column, sequence, function and lock of our schemas, tried by every role of ours.

What there is comes from the catalog, so what is added later is tried too. Whatever a role gets must
stand in the table of docs/discussions/threat-model.md, with the reason, and nothing else may stand
there.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from tests.integration.support import rows
from tests.integration.vault_support import login_of

PAGE = Path(__file__).parents[2] / "docs" / "discussions" / "threat-model.md"
HEAD = "| role | object | may | because |"
ROLES = ("sqs2pg_ingest", "sqs2pg_analyst", "sqs2pg_revealer", "sqs2pg_auditor", "")
"""The last one is a login without any of them."""
WEAK = ("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE")
STRONG = (
    *("SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"),
)
ROW_LOCKS = ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE")

OURS = """(n.nspname IN ('sqs2pg', 'pii')
    OR format('%I.%I', n.nspname, c.relname) IN (SELECT target FROM sqs2pg.target))"""
RELATIONS = f"""SELECT c.oid::regclass::text, c.relkind FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OURS} AND c.relkind IN ('r', 'p', 'v', 'S')"""
COLUMNS = f"""SELECT c.oid::regclass::text, quote_ident(a.attname) FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {OURS} AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped"""
# OFFSET 0 keeps the arguments from the planner, who would not call a strict function of NULL.
FUNCTIONS = """SELECT p.oid::regprocedure::text,
    format('SELECT %I.%I(%s) FROM (SELECT %s OFFSET 0) v', n.nspname, p.proname,
    (SELECT string_agg(format('v.a%s', i), ', ' ORDER BY i)
     FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, i)),
    (SELECT string_agg(format('NULL::%s AS a%s', format_type(t, NULL), i), ', ' ORDER BY i)
     FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, i)))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('sqs2pg', 'pii')"""

# One round trip: each statement in a subtransaction of its own, which is undone. A refusal is one
# of the server; a function of ours that refuses by itself has been called.
TRY = """DO $$
DECLARE
    probe json;
    allowed integer[] := '{}';
    i integer := 0;
BEGIN
    FOR probe IN SELECT * FROM json_array_elements(current_setting('probe.statements')::json) LOOP
        BEGIN
            EXECUTE probe ->> 0;
            RAISE EXCEPTION 'allowed' USING ERRCODE = 'PR0BE';
        EXCEPTION WHEN OTHERS THEN
            IF NOT (SQLSTATE = '42501' AND SQLERRM ~ (probe ->> 1)) THEN
                allowed := allowed || i;
            END IF;
        END;
        i := i + 1;
    END LOOP;
    PERFORM set_config('probe.allowed', to_json(allowed)::text, false);
END
$$"""
REFUSED = "^(permission denied for|must be owner of)"
NOT_CALLED = "^permission denied for (function|schema)"


class Probe(NamedTuple):
    """One thing to try."""

    object: str
    privilege: str
    column: str
    statement: str
    refusal: str = REFUSED
    """What the server's message begins with where it refuses: a regular expression."""


def table_probes(table: str) -> Iterable[Probe]:
    for privilege, statement in {
        "SELECT": "TABLE {}",
        "INSERT": "INSERT INTO {} DEFAULT VALUES",
        "DELETE": "DELETE FROM {}",
        "TRUNCATE": "TRUNCATE {}",
        "TRIGGER": "CREATE TRIGGER probe BEFORE INSERT ON {} FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "OWNER": "ALTER TABLE {} ADD COLUMN probe text",
        "DROP": "DROP TABLE {} CASCADE",
        **{lock: "SELECT FROM {} " + lock for lock in ROW_LOCKS},
        **{f"LOCK {mode}": "LOCK TABLE {} IN " + mode + " MODE" for mode in (*WEAK, *STRONG)},
    }.items():
        yield Probe(table, privilege, "", statement.format(table))


def probes_of(database: str) -> list[Probe]:
    """Return everything that there is to try, from the catalog."""
    found: list[Probe] = []
    for name, kind in rows(database, RELATIONS):
        if kind != "S":
            found += table_probes(name)
            continue
        found += [
            Probe(name, "USAGE", "", f"SELECT nextval('{name}')"),
            Probe(name, "SELECT", "", f"SELECT last_value FROM {name}"),
            Probe(name, "UPDATE", "", f"SELECT setval('{name}', 1)"),
        ]
    for table, column in rows(database, COLUMNS):
        found += [
            Probe(table, "SELECT", column, f"SELECT {column} FROM {table}"),
            Probe(table, "INSERT", column, f"INSERT INTO {table} ({column}) VALUES (DEFAULT)"),
            Probe(table, "UPDATE", column, f"UPDATE {table} SET {column} = DEFAULT"),
        ]
    for function, call in rows(database, FUNCTIONS):
        found.append(Probe(function, "EXECUTE", "", call, NOT_CALLED))
    for schema in ("sqs2pg", "pii"):
        usage = f"SELECT '{schema}.probe'::regclass"
        found += [
            Probe(schema, "USAGE", "", usage),
            Probe(schema, "CREATE", "", f"CREATE TABLE {schema}.probe ()"),
        ]
    return found


def allowed_to(database: str, role: str, probes: list[Probe]) -> list[Probe]:
    """Return what a login of the role gets."""
    statements = json.dumps([[probe.statement, probe.refusal] for probe in probes])
    with (
        login_of(database, *filter(None, [role])) as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        connection.execute("SELECT set_config('probe.statements', %s, false)", [statements])
        connection.execute(TRY)
        [(allowed,)] = connection.execute("SELECT current_setting('probe.allowed')").fetchall()
    return [probes[number] for number in json.loads(allowed)]


def in_words(allowed: Iterable[Probe]) -> dict[str, str]:
    """Return what is allowed on each object, as the page says it.

    A privilege on a whole table covers its columns. Weak locks and row locks come with privileges
    that are listed; strong ones of a table are `LOCK`.
    """
    whole: dict[str, set[str]] = defaultdict(set)
    columns: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for probe in allowed:
        if probe.column:
            columns[probe.object][probe.privilege].append(probe.column)
        else:
            whole[probe.object].add(probe.privilege)
    words = {}
    for name in whole.keys() | columns.keys():
        all_columns, of_table = columns[name], whole[name]
        if set(STRONG) <= {one.removeprefix("LOCK ") for one in of_table}:
            of_table = {one for one in of_table if not one.startswith("LOCK ")} | {"LOCK"}
        if {"SELECT", "INSERT", "DELETE"} & (of_table | all_columns.keys()):
            of_table -= {f"LOCK {mode}" for mode in WEAK}
        if all_columns["UPDATE"] and all_columns["SELECT"]:
            of_table -= set(ROW_LOCKS)
        parts = sorted(of_table)
        for privilege, names in sorted(all_columns.items()):
            if names and privilege not in of_table:
                parts.append(f"{privilege} ({', '.join(sorted(names))})")
        if parts:
            words[name] = ", ".join(parts)
    return words


def justified() -> dict[tuple[str, str], str]:
    """Return what the page says that each role may do on each object."""
    found: dict[tuple[str, str], str] = {}
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(HEAD) == 1
    for line in text.split(HEAD)[1].splitlines()[2:]:
        if not line.startswith("|"):
            break
        role, objects, may, because = (cell.strip() for cell in line.strip("|").split(" | "))
        assert len(because) > 10, line
        for name in re.findall(r"`([^`]+)`", objects):
            key = (role.strip("`"), name)
            assert key not in found, key
            found[key] = may.replace("`", "")
    return found


@pytest.mark.usefixtures("migrated_database")
def test_what_each_role_may_do_is_what_the_threat_model_justifies(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = probes_of(database)
    allowed = {role: allowed_to(database, role, probes) for role in ROLES}
    count = sum(map(len, allowed.values()))
    with capsys.disabled():
        print(
            f" {len(probes) * len(ROLES):,} probes as {len(ROLES)} roles, {count} allowed ", end=""
        )
    found = {
        (role, name): may for role, got in allowed.items() for name, may in in_words(got).items()
    }
    assert found == justified()


@pytest.mark.usefixtures("migrated_database")
def test_a_grant_too_many_is_seen(database: str) -> None:
    rows(
        database,
        "CREATE TABLE sqs2pg.later (a text, b text); GRANT UPDATE (b) ON sqs2pg.later TO PUBLIC;"
        "CREATE FUNCTION pii.later() RETURNS integer RETURN 1;"
        "GRANT EXECUTE ON FUNCTION pii.later() TO sqs2pg_analyst;"
        "GRANT TRUNCATE ON sqs2pg.audit TO sqs2pg_auditor;"
        "GRANT USAGE ON SCHEMA sqs2pg TO PUBLIC",
    )
    probes = probes_of(database)
    before = justified()
    for role, name, may in (
        ("", "sqs2pg", "USAGE"),
        ("", "sqs2pg.later", "UPDATE (b)"),
        ("sqs2pg_analyst", "pii.later()", "EXECUTE"),
        ("sqs2pg_auditor", "sqs2pg.audit", "LOCK, SELECT, TRUNCATE"),
    ):
        found = in_words(allowed_to(database, role, probes))
        assert found[name] == may
        assert before.get((role, name)) != may


@pytest.mark.usefixtures("migrated_database")
def test_the_catalog_knows_of_no_right_that_cannot_be_tried(database: str) -> None:
    """REFERENCES needs a table beside ours, and MAINTAIN only warns."""
    [(version,)] = rows(database, "SELECT current_setting('server_version_num')::int")
    more = ["REFERENCES", *(["MAINTAIN"] if version >= 170_000 else [])]
    query = f"""SELECT r.rolname, c.oid::regclass, p.name FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace, pg_roles r, unnest(ARRAY{more}) p (name)
        WHERE {OURS} AND c.relkind IN ('r', 'p', 'v') AND r.rolname ~ '^sqs2pg_'
        AND has_table_privilege(r.oid, c.oid, p.name)"""
    assert rows(database, query) == []
