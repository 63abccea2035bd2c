"""Several pipelines: the commands take their folder, and a pipeline's name."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.logins import login
from tests.shell import Shell, told_error
from tests.waiting import wait_until

from .pipeline_set import PipelineSet

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def pipelines(shell: Shell, sqs: Any) -> PipelineSet:
    return PipelineSet(shell, sqs)


def test_commands_take_a_folder_and_a_pipeline_s_name(
    pipelines: PipelineSet, shell: Shell, query: Query
) -> None:
    told = shell("migrate", *pipelines.options).out
    assert "logins: registered pipeline logins for public.user_logins" in told
    assert "orders: registered pipeline orders for public.orders" in told
    assert query("SELECT count(DISTINCT name) FROM sqs2pg.pipeline") == [(2,)]
    again = shell("migrate", *pipelines.options, "--pipeline", "orders").out
    assert again == "nothing to do: the database is up to date\n"
    assert "no pipeline is called nobody" in shell.error(
        "migrate", *pipelines.options, "--pipeline", "nobody", code=2
    )

    report = shell("check", *pipelines.options, "--json", code=None).last
    assert [one["pipeline"] for one in report["pipelines"]] == ["logins", "orders"]
    assert report["ok"] is all(one["ok"] for one in report["pipelines"])
    one = shell("check", *pipelines.options, "--pipeline", "orders", "--json", code=None).last
    assert "pipelines" not in one
    assert any("into orders" in check["detail"] for check in one["checks"])

    pipelines.send("orders", ['{"id": 1}', '{"id": 2}', "no JSON"])
    pipelines.send("logins", [login(0)])
    for name in ("orders", "logins"):
        shell("run", *pipelines.options, "--pipeline", name, "--drain")
    report = shell("verify", *pipelines.options, "--json").last
    assert report["ok"] is True
    by_name = {one["pipeline"]: one for one in report["pipelines"]}
    assert (by_name["orders"]["written"], by_name["orders"]["quarantined"]) == (2, 1)
    assert (by_name["logins"]["written"], by_name["logins"]["quarantined"]) == (1, 0)
    assert "no digest is kept" in shell.error("verify", "--deep", *pipelines.options, code=2)
    orders = pipelines.folder / "orders.toml"
    orders.write_text(
        orders.read_text().replace('table = "orders"', 'table = "orders"\nkey = ["id"]')
    )
    shell("migrate", *pipelines.options)
    told = shell("verify", "--deep", *pipelines.options).out
    assert told.index("logins:") < told.index("note: no digest is kept") < told.index("orders:")
    query("DELETE FROM orders WHERE id = 1")
    told = shell("verify", *pipelines.options, code=1).out
    assert told.index("logins:") < told.index("the books balance") < told.index("orders:")
    assert told.endswith("the books do not balance\n")
    assert shell("verify", *pipelines.options, "--pipeline", "logins", "--json").last["ok"] is True

    [entry] = shell("quarantine", "list", *pipelines.options, "--pipeline", "orders", "--json").last
    assert entry["reason"] == "not_json"
    assert (
        shell("quarantine", "list", *pipelines.options, "--pipeline", "logins", "--json").last == []
    )
    said = shell.error("quarantine", "list", *pipelines.options, code=2)
    assert "--pipeline: logins, orders" in said


def test_check_reports_each_file_and_other_commands_refuse_the_folder(
    pipelines: PipelineSet, shell: Shell
) -> None:
    (pipelines.folder / "broken.toml").write_text("unknown = 1\n")
    report = shell("check", *pipelines.options, "--json", code=1).last
    found = {one["pipeline"]: one for one in report["pipelines"]}
    broken = found[str(pipelines.folder / "broken.toml")]
    assert broken["checks"][0]["status"] == "fail"
    assert "unknown setting unknown" in broken["checks"][0]["detail"]
    assert {"logins", "orders"} < set(found)
    assert "unknown setting unknown" in shell.error("migrate", *pipelines.options, code=2)
    said = shell.error("migrate", *pipelines.options, code=2, SQS2PG_SOURCE__QUEUE="q")
    assert "SQS2PG_SOURCE__QUEUE" in said


def test_one_that_fails_keeps_no_other_from_migrate_and_verify(
    pipelines: PipelineSet, shell: Shell, query: Query
) -> None:
    shell("migrate", *pipelines.options)
    query("DROP TABLE orders")
    ended = shell("verify", *pipelines.options, code=2)
    assert "logins:\nwritten 0" in ended.out
    assert "the books balance" in ended.out
    assert ended.out.endswith("orders:\nnot compared: target_table\n")
    assert "error: orders: table orders does not exist\nhint: run `sqs2pg migrate`" in ended.err
    assert "error: 1 pipeline failed: orders" in ended.err
    report = shell("verify", *pipelines.options, "--json", code=2).last
    assert report["ok"] is False
    assert [(one["pipeline"], one["ok"]) for one in report["pipelines"]] == [
        ("logins", True),
        ("orders", False),
    ]
    assert report["pipelines"][1]["error"] == "target_table"

    # A name that belongs to another table stands before the one that is repaired.
    (pipelines.folder / "a.toml").write_text(
        'name = "logins"\n' + (pipelines.folder / "orders.toml").read_text()
    )
    (pipelines.folder / "logins.toml").unlink()
    ended = shell("migrate", *pipelines.options, code=2)
    assert "error: logins: pipeline 'logins' writes to public.user_logins" in ended.err
    assert "created table orders" in ended.out
    shell("verify", *pipelines.options, "--pipeline", "orders")


def test_a_file_that_cannot_be_read_is_told_beside_the_others(
    pipelines: PipelineSet, shell: Shell
) -> None:
    shell("migrate", *pipelines.options)
    broken = pipelines.folder / "broken.toml"
    broken.write_text("unknown = 1\n")
    report = shell("verify", *pipelines.options, "--json", code=2).last
    assert {one["pipeline"]: one["ok"] for one in report["pipelines"]} == {
        "logins": True,
        "orders": True,
        str(broken): False,
    }
    ended = shell("verify", *pipelines.options, "--audit", code=2)
    assert ended.out.endswith("the chain holds\n")
    assert f"error: {broken}: unknown setting unknown" in ended.err
    ended = shell("check", *pipelines.options, "--emit-iam", code=2)
    assert ended.out.count('"Version"') == 2
    assert "unknown setting unknown" in ended.err
    # One that is named needs its own file alone.
    options = (*pipelines.options, "--pipeline")
    shell("verify", *options, "orders")
    assert shell("quarantine", "list", *options, "orders", "--json").last == []
    shell("check", *options, "orders", "--emit-iam")
    for command in ("verify", "check"):
        assert "unknown setting unknown" in shell.error(command, *options, "broken", code=2)


def test_a_folder_is_named_by_the_environment_too(pipelines: PipelineSet, shell: Shell) -> None:
    shell.environment["SQS2PG_CONFIG"] = str(pipelines.folder)
    shown = json.loads(shell("config", "show", "--pipeline", "orders", "--json").out)
    assert (shown["name"], shown["sink"]["table"]) == ("orders", "orders")


def test_one_process_drains_all_and_prints_one_document(
    pipelines: PipelineSet, shell: Shell, query: Query
) -> None:
    shell("migrate", *pipelines.options)
    pipelines.ids("orders", 0, 30)
    pipelines.send("logins", [*map(login, range(20)), "no JSON"])
    report = shell("run", *pipelines.options, "--drain", "--json").last
    assert (report["received"], report["written"], report["quarantined"]) == (51, 50, 1)
    each = {one["pipeline"]: one for one in report["pipelines"]}
    assert (each["orders"]["written"], each["logins"]["written"]) == (30, 20)
    assert (each["orders"]["quarantined"], each["logins"]["quarantined"]) == (0, 1)
    assert query("SELECT count(*) FROM orders") == [(30,)]

    pipelines.ids("orders", 30, 3)
    files = [o for name in ("orders", "logins") for o in ("-c", f"{pipelines.folder}/{name}.toml")]
    said = shell("run", *files, "--drain").out
    assert re.search(r"^orders: received 3: written 3,", said, re.MULTILINE)
    assert re.search(r"^in all: received 3: written 3,", said, re.MULTILINE)
    # One alone has the document that it always had.
    pipelines.ids("orders", 33, 3)
    alone = shell("run", *pipelines.options, "--pipeline", "orders", "--drain", "--json").last
    assert alone["written"] == 3
    assert "pipelines" not in alone
    assert shell("verify", *pipelines.options, "--json").last["ok"] is True


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_drain_ends_with_the_worst_exit_code_and_drains_the_others(
    pipelines: PipelineSet, shell: Shell, workers: str
) -> None:
    shell("migrate", *pipelines.options)
    pipelines.add("not_migrated")
    pipelines.ids("orders", 0, 30)
    ended = shell("run", *pipelines.options, "--drain", "--json", "--workers", workers, code=2)
    report = ended.last
    each = {one["pipeline"]: one for one in report["pipelines"]}
    assert (report["written"], each["orders"]["written"]) == (30, 30)
    assert each["not_migrated"]["error"] == "migrate"
    assert "error" not in each["orders"]
    events = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    [told] = [e for e in events if e.get("event", "").startswith("pipeline not_migrated failed")]
    assert (told["pipeline"], told["code"], told["level"]) == ("not_migrated", "migrate", "error")
    assert events[-1]["code"] == "pipelines_failed"
    assert "1 pipeline failed: not_migrated" in events[-1]["event"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_that_fails_stops_alone_and_starts_again(
    pipelines: PipelineSet, shell: Shell, query: Query, workers: str
) -> None:
    shell("migrate", *pipelines.options)
    pipelines.add("late")
    with pipelines.running(*pipelines.options, "--workers", workers) as process:
        wait_until(
            lambda: pipelines.ready() == {"orders": True, "logins": True, "late": False},
            during=process,
        )
        pipelines.ids("orders", 0, 20)
        wait_until(lambda: query("SELECT count(*) FROM orders") == [(20,)], during=process)
        report = json.loads(pipelines.get("/readyz")[1])
        assert report["pipelines"]["late"]["pipeline"]["detail"] == "migrate"
        assert report["pipelines"]["orders"]["database"]["ok"] is True
        assert pipelines.get("/livez")[0] == 200
        wait_until(lambda: len(pipelines.events("pipeline late failed and starts again")) > 1)
        metrics = pipelines.get("/metrics")[1]
        assert 'sqs2pg_pipeline_up{pipeline="late"} 0.0' in metrics
        assert 'sqs2pg_pipeline_up{pipeline="orders"} 1.0' in metrics

        def restart() -> dict[str, Any] | None:
            late = json.loads(pipelines.get("/state")[1])["pipelines"].get("late")
            # The page looks once a second, so it may not have seen its worker yet.
            found: dict[str, Any] | None = late and late["snapshot"]["restart"]
            return found

        wait_until(lambda: restart() is not None, during=process)
        assert (restart() or {})["code"] == "migrate"
        shell("migrate", *pipelines.options)
        process.send_signal(signal.SIGHUP)  # else it waits for its turn
        pipelines.all_ready("late", "logins", "orders")
        pipelines.ids("late", 0, 5)
        wait_until(lambda: query("SELECT count(*) FROM late") == [(5,)], during=process)
        pipelines.stop(process)


def test_the_page_lists_all_and_has_one_for_each(pipelines: PipelineSet, shell: Shell) -> None:
    shell("migrate", *pipelines.options)
    with pipelines.running() as process:
        pipelines.all_ready("logins", "orders")
        status, page = pipelines.get("/")
        assert (status, "pipelines.js" in page) == (200, True)
        status, page = pipelines.get("/pipelines/orders")
        assert (status, "app.js" in page) == (200, True)
        moment = json.loads(pipelines.get("/pipelines/orders/state")[1])
        assert moment["snapshot"]["pipeline"] == "orders"
        assert json.loads(pipelines.get("/pipelines/logins/history")[1]) is not None
        assert pipelines.get("/pipelines/nobody")[0] == 404
        assert pipelines.get("/pipelines/nobody/state")[0] == 404
        assert pipelines.get("/static/pipelines.js")[0] == 200
        metrics = pipelines.get("/metrics")[1]
        ours = [line for line in metrics.splitlines() if line.startswith("sqs2pg_")]
        unlabelled = {re.split("[ {]", line)[0] for line in ours if "pipeline=" not in line}
        assert unlabelled == {"sqs2pg_build_info"}
        assert "process_resident_memory_bytes" in metrics
        assert metrics.count("# TYPE sqs2pg_messages_received_total counter") == 1
        top = shell("top", pipelines.address, "--pipeline", "orders", "--json").last
        assert top["pipeline"] == "orders"
        said = shell.error("top", pipelines.address, code=2)
        assert "--pipeline: logins, orders" in said
        pipelines.stop(process)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_adds_removes_and_reads_files_again(
    pipelines: PipelineSet, shell: Shell, query: Query, workers: str
) -> None:
    shell("migrate", *pipelines.options)
    with pipelines.running(*pipelines.options, "--workers", workers) as process:
        pipelines.all_ready("logins", "orders")
        started = pipelines.started()
        third = pipelines.add("third")
        shell("migrate", *pipelines.options)
        pipelines.ids("third", 0, 10)
        pipelines.ids("orders", 0, 10)
        (pipelines.folder / "logins.toml").unlink()
        process.send_signal(signal.SIGHUP)
        pipelines.all_ready("orders", "third")
        wait_until(lambda: query("SELECT count(*) FROM third") == [(10,)], during=process)
        assert pipelines.started() == started + 1, "the others go on as they were"

        third.write_text(third.read_text() + "\nunknown = 1\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: pipelines.events("are refused"), during=process)
        [told] = pipelines.events("are refused")
        assert (told["code"], told["level"]) == ("unknown_setting", "error")
        pipelines.ids("third", 10, 10)
        wait_until(lambda: query("SELECT count(*) FROM third") == [(20,)], during=process)

        third.write_text(third.read_text().replace("unknown = 1", ""))
        third.write_text("report_unknown = true\n" + third.read_text())
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: pipelines.events("settings are in force"), during=process)
        [told] = pipelines.events("settings are in force")
        assert told["pipeline"] == "third"
        pipelines.ids("third", 20, 10)
        pipelines.ids("orders", 10, 10)
        wait_until(lambda: query("SELECT count(*) FROM third") == [(30,)], during=process)
        wait_until(lambda: query("SELECT count(*) FROM orders") == [(20,)], during=process)
        pipelines.stop(process)
    shell("verify", *pipelines.options)


def test_a_worker_that_is_killed_comes_back_with_its_pipelines(
    pipelines: PipelineSet, shell: Shell, query: Query
) -> None:
    pipelines.add("third")
    shell("migrate", *pipelines.options)
    names = ("logins", "orders", "third")
    with pipelines.running(*pipelines.options, "--workers", "2") as process:
        pipelines.all_ready(*names)
        for round_ in range(2):
            tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
            children = [child for task in tasks for child in task.read_text().split()]
            assert len(children) == 2
            pipelines.ids("orders", 100 * round_, 100)
            pipelines.ids("third", 100 * round_, 100)
            for child in children[: 1 + round_]:
                os.kill(int(child), signal.SIGKILL)
            killed = 1 + 2 * round_  # one, then both
            wait_until(lambda k=killed: len(pipelines.events("worker was killed")) == k)
            pipelines.all_ready(*names)
        for table in ("orders", "third"):
            wait_until(
                lambda t=table: (
                    query(f"SELECT count(*), count(DISTINCT id) FROM {t}") == [(200, 200)]
                ),
                during=process,
            )
        pipelines.stop(process)


def test_an_unusable_set_is_refused_at_the_start(pipelines: PipelineSet, shell: Shell) -> None:
    for name, grace in (("orders", 5), ("logins", 6)):
        file = pipelines.folder / f"{name}.toml"
        file.write_text(f"shutdown_grace_s = {grace}\n{file.read_text()}")
    said = told_error(shell("run", *pipelines.options, "--drain", code=2).err)
    for part in ("orders.toml", "logins.toml", "shutdown_grace_s", "5", "6"):
        assert part in said


def test_a_table_that_is_locked_delays_no_other_pipeline(
    pipelines: PipelineSet, shell: Shell, query: Query, database: str
) -> None:
    shell("migrate", *pipelines.options)
    bounds = {"SQS2PG_PROCESS__CONNECTIONS_MAX": "4"}
    with pipelines.running(**bounds) as process, psycopg.connect(database) as other:
        pipelines.all_ready("logins", "orders")
        other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        pipelines.ids("orders", 0, 50)
        waits = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"
        wait_until(lambda: query(waits) != [(0,)], during=process)
        pipelines.send("logins", [*map(login, range(50))])
        wait_until(lambda: query("SELECT count(*) FROM user_logins") == [(50,)], during=process)
        assert query(waits) != [(0,)], "it still waits"
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sqs2pg'"
        assert query(ours)[0][0] <= 4 + 2
        other.rollback()
        wait_until(lambda: query("SELECT count(*) FROM orders") == [(50,)], during=process)
        pipelines.stop(process)
