"""Sends damaged requests to the queue server: `python -m benchmarks.queue_server.fuzz`.

Valid requests of every call are cut, spliced and changed; random JSON and random bytes are sent
too, in random pieces over a few connections. The server must answer or close the connection, and
must still run afterwards. To find more than crashes, build it with QUEUE_SERVER_CFLAGS='-g
-fsanitize=address,undefined -fno-sanitize-recover=all'. The same seed repeats a run.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import socket
import sys
import time

from .server import QueueServer

ANSWER_S = 25.0
"""Longest wait for an answer: a damaged request may ask for a long poll, which takes 20 s."""

CALLS: dict[str, dict[str, object]] = {
    "CreateQueue": {"QueueName": "q", "Attributes": {"VisibilityTimeout": "1"}},
    "GetQueueUrl": {"QueueName": "q"},
    "ListQueues": {"QueueNamePrefix": "q", "MaxResults": 2, "NextToken": "1"},
    "SetQueueAttributes": {"QueueUrl": "q", "Attributes": {"DelaySeconds": "0", "Policy": "{}"}},
    "GetQueueAttributes": {"QueueUrl": "q", "AttributeNames": ["All"]},
    "SendMessage": {
        "QueueUrl": "http://x/1/q",
        "MessageBody": 'é "\\ 😀',
        "DelaySeconds": 0,
        "MessageAttributes": {
            "a.b": {"DataType": "String", "StringValue": "ü"},
            "c": {"DataType": "Binary", "BinaryValue": "AAE="},
        },
        "MessageSystemAttributes": {
            "AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}
        },
    },
    "SendMessageBatch": {
        "QueueUrl": "q.fifo",
        "Entries": [
            {
                "Id": str(i),
                "MessageBody": f"body {i}",
                "MessageGroupId": f"g{i % 3}",
                "MessageDeduplicationId": f"d{i}",
            }
            for i in range(10)
        ],
    },
    "ReceiveMessage": {
        "QueueUrl": "q.fifo",
        "MaxNumberOfMessages": 10,
        "WaitTimeSeconds": 0,
        "VisibilityTimeout": 1,
        "MessageSystemAttributeNames": ["All"],
        "MessageAttributeNames": ["a.*"],
    },
    "DeleteMessage": {"QueueUrl": "q", "ReceiptHandle": "HANDLE"},
    "DeleteMessageBatch": {
        "QueueUrl": "q.fifo",
        "Entries": [{"Id": "1", "ReceiptHandle": "HANDLE"}, {"Id": "2", "ReceiptHandle": "x"}],
    },
    "ChangeMessageVisibility": {
        "QueueUrl": "q",
        "ReceiptHandle": "HANDLE",
        "VisibilityTimeout": 0,
    },
    "ChangeMessageVisibilityBatch": {
        "QueueUrl": "q.fifo",
        "Entries": [{"Id": "1", "ReceiptHandle": "HANDLE", "VisibilityTimeout": 0}],
    },
    "PurgeQueue": {"QueueUrl": "q"},
    "DeleteQueue": {"QueueUrl": "q.fifo"},
}
CONTROLS: dict[str, dict[str, object]] = {
    "faults": {"call": "SendMessage", "throttle_share": 0.1, "duplicate_share": 0.5, "times": 3},
    "fill": {"queue": "q", "count": 20, "malformed_share": 0.5, "people": 3},
    "wait": {"counter": "sent", "at_least": 1, "timeout_ms": 10},
}
TOKENS = (b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\\u0000", b"\\ud800", b"\r\n", b"\0")


@dataclasses.dataclass
class FuzzCounts:
    """How the server reacted in one run."""

    cases: int = 0
    answered: int = 0
    """Requests answered with 200."""
    refused: int = 0
    """Requests answered with another status."""
    closed: int = 0
    """Connections closed by the server."""


def _value(draw: random.Random, depth: int = 0) -> object:
    kind = draw.randrange(9 if depth < 4 else 6)
    if kind < 6:
        options: list[object] = [None, True, -1, 10**18, draw.random(), "x" * draw.randrange(200)]
        return options[kind]
    if kind == 6:
        return [_value(draw, depth + 1) for _ in range(draw.randrange(5))]
    keys = ["QueueUrl", "Entries", "Id", "MessageBody", "Attributes", "é", ""]
    return {draw.choice(keys): _value(draw, depth + 1) for _ in range(draw.randrange(5))}


def _arguments(draw: random.Random, arguments: dict[str, object], handle: str) -> bytes:
    """Return the arguments of a call, some of them replaced by random values."""
    chosen = dict(arguments)
    while draw.random() < 0.3:
        chosen[draw.choice(list(chosen))] = _value(draw)
    if draw.random() < 0.3 and isinstance(chosen.get("QueueUrl"), str):
        chosen["QueueUrl"] = draw.choice(["q", "q.fifo", "none", "", "///"])
    return json.dumps(chosen, ensure_ascii=draw.random() < 0.5).replace("HANDLE", handle).encode()


def _damage(draw: random.Random, raw: bytes) -> bytes:
    """Change, cut, repeat or insert bytes in a few places."""
    data = bytearray(raw)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(data) + 1)
        way = draw.randrange(5)
        if way == 0 and data:
            data[at % len(data)] = draw.randrange(256)
        elif way == 1:
            del data[at : at + draw.randrange(20)]
        elif way == 2:
            data[at:at] = data[at : at + draw.randrange(50)]
        elif way == 3:
            data[at:at] = draw.choice(TOKENS)
        else:
            data[at:at] = draw.randbytes(draw.randrange(8))
    return bytes(data)


def _case(draw: random.Random, handle: str) -> tuple[bytes, bool]:
    """Return one request, perhaps damaged, and whether its framing is intact."""
    if draw.random() < 0.03:
        return draw.randbytes(draw.randrange(2000)), False
    if draw.random() < 0.1:
        name = draw.choice(list(CONTROLS))
        head, body = f"POST /_control/{name} HTTP/1.1", json.dumps(CONTROLS[name]).encode()
    else:
        name = draw.choice(list(CALLS))
        head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.{name}"
        body = _arguments(draw, CALLS[name], handle)
    if draw.random() < 0.4:
        body = _damage(draw, body)
    raw = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return (_damage(draw, raw), False) if draw.random() < 0.1 else (raw, True)


def _answer(stream: socket.socket, found: FuzzCounts) -> bool:
    """Read one piece of an answer; return False if the server closed the connection."""
    try:
        data = stream.recv(1 << 20)
    except ConnectionResetError:
        data = b""
    if not data:
        found.closed += 1
        return False
    found.answered += data.count(b"HTTP/1.1 200")
    found.refused += data.count(b"HTTP/1.1 4") + data.count(b"HTTP/1.1 5")
    return b"Connection: close" not in data


def _send(stream: socket.socket, raw: bytes, framed: bool, found: FuzzCounts) -> bool:
    """Send one case and read its answer; return whether the connection can be used again."""
    try:
        stream.sendall(raw)
        if framed:
            return _answer(stream, found)
        stream.shutdown(socket.SHUT_WR)  # otherwise the server would wait for the rest
    except TimeoutError:
        raise
    except OSError:  # the server closed it because of the first bytes
        return False
    while _answer(stream, found):
        pass
    return False


def _take_handle(server: QueueServer) -> str:
    """Return a receipt handle that was valid when the server gave it."""
    for name, attributes in (("q", {}), ("q.fifo", {"FifoQueue": "true"})):
        if name not in server.stats()["queues"]:
            server.call("CreateQueue", {"QueueName": name, "Attributes": attributes})
    server.call("SendMessage", {"QueueUrl": "q", "MessageBody": "held", "DelaySeconds": 0})
    messages = server.call("ReceiveMessage", {"QueueUrl": "q"}).get("Messages")
    return str(messages[0]["ReceiptHandle"]) if messages else "none"


def run(seed: int, *, cases: int = sys.maxsize, seconds: float = float("inf")) -> FuzzCounts:
    """Send cases until either bound; raises OSError or ValueError if the server is gone."""
    draw = random.Random(seed)
    found = FuzzCounts()
    handle = "none"
    with QueueServer("--seed", str(seed), "--manifest") as server:
        until = time.monotonic() + seconds  # from here: a build before it takes seconds, too
        stream: socket.socket | None = None
        for number in itertools.count():
            if number >= cases or time.monotonic() >= until:
                break
            if number % 100 == 0:
                server.set_faults(reset=True)
                handle = _take_handle(server)
            if stream is None:
                stream = socket.create_connection(("127.0.0.1", server.port), ANSWER_S)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream.settimeout(ANSWER_S)
            raw, framed = _case(draw, handle)
            cut = draw.randrange(len(raw) + 1) if draw.random() < 0.2 else 0
            stream.sendall(raw[:cut])
            found.cases += 1
            usable = _send(stream, raw[cut:], framed, found)
            if not usable or draw.random() < 0.02:
                stream.close()
                stream = None
        if stream:
            stream.close()
        server.stats()
        status = server.stop()
    if status:
        raise RuntimeError(f"the server ended with status {status} (seed {seed})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}: {run(given.seed, seconds=given.seconds)}\n")


if __name__ == "__main__":
    main()
