"""Partitions: made ahead and dropped for a new table; an existing table converted while in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.logins import login
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]

PARTS = """SELECT c.relname, (SELECT count(*) FROM user_logins u WHERE u.tableoid = c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'user_logins'::regclass ORDER BY 1"""


@pytest.fixture
def partitioned(shell: Shell) -> Shell:
    shell.environment |= {
        "SQS2PG_SINK__PARTITION_BY": "create_date",
        "SQS2PG_SINK__PARTITIONS_AHEAD": "2",
    }
    return shell


def test_a_new_table_has_its_partitions_and_loses_old_ones(
    partitioned: Shell, query: Query, send: Send
) -> None:
    partitioned("migrate")
    assert len(query(PARTS)) == 5  # the default, last month, this one, two ahead
    days = [None, None, "2021-03-05", "2021-03-06", "2021-04-01"]
    send([login(i, create_date=day) for i, day in enumerate(days)])
    partitioned("run", "--drain")
    assert ("user_logins_default", 3) in query(PARTS)
    done = partitioned("partition", "--convert", "--json").last
    assert done == {"periods": 2, "rows": 3, "left": 0}
    assert {("user_logins_p202103", 2), ("user_logins_p202104", 1)} <= set(query(PARTS))
    assert partitioned("verify", "--json").last["ok"]

    # A plan that reads every partition's bounds meets the ledger's, which are uuids.
    plan = "-c enable_nestloop=off -c enable_indexscan=off -c enable_bitmapscan=off"
    kept = {"SQS2PG_SINK__PARTITION_RETENTION_DAYS": "400", "PGOPTIONS": plan}
    partitioned("migrate", **kept)
    assert query("SELECT count(*) FROM user_logins") == [(2,)]
    assert not any("p2021" in name for name, _ in query(PARTS))
    assert partitioned("verify", "--json").last["ok"]
    partitioned("verify", "--json")


def test_retention_reaches_the_rows_of_the_default_partition(
    partitioned: Shell, query: Query, send: Send
) -> None:
    partitioned.environment["SQS2PG_SINK__PARTITION_RETENTION_DAYS"] = "60"
    partitioned("migrate")
    send([login(i, create_date=day) for i, day in enumerate(["2021-03-05", "2021-04-06", None])])
    query("INSERT INTO user_logins (create_date) VALUES (NULL), ('infinity')")
    query(
        "UPDATE sqs2pg.target SET baseline_rows = 2; UPDATE sqs2pg.pipeline SET baseline_rows = 2"
    )
    partitioned("run", "--drain")
    done = partitioned("partition", "--json").last
    assert (done["attached"], done["dropped"]) == (0, 0)  # run's own upkeep may have been first
    assert query("SELECT sum(target_rows) FROM sqs2pg.tally WHERE kind = 'target_retention'") == [
        (-2,)
    ]
    assert ("user_logins_default", 2) in query(PARTS)
    assert query("SELECT count(*) FROM user_logins") == [(3,)]
    assert partitioned("verify", "--json").last["ok"]


def test_check_says_where_the_record_is_not_what_the_settings_say(partitioned: Shell) -> None:
    partitioned("migrate")

    def recorded() -> list[str]:
        found = partitioned("check", "--json", code=None).last["checks"]
        return [one["detail"] for one in found if one["name"] == "retention on record"]

    assert recorded() == []
    partitioned.environment["SQS2PG_SINK__PARTITION_RETENTION_DAYS"] = "60"
    partitioned.environment["SQS2PG_QUARANTINE__RETENTION_DAYS"] = "7"
    [detail] = recorded()
    assert detail == (
        "quarantine.retention_days 7 in the settings, 30 on record; "
        "partition_retention_days 60 in the settings, 0 on record"
    )
    assert "recorded retention: ledger 30 days, quarantine 7 days" in partitioned("migrate").out
    assert recorded() == []


LONG = "a_table_with_a_name_so_long_that_fifty_letters_end_"


def test_targets_whose_names_begin_alike_have_partitions_and_indexes_of_their_own(
    partitioned: Shell, query: Query, tmp_path: Path
) -> None:
    names = [f"{LONG}{end}" for end in ("here", "there")]
    names.append("täble" * 10)  # 50 letters, 60 bytes
    for number, name in enumerate(names):
        (tmp_path / "sqs2pg.toml").write_text(
            f'name = "p{number}"\n[sink]\ntable = "{name}"\n[[index]]\ncolumns = ["create_date"]\n'
        )
        partitioned("migrate")
        partitioned("migrate")
    parts = query(
        "SELECT i.inhparent::regclass::text, count(*) FROM pg_inherits i JOIN pg_class c"
        " ON c.oid = i.inhparent WHERE c.relkind = 'p' AND c.relname <> 'delivery' GROUP BY 1"
    )
    assert sorted(parts) == sorted((f'"{name}"' if "ä" in name else name, 5) for name in names)
    indexed = query("SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
                    " WHERE c.relkind IN ('r', 'p') AND c.relname ~ '^(a_table|tä)'"
                    " AND i.indisvalid")  # fmt: skip
    assert indexed == [(3 * 6,)]


@pytest.mark.usefixtures("migrated_database")
def test_a_plain_table_is_converted_and_keeps_its_rows_grants_and_writers(
    shell: Shell, query: Query, send: Send
) -> None:
    days = ["2023-01-31", "2023-02-01", "2023-02-28", "2024-02-29", None]
    send([login(i, create_date=days[i % 5]) for i in range(50)])
    shell("run", "--drain")
    query("UPDATE user_logins SET create_date = NULL WHERE user_id = 'u0'")
    before = query("SELECT * FROM user_logins ORDER BY user_id")
    granted = "SELECT has_table_privilege('sqs2pg_ingest', 'user_logins', 'INSERT')"
    assert query(granted) == [(True,)]

    by_day = {
        "SQS2PG_SINK__PARTITION_BY": "create_date",
        "SQS2PG_SINK__PARTITION_EVERY": "day",
        "SQS2PG_SINK__PARTITIONS_AHEAD": "1",
    }
    done = shell("partition", "--convert", "--json", **by_day).last
    assert (done["periods"], done["rows"], done["left"]) == (5, 49, 1)
    assert query("SELECT * FROM user_logins ORDER BY user_id") == before
    assert ("user_logins_p20240229", 10) in query(PARTS)
    assert query(granted) == [(True,)]
    again = shell("partition", "--convert", "--json", **by_day).last
    assert (again["periods"], again["rows"], again["left"]) == (0, 0, 1)

    send([login(100, create_date=None)])
    shell("run", "--drain", **by_day)
    assert query("SELECT count(*) FROM user_logins") == [(51,)]
    assert shell("verify", "--json").last["ok"]


def test_convert_names_an_obstacle_and_changes_nothing(partitioned: Shell, query: Query) -> None:
    query("CREATE TABLE user_logins (user_id varchar(128) PRIMARY KEY, device_type varchar(32),"
          " masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),"
          " app_version integer, create_date date)")  # fmt: skip
    partitioned("migrate")
    told = partitioned.error("partition", "--convert", code=2)
    assert "primary key user_logins_pkey lacks the column create_date" in told
    assert query("SELECT relkind FROM pg_class WHERE relname = 'user_logins'") == [("r",)]
    partitioned.error("partition", code=2, SQS2PG_SINK__PARTITION_BY="")


OBSTACLES = """
CREATE TABLE region (id integer PRIMARY KEY);
CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32),
    masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),
    app_version integer, create_date date, region integer REFERENCES region);
ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
CREATE RULE noted AS ON DELETE TO user_logins DO ALSO NOTHING;
CREATE PUBLICATION changes FOR TABLE user_logins;
GRANT SELECT (locale) ON user_logins TO PUBLIC;
CREATE TABLE inherits () INHERITS (user_logins);
"""


def test_convert_refuses_to_lose_constraints_rules_and_grants(
    partitioned: Shell, query: Query
) -> None:
    query(OBSTACLES)
    partitioned("migrate")
    told = partitioned.error("partition", "--convert", code=2)
    for what in (
        "foreign key user_logins_region_fkey",
        "row security",
        "rule noted",
        "publication changes",
        "grants on column locale",
        "inheritance, of or by inherits",
    ):
        assert what in told
    assert query("SELECT relkind FROM pg_class WHERE relname = 'user_logins'") == [("r",)]


def test_a_table_with_generated_columns_and_extreme_dates_is_converted(
    partitioned: Shell, query: Query, send: Send
) -> None:
    partitioned.environment["SQS2PG_SINK__PARTITION_BY"] = ""
    partitioned("migrate")
    query("ALTER TABLE user_logins ADD month text GENERATED ALWAYS AS (locale || '!') STORED")
    query("INSERT INTO user_logins (user_id, locale, create_date) SELECT 'u', 'DE', day::date FROM"
          " unnest('{infinity,-infinity,0044-03-15 BC,12000-01-01,2024-02-29,0001-01-01,"
          "9999-12-31,NULL}'::text[]) day")  # fmt: skip
    partitioned.environment["SQS2PG_SINK__PARTITION_BY"] = "create_date"
    done = partitioned("partition", "--convert", "--json").last
    assert done == {"periods": 3, "rows": 3, "left": 5}
    assert ("user_logins_p202402", 1) in query(PARTS)
    assert query("SELECT count(*) FROM user_logins WHERE month = 'DE!'") == [(8,)]
    send([login(1, create_date=None), login(2, create_date="2023-05-06")])
    assert partitioned("run", "--drain", "--json").last["written"] == 2
    partitioned("partition")


def test_declared_indexes_are_built_on_plain_and_partitioned_tables(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    file = tmp_path / "sqs2pg.toml"
    indexes = """
