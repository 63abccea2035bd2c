"""`sqs2pg backfill`: the same table after a kill and a second start; S3; what it reports."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.shell import Shell
from tests.waiting import wait_until

Query = Callable[..., list[tuple[Any, ...]]]
LINES = 30_000
# The transaction that writes this row waits until the test has killed its process.
STOP = """CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.user_id = 'u15001' THEN PERFORM pg_advisory_xact_lock(4711); END IF; RETURN NEW; END $$;
CREATE TRIGGER wait BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION wait()"""
STOPPED = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "logins-2023-05-06.jsonl.gz"
    with gzip.open(file, "wt", compresslevel=1) as stream:
        for i in range(LINES):
            login = {"user_id": f"u{i}", "ip": f"198.51.100.{i % 250}", "device_id": str(i % 99)}
            stream.write(json.dumps(login) + "\n" if i % 1000 else "not json\n")
    return file


@pytest.mark.usefixtures("migrated_database")
def test_killed_midway_it_resumes_exactly(shell: Shell, query: Query, archive: Path) -> None:
    query(STOP)
    query("SELECT pg_advisory_lock(4711)")
    with shell.running("backfill", str(archive), SQS2PG_SINK__BATCH_ROWS_MAX="500") as running:
        wait_until(lambda: query(STOPPED), during=running)
        running.send_signal(signal.SIGKILL)
    query("SELECT pg_advisory_unlock(4711); DROP FUNCTION wait() CASCADE")
    [(line, written)] = query(
        "SELECT line, (SELECT count(*) FROM user_logins) FROM sqs2pg.backfill"
    )
    assert line == 15_000
    assert written == line - -(-line // 1000)

    done = shell("backfill", str(archive), "--json").last
    assert (done["resumed"], done["lines"]) == (line, LINES - line)
    assert done["duplicate"] == 0
    assert done["lines_per_second"] == round(done["lines"] / done["seconds"], 1)
    rows = query(
        "SELECT count(*), count(DISTINCT user_id), min(create_date)::text FROM user_logins"
    )
    assert rows == [(LINES - 30, LINES - 30, "2023-05-06")]
    assert query("SELECT reason, count(*) FROM sqs2pg.quarantine GROUP BY 1") == [("not_json", 30)]
    assert shell("verify", "--json").last["ok"]

    again = shell("backfill", str(archive), "--json").last
    assert (again["skipped"], again["lines"], again["files"]) == (1, 0, 0)
    assert query("SELECT count(*) FROM user_logins") == [(LINES - 30,)]


@pytest.mark.usefixtures("migrated_database")
def test_two_runs_do_not_write_one_archive_at_once(
    shell: Shell, query: Query, archive: Path
) -> None:
    query(STOP)
    query("SELECT pg_advisory_lock(4711)")
    with shell.running("backfill", str(archive), SQS2PG_SINK__BATCH_ROWS_MAX="500") as running:
        wait_until(lambda: query(STOPPED), during=running)
        _second_run_is_refused(shell, query, archive)
        query("SELECT pg_advisory_unlock(4711); DROP FUNCTION wait() CASCADE")
        running.communicate(timeout=60)
    assert running.returncode == 0
    assert query("SELECT line, finished_at IS NOT NULL FROM sqs2pg.backfill") == [(LINES, True)]
    assert shell("verify", "--json").last["ok"]


def _second_run_is_refused(shell: Shell, query: Query, archive: Path) -> None:
    before = query("SELECT line, moved_at FROM sqs2pg.backfill")
    claim = "SELECT backend_xmin FROM pg_stat_activity WHERE state = 'idle in transaction'"
    assert query(f"{claim} AND datname = current_database()") == [(None,)], "vacuum is not held up"
    refused = shell.error("backfill", str(archive), code=1)
    assert f"another run is at work on {archive}" in refused
    assert query("SELECT line, moved_at FROM sqs2pg.backfill") == before


@pytest.mark.usefixtures("migrated_database")
def test_backfill_reads_a_bucket_with_a_given_date(
    shell: Shell, query: Query, emulator_endpoint: str, aws_environment: dict[str, str]
) -> None:
    bucket = boto3.resource("s3", endpoint_url=emulator_endpoint).create_bucket(
        Bucket="archive-4711"
    )
    bucket.put_object(Key="logs/1", Body=b'{"user_id": "a"}{"user_id": "b"}')
    bucket.put_object(Key="logs/2", Body=gzip.compress(b'{"user_id": "c"}\n'))
    bucket.put_object(Key="other/1", Body=b'{"user_id": "d"}')
    done = shell("backfill", "s3://archive-4711/logs/", "--date", "2020-02-29", "--json").last
    assert (done["files"], done["written"]) == (2, 3)
    found = query("SELECT user_id, create_date::text FROM user_logins ORDER BY 1")
    assert found == [("a", "2020-02-29"), ("b", "2020-02-29"), ("c", "2020-02-29")]
    assert shell("backfill", "s3://archive-4711/logs/", "--json").last["skipped"] == 2


def test_two_pipelines_each_write_the_whole_archive(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    archive = tmp_path / "logins-2023-05-06.jsonl"
    archive.write_text("".join(f'{{"user_id": "u{i}"}}\n' for i in range(300)) + "not json\n")
    for name in ("first", "second"):
        file = tmp_path / f"{name}.toml"
        file.write_text(f'name = "{name}"\n[sink]\ntable = "{name}_logins"\n')
        shell("migrate", "-c", str(file))
        done = shell("backfill", "-c", str(file), str(archive), "--json").last
        assert (done["written"], done["duplicate"], done["quarantined"]) == (300, 0, 1)
    for name in ("first", "second"):
        assert query(f"SELECT count(DISTINCT user_id) FROM {name}_logins") == [(300,)]
        report = shell("verify", "-c", str(tmp_path / f"{name}.toml"), "--json").last
        assert report["ok"], report
        assert (report["written"], report["quarantined"]) == (300, 1)


@pytest.mark.usefixtures("migrated_database")
def test_with_a_dedupe_key_an_event_is_written_once_from_queue_and_archive(
    shell: Shell, query: Query, tmp_path: Path, send: Callable[[list[str]], list[str]]
) -> None:
    shell.environment["SQS2PG_LEDGER__DEDUPE_KEY"] = "event"
    bodies = [json.dumps({"user_id": f"u{i}", "event": f"e{i}"}) for i in range(20)]
    send(bodies[:10])
    shell("run", "--drain")
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(bodies))
    done = shell("backfill", str(file), "--json").last
    assert (done["written"], done["duplicate"]) == (10, 10)
    assert query("SELECT count(*) FROM user_logins") == [(20,)]


@pytest.mark.usefixtures("migrated_database")
def test_a_path_that_names_nothing_and_a_damaged_archive(shell: Shell, archive: Path) -> None:
    shell.error("backfill", "nowhere.jsonl", code=2)
    archive.write_bytes(archive.read_bytes()[:-100])
    shell.error("backfill", str(archive), code=1)


@pytest.mark.usefixtures("migrated_database")
def test_what_is_no_json_lines_is_refused_and_may_be_given_again(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    login = json.dumps({"user_id": "u1"})
    tar = tmp_path / "x.tar.gz"
    (tmp_path / "x.jsonl").write_text(login)
    with tarfile.open(tar, "w:gz") as packed:
        packed.add(tmp_path / "x.jsonl", "x.jsonl")
    (tmp_path / "x.jsonl").unlink()
    files = {
        tar: "is not JSON lines but tar",
        tmp_path / "x.txt": "none of its first 3 lines",
        tmp_path / "x.csv": "columns 1 and 2 of its header have one name",
    }
    (tmp_path / "x.txt").write_text("user_id,ip\nu1,198.51.100.7\nu2,198.51.100.8\n")
    (tmp_path / "x.csv").write_text("user_id,user_id\nu1,u2\n")
    for file, told in files.items():
        for _ in range(2):  # it does not count as done
            assert told in shell.error("backfill", str(file), code=1)
    # A file that the envelope of the settings does not fit, until they are corrected.
    wrapped = tmp_path / "wrapped.jsonl"
    wrapped.write_text(base64.b64encode(gzip.compress(login.encode())).decode())
    assert "none of its first 1 lines" in shell.error("backfill", str(wrapped), code=1)
    corrected = {"SQS2PG_ENVELOPE__LAYERS": "gzip"}
    assert shell("backfill", str(wrapped), "--json", **corrected).last["written"] == 1
    # Among others it keeps none of them.
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, content in (("a.txt", "a,b"), ("b.jsonl", login), ("c", "PK\3\4"), ("d", login)):
        (mixed / name).write_text(content + "\n" * (name == "d"))
    told = shell.error("backfill", str(mixed), code=1)
    assert f"{mixed}/a.txt: none of its first 1 lines" in told
    assert "archives refused besides: 1, which the log names" in told
    assert query("SELECT count(*) FROM user_logins") == [(3,)]
    # Named together with its compressed copy.
    (tmp_path / "day.jsonl").write_text(login)
    (tmp_path / "day.jsonl.gz").write_bytes(gzip.compress(login.encode()))
    told = shell.error("backfill", *map(str, tmp_path.glob("day*")), code=2)
    assert "seem to hold the same lines" in told
    assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
    assert query("SELECT count(*) FROM sqs2pg.backfill WHERE finished_at IS NOT NULL") == [(3,)]


def test_a_persons_damaged_key_sets_that_persons_lines_aside_and_no_other(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    vault = {"SQS2PG_VAULT__ENABLED": "true"}
    shell("migrate", **vault)

    def archive(name: str, octet: int) -> str:
        file = tmp_path / f"{name}-2023-05-06.jsonl"
        lines = [{"user_id": f"u{n % 50}", "ip": f"10.{octet}.0.{n}"} for n in range(200)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(file)

    assert shell("backfill", archive("first", 1), "--json", **vault).last["written"] == 200
    query("CREATE TABLE backup AS SELECT * FROM pii.subject_key")
    [(reference,)] = query(
        "UPDATE pii.subject_key"
        " SET wrapped_key = set_byte(wrapped_key, 30, get_byte(wrapped_key, 30) # 1) WHERE subject"
        " = (SELECT v.subject FROM pii.value v JOIN user_logins u ON u.masked_ip = v.token"
        " WHERE user_id = 'u7' LIMIT 1) RETURNING subject"
    )
    ended = shell("backfill", archive("second", 2), "--json", **vault)
    done = ended.last
    assert (done["lines"], done["written"], done["quarantined"]) == (200, 196, 4)
    assert ended.err.count(reference.hex) == 1
    aside = "SELECT reason, count(*) FROM sqs2pg.quarantine WHERE replayed_at IS NULL GROUP BY 1"
    assert query(aside) == [("subject_key_damaged", 4)]
    assert query("SELECT line FROM sqs2pg.backfill WHERE source ~ 'second'") == [(200,)]
    assert shell("verify", "--json", **vault).last["ok"]
    query(
        "UPDATE pii.subject_key k SET wrapped_key = b.wrapped_key FROM backup b"
        " WHERE b.subject = k.subject"
    )
    shell("quarantine", "replay", "--all", **vault)
    assert query(aside) == []
    assert query("SELECT count(*) FROM user_logins WHERE user_id = 'u7'") == [(8,)]
    assert shell("verify", "--json", **vault).last["ok"]


CHECKS = """CREATE FUNCTION checks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.user_id ~ '{who}' THEN {what}; END IF; RETURN NEW; END $$;
CREATE TRIGGER checks BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION checks()"""
MENDED = "DROP FUNCTION checks() CASCADE"
ENTRY = "SELECT line, left_behind, finished_at IS NOT NULL FROM sqs2pg.backfill"
SOON = {"SQS2PG_SINK__STATEMENT_TIMEOUT_S": "1"}


def left_behind(said: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "a line is left behind"]


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize(
    ("what", "code", "bad"),
    [
        ("PERFORM pg_sleep(30)", "postgres_57014", [7]),
        ("PERFORM FROM missing_table", "postgres_42P01", [0, 150, 151, 299]),
        ("RAISE SQLSTATE 'XX000'", "postgres_XX000", [298]),
        ("RAISE SQLSTATE '53100'", "postgres_53100", [12]),
    ],
)
def test_a_line_that_postgresql_does_not_take_keeps_no_other_and_is_tried_again(
    shell: Shell, query: Query, tmp_path: Path, what: str, code: str, bad: list[int]
) -> None:
    file = tmp_path / "logins-2023-05-06.jsonl"
    file.write_text("".join(f'{{"user_id": "u{i}"}}\n' for i in range(300)) + "not json\n")
    query(CHECKS.format(who=f"^u({'|'.join(map(str, bad))})$", what=what))

    ended = shell("backfill", str(file), "--json", code=1, **SOON)
    done = ended.last
    assert (done["written"], done["quarantined"]) == (300 - len(bad), 1)
    assert (done["left"], done["lines"]) == (len(bad), 301 - len(bad))
    told = left_behind(ended.err)
    assert [line["line"] for line in told] == [number + 1 for number in bad]
    assert {(line["code"], line["where"], line["table"]) for line in told} == {
        (code, str(file), "public.user_logins")
    }
    assert query(ENTRY) == [(301, bad, False)]
    assert query("SELECT count(*) FROM user_logins") == [(300 - len(bad),)]
    assert shell("verify", "--json").last["ok"]

    # Nothing has changed: they are tried again, and stay.
    again = shell("backfill", str(file), "--json", code=1, **SOON).last
    assert (again["lines"], again["left"], again["resumed"]) == (0, len(bad), 301 - len(bad))

    query(MENDED)
    again = shell("backfill", str(file), "--json").last
    assert (again["written"], again["left"], again["lines"]) == (len(bad), 0, len(bad))
    assert query(ENTRY) == [(301, [], True)]
    assert query("SELECT count(*), count(DISTINCT user_id) FROM user_logins") == [(300, 300)]
    assert shell("verify", "--json").last["ok"]
    assert shell("backfill", str(file), "--json").last["skipped"] == 1


@pytest.mark.usefixtures("migrated_database")
def test_a_trigger_that_fails_for_every_line_ends_the_run_and_the_next_one_writes_all(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    file = tmp_path / "logins-2023-05-06.jsonl"
    file.write_text("".join(f'{{"user_id": "u{i}"}}\n' for i in range(300)))
    query(CHECKS.format(who=".", what="PERFORM FROM missing_table"))
    said = shell.error("backfill", str(file), code=1)
    assert f"the database did not take a batch of {file}" in said
    assert "42P01" in said
    assert query("SELECT cardinality(left_behind) < 10, line < 10 FROM sqs2pg.backfill") == [
        (True, True)
    ]
    query(MENDED)
    assert shell("backfill", str(file), "--json").last["written"] == 300
    assert query(ENTRY) == [(300, [], True)]
    assert shell("verify", "--json").last["ok"]


def test_a_line_of_a_day_without_a_partition_is_left_behind_with_its_day(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    query(
        "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32),"
        " masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),"
        " app_version integer, create_date date) PARTITION BY RANGE (create_date);"
        "CREATE TABLE y2023 PARTITION OF user_logins FOR VALUES FROM ('2023-01-01') TO"
        " ('2024-01-01')"
    )
    shell("migrate")
    for name, others in (("first", 20), ("second", 5)):
        lines = [{"user_id": f"u{i}", "create_date": "2023-05-06"} for i in range(others)]
        lines.insert(3, {"user_id": "late", "create_date": "2031-02-03"})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    files = [str(tmp_path / "first.jsonl"), str(tmp_path / "second.jsonl")]
    ended = shell("backfill", *files, "--workers", "2", "--json", code=1)
    assert (ended.last["written"], ended.last["left"]) == (25, 2)
    assert [(line["line"], line["day"]) for line in left_behind(ended.err)] == [
        (4, "2031-02-03")
    ] * 2
    query("CREATE TABLE y2031 PARTITION OF user_logins DEFAULT")
    assert shell("backfill", *files, "--workers", "2", "--json").last["written"] == 2
    assert shell("verify", "--json").last["ok"]
