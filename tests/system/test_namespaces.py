"""Consumers with different addresses, each in a network namespace, on one queue and database.

Each namespace has an address on a bridge of its own network and no other way out. The servers stay
on loopback; a relay on the bridge's address leads to them, and notes who came.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.local_aws import aws_variables
from tests.shell import Shell, bare_environment

pytestmark = pytest.mark.system

CONSUMERS = 3
SENT = 3_000
NETWORK = "10.231.77"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Relay:
    """Leads connections on one address to a port on loopback; notes the peers' addresses."""

    def __init__(self, address: str, port: int) -> None:
        self._to = port
        self._listener = socket.create_server((address, 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.peers: set[str] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, (peer, _) = self._listener.accept()
                self.peers.add(peer)
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, self._connect() as server:
            chooser = selectors.DefaultSelector()
            chooser.register(client, selectors.EVENT_READ, server)
            chooser.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in chooser.select():
                    data = key.fileobj.recv(2**16)  # type: ignore[union-attr]  # a socket
                    if not data:
                        return
                    key.data.sendall(data)

    def _connect(self) -> socket.socket:
        server = socket.create_connection(("127.0.0.1", self._to))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Names of namespaces that reach the bridge and nothing else; gone at the end."""
    assert os.geteuid() == 0, "network namespaces need root: run `make test-system` as root"
    tag = secrets.token_hex(2)
    bridge = f"s2p{tag}"
    names = [f"sqs2pg-{tag}-{number}" for number in range(CONSUMERS)]
    with contextlib.ExitStack() as stack:
        ip("link", "add", bridge, "type", "bridge")
        stack.callback(ip, "link", "delete", bridge)
        ip("address", "add", f"{NETWORK}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            here, there = f"v{tag}{number}", f"w{tag}{number}"
            ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            ip("link", "set", here, "master", bridge, "up")
            inside = ("netns", "exec", name, "ip")
            ip(*inside, "link", "set", "lo", "up")
            ip(*inside, "address", "add", f"{NETWORK}.{10 + number}/24", "dev", there)
            ip(*inside, "link", "set", there, "up")
        yield names


def test_consumers_with_different_addresses_share_one_queue(
    namespaces: list[str], database: str, sqs_endpoint: str, queue_url: str, tmp_path: Path
) -> None:
    at = urlsplit(database)
    assert at.port is not None
    to_database = Relay(f"{NETWORK}.1", at.port)
    to_queue = Relay(f"{NETWORK}.1", urlsplit(sqs_endpoint).port or 0)
    where = at.netloc.rpartition("@")[0] + f"@{NETWORK}.1:{to_database.port}"
    common: dict[str, Any] = bare_environment() | {
        **aws_variables(sqs_endpoint),
        "SQS2PG_SOURCE__QUEUE": queue_url.rsplit("/", 1)[-1],
        "SQS2PG_SOURCE__DRAIN_SETTLE_S": "1",
        "SQS2PG_SOURCE__IN_FLIGHT_MESSAGES_MAX": "200",
        "SQS2PG_SINK__BATCH_ROWS_MAX": "100",
        "SQS2PG_KEYS__FILE": str(tmp_path / "sqs2pg.keys"),
    }
    here = Shell(tmp_path, common | {"DATABASE_URL": database})
    here("keys", "init")
    here("migrate")
    here("send", "--count", str(SENT))
    there = common | {
        "DATABASE_URL": urlunsplit(at._replace(netloc=where)),
        "AWS_ENDPOINT_URL": f"http://{NETWORK}.1:{to_queue.port}",
    }
    processes = [
        subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                name,
                sys.executable,
                "-m",
                "sqs2pg",
                "run",
                "--drain",
                "--json",
            ],
            cwd=tmp_path,
            env=there,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in namespaces
    ]
    totals = []
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        totals.append(json.loads(out.strip().splitlines()[-1]))
    for relay in (to_database, to_queue):
        assert relay.peers == {f"{NETWORK}.{10 + number}" for number in range(CONSUMERS)}
        relay.close()
    assert all(one["received"] > 0 for one in totals), "each had a share of the messages"
    assert sum(one["written"] + one["quarantined"] for one in totals) == SENT
    with psycopg.connect(database) as connection:
        [rows] = connection.execute("SELECT count(*) FROM user_logins").fetchone() or [0]
    assert rows == sum(one["written"] for one in totals)
    report = here("verify", "--json").last
    assert report["ok"], report
