"""The queue server as a process and as an HTTP server: its life, its framing, TLS."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from benchmarks.queue_server import QueueServer, build, fuzz
from tests.local_aws import aws_client

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[QueueServer]:
    with QueueServer() as running:
        yield running


def request(call: str, arguments: dict[str, Any], *headers: str) -> bytes:
    body = json.dumps(arguments).encode()
    lines = [
        "POST / HTTP/1.1",
        "Host: localhost:1",
        f"X-Amz-Target: AmazonSQS.{call}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Wire:
    """A raw connection that reads whole answers."""

    def __init__(self, server: QueueServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 10)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, self.file.read(int(headers.get("content-length", "0")))


@pytest.fixture
def wire(server: QueueServer) -> Iterator[Wire]:
    with Wire(server) as made:
        yield made


@pytest.fixture
def queue(server: QueueServer, request: pytest.FixtureRequest) -> str:
    name = re.sub("[^a-z_]", "", request.node.name)[:80]
    server.call("CreateQueue", {"QueueName": name})
    return name


# ---- framing ----


def test_pipelined_requests_are_answered_in_order(
    server: QueueServer, wire: Wire, queue: str
) -> None:
    """A long poll in the middle delays the send that would end it, so it times out."""
    wire.socket.sendall(
        request("SendMessage", {"QueueUrl": queue, "MessageBody": "first"})
        + request("ReceiveMessage", {"QueueUrl": queue})
        + request("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 1})
        + request("SendMessage", {"QueueUrl": queue, "MessageBody": "second"})
        + request("GetQueueUrl", {"QueueName": queue})
    )
    answers = [json.loads(wire.answer()[2]) for _ in range(5)]
    assert "MessageId" in answers[0]
    assert answers[1]["Messages"][0]["Body"] == "first"
    assert answers[2] == {}
    assert "MessageId" in answers[3]
    assert answers[4]["QueueUrl"] == f"http://localhost:1/000000000000/{queue}"


def test_a_long_poll_may_be_answered_early() -> None:
    with QueueServer("--longest-poll-ms", "50") as server:
        server.call("CreateQueue", {"QueueName": "empty"})
        began = time.monotonic()
        assert server.call("ReceiveMessage", {"QueueUrl": "empty", "WaitTimeSeconds": 20}) == {}
        assert 0.05 <= time.monotonic() - began < 15


def test_a_request_may_come_byte_by_byte(wire: Wire, queue: str) -> None:
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request("SendMessage", {"QueueUrl": queue, "MessageBody": "slow"}):
        wire.socket.sendall(bytes([byte]))
    status, headers, _ = wire.answer()
    assert status == 200
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert headers["date"].endswith("GMT")


def test_many_answers_that_nobody_reads_yet_are_all_kept(wire: Wire, queue: str) -> None:
    text = "x" * 300_000
    done = threading.Event()

    def send() -> None:
        wire.socket.sendall(request("SendMessage", {"QueueUrl": queue, "MessageBody": text}))
        for _ in range(60):
            wire.socket.sendall(
                request("ReceiveMessage", {"QueueUrl": queue, "VisibilityTimeout": 0})
            )
        done.set()

    sender = threading.Thread(target=send)
    sender.start()
    sizes = [len(wire.answer()[2]) for _ in range(61)]
    sender.join()
    assert done.is_set()
    assert min(sizes[1:]) > 300_000


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\nContent-Length: 0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
    ],
)
def test_a_faulty_request_is_refused_and_the_connection_closed(
    wire: Wire, raw: bytes, status: int
) -> None:
    wire.socket.sendall(raw)
    answer, headers, _ = wire.answer()
    assert (answer, headers["connection"]) == (status, "close")
    assert wire.file.read() == b""


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"a":}', b'{"a":1,}', b'"\xff', b"{}x", b"[" * 1000, b'{"a":"\n"}']
)
def test_a_body_that_is_not_a_json_object_is_refused_and_the_connection_kept(
    wire: Wire, body: bytes
) -> None:
    head = f"POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: {len(body)}"
    for _ in range(2):
        wire.socket.sendall(head.encode() + b"\r\n\r\n" + body)
        status, headers, answer = wire.answer()
        assert status == 400
        assert headers["x-amzn-query-error"] == "MalformedInput;Sender"
        assert json.loads(answer)["__type"].endswith("SerializationException")


def test_connection_close_and_http_1_0_are_honoured(server: QueueServer, queue: str) -> None:
    for raw in (
        request("GetQueueUrl", {"QueueName": queue}, "Connection: close"),
        request("GetQueueUrl", {"QueueName": queue}).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):
        with Wire(server) as wire:
            wire.socket.sendall(raw)
            assert wire.answer()[0] == 200
            assert wire.file.read() == b""


def test_expect_continue_is_answered(wire: Wire, queue: str) -> None:
    raw = request("SendMessage", {"QueueUrl": queue, "MessageBody": "x"}, "Expect: 100-continue")
    head, _, body = raw.partition(b"\r\n\r\n")
    wire.socket.sendall(head + b"\r\n\r\n")
    assert wire.answer()[0] == 100
    wire.socket.sendall(body)
    assert wire.answer()[0] == 200


def test_a_poll_whose_client_left_takes_no_message(
    server: QueueServer, wire: Wire, queue: str
) -> None:
    poll = request("ReceiveMessage", {"QueueUrl": queue, "WaitTimeSeconds": 20})
    with Wire(server) as left:
        left.socket.sendall(poll)
        assert server.wait("waiting", at_least=1, queue=queue)["reached"]
    # Its poll came before ours, so it would get the message if it were still waiting.
    wire.socket.sendall(poll)
    server.call("SendMessage", {"QueueUrl": queue, "MessageBody": "kept"})
    assert json.loads(wire.answer()[2])["Messages"][0]["Body"] == "kept"


def test_polls_are_served_in_the_order_they_came(server: QueueServer, queue: str) -> None:
    poll = {"QueueUrl": queue, "WaitTimeSeconds": 20}
    with Wire(server) as first, Wire(server) as second:
        for count, wire in enumerate((first, second), 1):
            wire.socket.sendall(request("ReceiveMessage", poll))
            assert server.wait("waiting", at_least=count, queue=queue)["reached"]
        for body, wire in (("1", first), ("2", second)):
            server.call("SendMessage", {"QueueUrl": queue, "MessageBody": body})
            assert json.loads(wire.answer()[2])["Messages"][0]["Body"] == body


def test_polls_on_a_deleted_queue_end(server: QueueServer, wire: Wire) -> None:
    server.call("CreateQueue", {"QueueName": "doomed"})
    poll = {"QueueUrl": "doomed", "WaitTimeSeconds": 20}
    wire.socket.sendall(request("ReceiveMessage", poll) + request("ListQueues", {}))
    assert server.wait("waiting", at_least=1, queue="doomed")["reached"]
    server.call("DeleteQueue", {"QueueUrl": "doomed"})
    status, headers, _ = wire.answer()
    assert status == 400
    assert "NonExistentQueue" in headers["x-amzn-query-error"]
    assert wire.answer()[0] == 200


# ---- process ----


def test_the_server_listens_on_loopback_only(server: QueueServer) -> None:
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{server.port:04X}")
    ]
    assert listening == [f"0100007F:{server.port:04X}"]


@pytest.mark.parametrize("start", ["server.start()", "Thread(target=server.start).start()"])
def test_the_server_ends_when_its_parent_is_killed(start: str) -> None:
    code = f"""
