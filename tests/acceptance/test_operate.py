"""The operator's commands `top` and `support-bundle`, and what neither may show."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.logins import CANARIES, canary_login
from tests.waiting import wait_for_answer

Send = Callable[[list[str]], list[str]]
TOKEN = "a-secret-token-of-ours"


@pytest.fixture
def address(shell: Any, send: Send, migrated_database: str) -> Iterator[str]:
    """The status address of a pipeline that has processed ten messages, two of them bad."""
    status = {"SQS2PG_STATUS__TOKEN": TOKEN, "SQS2PG_STATUS__POLL_S": "0.2"}
    with shell.serving(**status) as address:
        send([canary_login(i) for i in range(8)] + ["not json " + CANARIES[1]] * 2)
        wanted = ('"written":8', '"quarantined":2', '"queue_visible_messages":0.0', '"workers":[{')
        wait_for_answer(
            f"{address}/state",
            lambda text: all(part in text for part in wanted),
            Authorization=f"Bearer {TOKEN}",
        )
        yield address
    for value in CANARIES:
        assert value not in shell.transcript[-1]


def test_top_shows_a_running_pipeline(shell: Any, address: str) -> None:
    shown = shell.afresh("top", address).out
    assert "user_logins" in shown
    assert "COMMIT" in shown
    assert "not_json" in shown
    report = shell("top", "--json").last  # the settings' own address
    assert report["ok"] is True
    assert (report["written"], report["quarantined"]) == (8, 2)
    assert report["queue_visible_messages"] == 0
    assert {"stage": "decode", "code": "not_json", "times": 2} in report["faults"]
    for value in CANARIES:
        assert value not in shown + json.dumps(report)


def test_top_says_what_is_wrong(shell: Any, address: str) -> None:
    assert "nothing answers" in shell.error("top", "127.0.0.1:1", code=1)
    assert "its token" in shell.error("top", address, code=1, SQS2PG_STATUS__TOKEN="")
    assert "not a URL" in shell.error("top", "ftp://127.0.0.1", code=2)


def test_a_support_bundle_is_safe_to_attach(
    shell: Any, address: str, tmp_path: Path, database: str, queue_url: str
) -> None:
    (tmp_path / "sqs2pg.toml").write_text(
        'name = "secret-project"\n[ledger]\ndedupe_key = "internal_name"\n'
        '[source]\nwait_time_s = 7\n[vault]\nsubject = "user_id"\n'
    )
    ended = shell("support-bundle", "-o", "bundle.zip", "--json", code=0)
    assert ended.last["file"] == "bundle.zip"
    with zipfile.ZipFile(tmp_path / "bundle.zip") as bundle:
        files = {name: bundle.read(name).decode() for name in bundle.namelist()}
    assert set(ended.last["files"]) == set(files)
    everything = "\n".join(files.values())
    password = database.split("@", maxsplit=1)[0].rsplit(":", 1)[1]
    hidden = [*CANARIES, TOKEN, password, database, "secret-project", "internal_name"]
    hidden += [queue_url, queue_url.rsplit("/", 1)[-1], str(tmp_path), socket.gethostname() + ":"]
    for text in hidden:
        assert text not in everything
    settings = json.loads(files["settings.json"])
    assert settings["source"]["wait_time_s"] == 7
    assert settings["source"]["queue"] == settings["name"] == "(set)"
    assert settings["sink"]["table"] == "user_logins", "a default is no secret"
    assert (
        'sqs2pg_faults_total{code="not_json",pipeline="1",stage="decode"} 2.0'
        in files["metrics.txt"]
    )
    assert json.loads(files["state.json"])["faults"] == {"decode not_json": 2.0}
    assert json.loads(files["versions.json"])["packages"]["msgspec"]
    checks = json.loads(files["check.json"])
    assert {check["status"] for check in checks} <= {"ok", "warn", "fail"}
    assert len(checks) >= 6


def test_a_pipeline_that_ends_while_a_bundle_is_collected_is_noted(
    shell: Any, address: str, tmp_path: Path
) -> None:
    class Ending(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/state":
                self.close_connection = True  # without an answer
                return
            request = urllib.request.Request(address + self.path)
            request.add_header("Authorization", self.headers["Authorization"])
            with urllib.request.urlopen(request) as answer:
                body = answer.read()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ending) as ending:
        Thread(target=ending.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{ending.server_port}"
        shell("support-bundle", url, "-o", "bundle.zip")
        ending.shutdown()
    with zipfile.ZipFile(tmp_path / "bundle.zip") as bundle:
        assert bundle.read("metrics.txt") == b"# no pipeline answered: status_unreachable\n"


def test_a_bundle_can_be_had_of_a_broken_installation(bare_shell: Any, tmp_path: Path) -> None:
    (tmp_path / "sqs2pg.toml").write_text('sink = "canary-user"\n')
    bare_shell("support-bundle", "-o", "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as bundle:
        settings = json.loads(bundle.read("settings.json"))
        everything = b"".join(map(bundle.read, bundle.namelist()))
    assert settings == {"error": "settings"}
    assert b"canary" not in everything


def test_demo_keep_leaves_the_page_up_and_its_next_steps_work_as_pasted(
    bare_shell: Any, tmp_path: Path
) -> None:
    demo = subprocess.Popen(
        [bare_shell.python, "-m", "sqs2pg", "demo", "--messages", "100", "--keep"],
        cwd=bare_shell.folder,
        env=bare_shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    try:
        assert demo.stdout is not None
        page = next(line for line in demo.stdout if line.startswith("status page: "))
        address = page.split()[-1]
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert "Message flow" in answer.read().decode()
        wait_for_answer(f"{address}/readyz", lambda text: '"ok":true' in text)
        steps: list[str] = []
        for line in demo.stdout:
            steps += [line.strip()] if line.startswith("  ") else []
            if "list-queues" in line:
                break
        source, send, top, psql, aws = steps
        assert aws == 'aws --endpoint-url "$AWS_ENDPOINT_URL" sqs list-queues'
        done = subprocess.run(
            ["bash", "-c", "\n".join(["set -e", source, send, f"{top} --once", psql])],
            check=False,
            cwd=elsewhere,
            env={"PATH": os.defpath, "HOME": str(elsewhere)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "sent 5,000 messages" in done.stdout
        assert "(5 rows)" in done.stdout
    finally:
        demo.terminate()
        demo.communicate(timeout=60)
    assert demo.returncode == 0
