"""Several pipelines: the commands take their folder, and a pipeline's name."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.logins import login, send
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]

ORDERS = """
[source]
queue = "{queue}"
[sink]
table = "orders"
[[field]]
source = "id"
column = "id"
type = "bigint"
required = true
mask = "keep"
"""


class Set:
    """A folder with the settings of two pipelines, `orders` and `logins`, and their queues."""

    def __init__(self, shell: Shell, sqs: Any) -> None:
        self.shell, self.sqs = shell, sqs
        del shell.environment["SQS2PG_SOURCE__QUEUE"]
        self.folder = shell.folder / "pipelines"
        self.folder.mkdir()
        self.urls = {name: self.new_queue(name) for name in ("orders", "logins")}
        self.write("orders", ORDERS)
        self.write("logins", '[source]\nqueue = "{queue}"\n')

    def new_queue(self, name: str) -> str:
        url: str = self.sqs.create_queue(QueueName=f"{name}-{uuid.uuid4().hex[:8]}")["QueueUrl"]
        return url

    def write(self, name: str, text: str) -> Path:
        file = self.folder / f"{name}.toml"
        file.write_text(text.format(queue=self.urls[name].rsplit("/", 1)[-1]))
        return file

    def send(self, name: str, bodies: list[str]) -> list[str]:
        return send(self.sqs, self.urls[name], bodies)


@pytest.fixture
def pipelines(shell: Shell, sqs: Any) -> Set:
    return Set(shell, sqs)


def test_commands_take_a_folder_and_a_pipeline_s_name(
    pipelines: Set, shell: Shell, query: Query
) -> None:
    folder = ("-c", str(pipelines.folder))
    told = shell("migrate", *folder).out
    assert "logins: registered pipeline logins for public.user_logins" in told
    assert "orders: registered pipeline orders for public.orders" in told
    assert query("SELECT count(DISTINCT name) FROM sqs2pg.pipeline") == [(2,)]
    again = shell("migrate", *folder, "--pipeline", "orders").out
    assert again == "nothing to do: the database is up to date\n"
    assert "no pipeline is called nobody" in shell.error(
        "migrate", *folder, "--pipeline", "nobody", code=2
    )

    report = shell("check", *folder, "--json", code=None).last
    assert [one["pipeline"] for one in report["pipelines"]] == ["logins", "orders"]
    assert report["ok"] is all(one["ok"] for one in report["pipelines"])
    one = shell("check", *folder, "--pipeline", "orders", "--json", code=None).last
    assert "pipelines" not in one
    assert any("into orders" in check["detail"] for check in one["checks"])

    pipelines.send("orders", ['{"id": 1}', '{"id": 2}', "no JSON"])
    pipelines.send("logins", [login(0)])
    for name in ("orders", "logins"):
        shell("run", *folder, "--pipeline", name, "--drain")
    report = shell("verify", *folder, "--json").last
    assert report["ok"] is True
    by_name = {one["pipeline"]: one for one in report["pipelines"]}
    assert (by_name["orders"]["written"], by_name["orders"]["quarantined"]) == (2, 1)
    assert (by_name["logins"]["written"], by_name["logins"]["quarantined"]) == (1, 0)
    query("DELETE FROM orders WHERE id = 1")
    told = shell("verify", *folder, code=1).out
    assert told.index("logins:") < told.index("the books balance") < told.index("orders:")
    assert told.endswith("the books do not balance\n")
    assert shell("verify", *folder, "--pipeline", "logins", "--json").last["ok"] is True

    [entry] = shell("quarantine", "list", *folder, "--pipeline", "orders", "--json").last
    assert entry["reason"] == "not_json"
    assert shell("quarantine", "list", *folder, "--pipeline", "logins", "--json").last == []
    said = shell.error("quarantine", "list", *folder, code=2)
    assert "--pipeline: logins, orders" in said


def test_check_reports_each_file_and_other_commands_refuse_the_folder(
    pipelines: Set, shell: Shell
) -> None:
    (pipelines.folder / "broken.toml").write_text("unknown = 1\n")
    folder = ("-c", str(pipelines.folder))
    report = shell("check", *folder, "--json", code=1).last
    found = {one["pipeline"]: one for one in report["pipelines"]}
    broken = found[str(pipelines.folder / "broken.toml")]
    assert broken["checks"][0]["status"] == "fail"
    assert "unknown setting unknown" in broken["checks"][0]["detail"]
    assert {"logins", "orders"} < set(found)
    assert "unknown setting unknown" in shell.error("migrate", *folder, code=2)
    said = shell.error("migrate", *folder, code=2, SQS2PG_SOURCE__QUEUE="q")
    assert "SQS2PG_SOURCE__QUEUE" in said


def test_a_folder_is_named_by_the_environment_too(pipelines: Set, shell: Shell) -> None:
    shell.environment["SQS2PG_CONFIG"] = str(pipelines.folder)
    shown = json.loads(shell("config", "show", "--pipeline", "orders", "--json").out)
    assert (shown["name"], shown["sink"]["table"]) == ("orders", "orders")
