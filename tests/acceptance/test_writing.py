"""Whatever refuses every batch is named by `check`, and by `run` before it receives a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.integration.vault_support import login_of
from tests.logins import login
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]

TARGET = "user_logins"


@pytest.fixture
def role(shell: Shell, migrated_database: str) -> Iterator[str]:
    """The role of the shell's pipeline: it may only ingest."""
    with login_of(migrated_database, "sqs2pg_ingest") as dsn:
        shell.environment["DATABASE_URL"] = dsn
        yield str(conninfo_to_dict(dsn)["user"])


def checked(shell: Shell, code: int = 0) -> dict[str, dict[str, str]]:
    report = shell("check", "--json", code=code).last
    return {one["name"]: one for one in report["checks"]}


def failed(shell: Shell) -> dict[str, dict[str, str]]:
    return {name: one for name, one in checked(shell, 1).items() if one["status"] == "fail"}


FUNCTION = (
    "CREATE FUNCTION {name}(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
    " 'BEGIN RETURN $1; END'; REVOKE EXECUTE ON FUNCTION {name}(text) FROM PUBLIC;"
)
SECURE = f"ALTER TABLE {TARGET} ENABLE ROW LEVEL SECURITY"
POLICY = f"CREATE POLICY everything ON {TARGET} FOR INSERT WITH CHECK (locale <> 'XX')"
SOME_COLUMNS = (
    "GRANT INSERT (user_id, device_type, masked_ip, masked_device_id, create_date)"
    f" ON {TARGET} TO sqs2pg_ingest"
)
TRIGGER = (
    "CREATE FUNCTION reads() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM FROM missing; RETURN NULL; END'; CREATE TRIGGER t AFTER INSERT ON"
    f" {TARGET} FOR EACH STATEMENT EXECUTE FUNCTION reads()"
)
REFUSED = [
    (
        f"REVOKE INSERT ON {TARGET} FROM sqs2pg_ingest; {SOME_COLUMNS}",
        "lacks, for public.user_logins, INSERT on locale, app_version",
        'GRANT INSERT (locale, app_version) ON "user_logins" TO {role}',
    ),
    (
        "REVOKE EXECUTE ON FUNCTION sqs2pg.mark_quarantined(uuid[]) FROM sqs2pg_ingest",
        "{role} lacks EXECUTE of mark_quarantined, which works on sqs2pg.delivery",
        "`sqs2pg migrate` as the schema's owner",
    ),
    (
        "REVOKE INSERT ON sqs2pg.quarantine FROM sqs2pg_ingest",
        "{role} lacks INSERT on sqs2pg.quarantine",
        "`sqs2pg migrate` as the schema's owner",
    ),
    (
        "ALTER ROLE {role} SET default_transaction_read_only = on",
        "the login {role} is read-only: default_transaction_read_only is on (user)",
        "ALTER ROLE {role}",
    ),
    (
        TRIGGER,
        "a trigger or default of public.user_logins uses a table",
        "FOR EACH STATEMENT",
    ),
    (
        FUNCTION.format(name="who") + f"ALTER TABLE {TARGET} ADD by_whom text DEFAULT who('x')",
        "EXECUTE on who(text), which the default of by_whom calls",
        "GRANT EXECUTE ON FUNCTION who(text) TO {role}",
    ),
]