import sys, time
from threading import Thread
from benchmarks.queue_server import QueueServer
server = QueueServer()
{start}
while not server.port: pass
print(server.port, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    port = int(parent.stdout.readline())
    with socket.create_connection(("127.0.0.1", port), 10) as held:
        held.sendall(b"GET /_control/stats HTTP/1.1\r\n\r\n")
        assert held.recv(1 << 16).startswith(b"HTTP/1.1 200")
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
        assert held.recv(1) == b""  # the server's end of it closes when the server is gone
    parent.stdin.close()
    parent.stdout.close()
    # Refused; or reset, if it came after one socket was closed and before the other was.
    with (
        pytest.raises((ConnectionRefusedError, ConnectionResetError)),
        socket.create_connection(("127.0.0.1", port), 10) as late,
    ):
        late.recv(1)


def test_stop_ends_it_and_may_be_repeated() -> None:
    server = QueueServer().start()
    assert server.stop() == 0
    assert server.stop() is None


def test_the_server_survives_malformed_requests() -> None:
    found = fuzz.run(seed=20260101, cases=4000)
    assert found.answered > 1000
    assert found.refused > 100


def test_the_server_is_compiled_once() -> None:
    assert build() == build()


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[QueueServer, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, ca = (folder / name for name in ("certificate", "key", "ca"))
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    with QueueServer(certificate=certificate, key=key, ca=ca) as server:
        yield server, ca


def test_the_server_speaks_tls(tls_server: tuple[QueueServer, Path]) -> None:
    server, ca = tls_server
    client = aws_client(
        "sqs",
        server.endpoint_url,
        verify=str(ca),
    )
    url = client.create_queue(QueueName="tls")["QueueUrl"]
    assert url.startswith("https://127.0.0.1:")
    body = "é" * 500_000
    client.send_message(QueueUrl=url, MessageBody=body)
    (message,) = client.receive_message(QueueUrl=url, WaitTimeSeconds=1)["Messages"]
    assert message["Body"] == body
    assert server.stats()["received"] == 1
    client.close()


def test_what_is_pipelined_behind_a_long_poll_is_not_forgotten_under_tls(
    tls_server: tuple[QueueServer, Path],
) -> None:
    server, ca = tls_server
    server.call("CreateQueue", {"QueueName": "piped"})
    poll = request("ReceiveMessage", {"QueueUrl": "piped", "WaitTimeSeconds": 1})
    more = request("GetQueueUrl", {"QueueName": "piped"}, f"X-Filler: {'x' * 2000}")
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", server.port), 20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
        stream.makefile("rb") as answers,
    ):
        stream.sendall(poll + more * 100)  # more than is read ahead while a poll waits
        found = b""
        while found.count(b'"QueueUrl"') < 100:
            found += answers.read1()
    assert found.count(b"HTTP/1.1 200") == 101


def test_a_fill_puts_each_login_into_its_template(server: QueueServer) -> None:
    client = aws_client("sqs", endpoint_url=server.endpoint_url)
    url = client.create_queue(QueueName="templates")["QueueUrl"]
    server.fill("templates", 5, template='{"ü": 7, "whole": $, "quoted": "%", @')
    found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert len(found) == 5
    for message in found:
        document = json.loads(message["Body"])
        login = document["whole"]
        assert login["user_id"]
        assert document == {"ü": 7, "whole": login, "quoted": document["quoted"]} | login
        assert json.loads(document["quoted"]) == login
    with pytest.raises(ValueError, match="template"):
        server.fill("templates", 1, template=7)