[[index]]
columns = ["masked_device_id"]
[[index]]
columns = ["create_date"]
method = "brin"
"""
    file.write_text(indexes)
    assert shell("migrate").out.count("built index") == 2
    assert "up to date" in shell("migrate").out
    query("DROP TABLE user_logins; DELETE FROM sqs2pg.pipeline; DELETE FROM sqs2pg.target")
    file.write_text('[sink]\npartition_by = "create_date"\n' + indexes)
    assert shell("migrate").out.count("built index") == 2
    valid = """SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relname LIKE 'user_logins%' AND i.indisvalid"""
    parts = len(query(PARTS))
    assert query(valid) == [(2 * (parts + 1),)]
    assert "up to date" in shell("migrate").out


def test_columns_that_the_mapping_gained_are_proposed_or_added(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    query("CREATE TABLE user_logins (user_id text)")
    told = shell.error("migrate", code=2)
    assert 'ADD COLUMN "device_type" varchar(32)' in told
    assert "--apply-additive" in told
    assert "added device_type" in shell("migrate", "--apply-additive").out
    columns = query("SELECT count(*) FROM information_schema.columns"
                    " WHERE table_name = 'user_logins'")  # fmt: skip
    assert columns == [(7,)]
    assert "up to date" in shell("migrate").out