@pytest.mark.parametrize(("change", "detail", "remedy"), REFUSED)
def test_what_refuses_every_batch_is_named_before_a_message_is_received(
    shell: Shell,
    query: Query,
    send: Send,
    sqs: Any,
    queue_url: str,
    role: str,
    change: str,
    detail: str,
    remedy: str,
) -> None:
    assert checked(shell)["writing"]["status"] == "ok"
    shell("run", "--drain")
    send([login(1)])
    query(change.replace("{role}", role))
    found = failed(shell)["writing"]
    assert detail.format(role=role) in found["detail"]
    assert remedy.format(role=role) in found["remedy"]
    said = shell.error("run", "--drain", code=1)
    assert detail.format(role=role) in said
    got = sqs.receive_message(QueueUrl=queue_url, MessageSystemAttributeNames=["All"])
    [message] = got["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1", "ours is the first receive"


NEEDED_BY_ROWS = [
    (
        FUNCTION.format(name="tidy")
        + f"ALTER TABLE {TARGET} ADD CONSTRAINT tidy CHECK (tidy(locale) IS NOT NULL)",
        "EXECUTE on tidy(text), which the constraint tidy calls",
        "GRANT EXECUTE ON FUNCTION tidy(text) TO {role}",
    ),
    (
        FUNCTION.format(name="folded") + f"CREATE INDEX by_locale ON {TARGET} (folded(locale))",
        "EXECUTE on folded(text), which the index by_locale calls",
        "GRANT EXECUTE ON FUNCTION folded(text) TO {role}",
    ),
    (
        FUNCTION.format(name="known")
        + "CREATE DOMAIN place AS varchar(32) CHECK (known(VALUE) IS NOT NULL);"
        + f"ALTER TABLE {TARGET} ALTER locale TYPE place",
        "EXECUTE on known(text), which the constraint place_check calls",
        "GRANT EXECUTE ON FUNCTION known(text) TO {role}",
    ),
    (
        f"ALTER TABLE {TARGET} ADD number serial",
        "USAGE on sequence user_logins_number_seq, which the default of number takes numbers from",
        "GRANT USAGE ON SEQUENCE user_logins_number_seq TO {role}",
    ),
]


@pytest.mark.parametrize(("change", "detail", "remedy"), NEEDED_BY_ROWS)
def test_what_only_rows_need_is_named_and_its_grant_is_enough(
    shell: Shell, query: Query, send: Send, role: str, change: str, detail: str, remedy: str
) -> None:
    query(change)
    found = failed(shell)
    assert found.keys() == {"target public.user_logins rights"}
    [one] = found.values()
    assert detail in one["detail"]
    assert one["remedy"] == remedy.format(role=role)
    query(one["remedy"])
    assert "target public.user_logins rights" not in checked(shell)
    send([login(1, locale="RU")])
    assert shell("run", "--drain", "--json").last["written"] == 1


def test_a_schema_that_the_login_may_not_use_is_named(
    shell: Shell, query: Query, role: str
) -> None:
    query("REVOKE USAGE ON SCHEMA pii FROM sqs2pg_ingest")
    found = failed(shell)["writing"]
    assert "USAGE on schema pii" in found["detail"]
    assert f"GRANT USAGE ON SCHEMA pii TO {role}" in found["remedy"]


def test_a_login_without_a_role_is_told_which_one(shell: Shell, query: Query, role: str) -> None:
    query(f"REVOKE sqs2pg_ingest FROM {role}")
    query(f"GRANT USAGE ON SCHEMA sqs2pg, pii TO {role}")
    said = shell.error("run", "--drain", code=1)
    assert "sqs2pg_ingest for run" in said
    query(f"GRANT INSERT ON {TARGET} TO {role}; GRANT EXECUTE ON FUNCTION pii.reference_key(),"
          f"pii.set_reference_key(bytea, text) TO {role}; GRANT SELECT, INSERT ON sqs2pg.key,"
          f"sqs2pg.pipeline, sqs2pg.target, sqs2pg.migration TO {role}")  # fmt: skip
    found = failed(shell)["writing"]
    assert f"the login {role} lacks INSERT on sqs2pg.delivery" in found["detail"]
    assert found["remedy"] == f"GRANT sqs2pg_ingest TO {role}"


def test_a_table_under_row_security_is_written_by_insert(
    shell: Shell, query: Query, send: Send, role: str
) -> None:
    query(SECURE)
    found = failed(shell)[f"target {TARGET} row security"]
    assert "no policy of it admits an INSERT" in found["detail"]
    assert "FOR INSERT" in found["remedy"]
    assert "no policy of it admits an INSERT" in shell.error("run", "--drain", code=2)
    query(POLICY)
    found = checked(shell)[f"target public.{TARGET} path"]
    assert found["status"] == "ok"
    assert "written by INSERT because row-level security applies" in found["detail"]
    query(
        f"CREATE TABLE places (name text); CREATE POLICY known ON {TARGET} AS RESTRICTIVE"
        " FOR INSERT WITH CHECK (locale NOT IN (SELECT name FROM places))"
    )
    assert "a policy of public.user_logins uses a table" in failed(shell)["writing"]["detail"]
    query(f"GRANT SELECT ON places TO {role}")
    query(f"ALTER ROLE {role} SET row_security = off")
    assert "whose row_security is off" in failed(shell)["writing"]["detail"]
    query(f"ALTER ROLE {role} RESET row_security")
    send([login(n, locale="XX" if n == 3 else "DE") for n in range(20)])
    done = shell("run", "--drain", "--json").last
    assert (done["written"], done["quarantined"], done["rows_inserted"]) == (19, 1, 19)
    query(f"ALTER ROLE {role} BYPASSRLS")
    assert f"target public.{TARGET} path" not in checked(shell)


def test_the_right_that_staging_needs_is_named_and_emitted(
    shell: Shell, query: Query, role: str
) -> None:
    [(name,)] = query("SELECT quote_ident(current_database())")
    query(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    query(shell("check", "--emit-sql").out.split(";\n", 2)[2])
    may = f"SELECT has_database_privilege('{role}', current_database(), 'TEMPORARY')"
    assert query(may) == [(False,)], "COPY needs no temporary tables"
    query(f"{SECURE}; {POLICY}")
    found = failed(shell)["writing"]
    assert "may not make temporary tables" in found["detail"]
    assert found["remedy"] == f"GRANT TEMPORARY ON DATABASE {name} TO {role}"
    emitted = shell("check", "--emit-sql").out.replace("pipeline", role)
    query(emitted.split(";\n", 2)[2])  # the role and its membership are there
    assert checked(shell)["writing"]["status"] == "ok"
    query(f"REVOKE TEMPORARY ON DATABASE {name} FROM sqs2pg_ingest")


@pytest.mark.usefixtures("role")
def test_a_rule_that_adds_is_run_and_reported(shell: Shell, query: Query, send: Send) -> None:
    query(
        "CREATE TABLE seen (user_id text);"  # it acts as its owner
        f"CREATE RULE noted AS ON INSERT TO {TARGET} DO ALSO INSERT INTO seen VALUES (NEW.user_id)"
    )
    found = checked(shell)
    assert found[f"target {TARGET} rules"]["status"] == "warn"
    path = found[f"target public.{TARGET} path"]["detail"]
    assert path == "written by INSERT because COPY ignores its rules ON INSERT: noted"
    send([login(1), login(2)])
    shell("run", "--drain")
    assert query("SELECT count(*) FROM seen") == [(2,)]


@pytest.mark.usefixtures("role")
def test_rules_that_take_rows_away_and_foreign_tables_without_a_server_are_reported(
    shell: Shell, query: Query
) -> None:
    query(
        f"CREATE TABLE kept (LIKE {TARGET}); CREATE RULE divert AS ON INSERT TO {TARGET}"
        " DO INSTEAD INSERT INTO kept VALUES (NEW.*)"
    )
    found = failed(shell)["target user_logins rules"]
    assert "INSTEAD divert" in found["detail"]
    assert "INSTEAD divert" in shell.error("run", "--drain", code=2)
    query(
        f"DROP TABLE {TARGET}; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER"
        f" w; CREATE FOREIGN TABLE {TARGET} (user_id varchar(128), device_type varchar(32),"
        " masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),"
        f" app_version integer, create_date date) SERVER s; GRANT INSERT ON {TARGET} TO"
        " sqs2pg_ingest"
    )
    assert "is a foreign table" in failed(shell)["target user_logins"]["detail"]
    assert "is a foreign table" in shell.error("run", "--drain", code=2)


COLUMNS = (
    "user_id varchar(128), device_type varchar(32), masked_ip varchar(256),"
    " masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date"
)


@pytest.fixture
def far(database: str, query: Query) -> str:
    """Make the target a foreign table of a server: of this one. Return the table over there."""
    here = conninfo_to_dict(database)
    query(
        f"""CREATE EXTENSION postgres_fdw; CREATE SCHEMA far; CREATE TABLE far.logins ({COLUMNS});
        CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{here["host"]}',
            port '{here["port"]}', dbname '{here["dbname"]}');
        CREATE USER MAPPING FOR PUBLIC SERVER s
            OPTIONS (user '{here["user"]}', password '{here["password"]}');
        CREATE FOREIGN TABLE {TARGET} ({COLUMNS}) SERVER s
            OPTIONS (schema_name 'far', table_name 'logins')"""
    )
    return "far.logins"


@pytest.mark.parametrize("script", [True, False])
def test_a_foreign_table_is_written_and_warned_of(
    shell: Shell, query: Query, send: Send, far: str, tmp_path: Path, *, script: bool
) -> None:
    query(f"INSERT INTO {far} (user_id) VALUES ('before')")
    if script:
        query(shell("migrate", "--sql").out)
    shell("migrate")
    found = checked(shell)
    assert found[f"target {TARGET} server"]["status"] == "warn"
    assert "foreign table" in found[f"target public.{TARGET} path"]["detail"]
    send([login(n) for n in range(30)])
    assert shell("run", "--drain", "--json").last["rows_inserted"] == 30
    (tmp_path / "old.jsonl").write_text("\n".join(login(n) for n in range(30, 50)))
    assert shell("backfill", str(tmp_path / "old.jsonl"), "--json").last["lines"] == 20
    assert query(f"SELECT count(*) FROM {far}") == [(51,)]
    assert shell("verify", "--json").last["ok"]
    query("ALTER SERVER s OPTIONS (SET port '1')")
    refused = failed(shell)["writing"]
    assert "the server of the foreign table" in refused["detail"]


def test_partitions_on_other_servers_are_reported(shell: Shell, query: Query) -> None:
    shell("migrate", SQS2PG_SINK__PARTITION_BY="create_date")
    query(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        f"CREATE FOREIGN TABLE far PARTITION OF {TARGET}"
        " FOR VALUES FROM ('2001-01-01') TO ('2001-02-01') SERVER s"
    )
    found = checked(shell)["target user_logins foreign partitions"]
    assert (found["status"], "far" in found["detail"]) == ("warn", True)


def test_text_fields_in_columns_of_numbers_are_reported(
    shell: Shell, query: Query, send: Send
) -> None:
    shell("migrate")
    query(f"ALTER TABLE {TARGET} ALTER locale TYPE integer USING NULL")
    send([login(1, locale=7), login(2, locale="7")])
    found = checked(shell)["target user_logins locale"]
    assert found["status"] == "warn"
    assert 'set type = "integer"' in found["remedy"]
    done = shell("run", "--drain", "--json").last
    assert (done["written"], done["quarantined"]) == (1, 1)


def test_a_lock_that_somebody_holds_does_not_end_the_start(
    shell: Shell, query: Query, send: Send, role: str
) -> None:
    assert role
    send([login(1)])
    query(f"BEGIN; LOCK TABLE {TARGET} IN SHARE MODE")
    with shell.running("run", "--drain") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "rehearsal of a batch failed" in line:
                break
        query("COMMIT")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "written 1" in out
