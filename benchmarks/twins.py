"""`python -m benchmarks.twins`: functions that exist in C and in Python, at a drain's shape.

Each function is called as the pipeline calls it, for ten messages at a time: ten per receive and
ten per delete, one signature per delete (a poll is signed once per second). The receipt handles are
as long as those of AWS (412 characters) or of an emulator (36). C and Python take turns in one
process, in many short rounds. All figures are CPU time of this one thread. The command writes its
own part of RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, NamedTuple

from sqs2pg import native
from sqs2pg.message import Message
from sqs2pg.sqs import wire
from sqs2pg.sqs.chained_calls import DeleteChain
from sqs2pg.sqs.connection import HttpConnection
from sqs2pg.sqs.leases import Leases
from sqs2pg.sqs.signer import AwsKeys, RequestTemplate, Signer

from .floors import HandleBatches
from .machine import commit, machine
from .masks import logins
from .report import publish_part
from .rig import BenchmarkError

ROUNDS = 3_000
CALLS = 40
HELD = 5_000
"""Other messages that are held meanwhile."""
WORTH_US = 1.0
"""A function in C stays only if it saves this much CPU per message, in microseconds."""
QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/login-queue"
HANDLE_BYTES = {"AWS": 309, "emulator": 27}  # 4 characters for 3 bytes
TOKEN = "t" * 900  # as long as the session token of a role

Work = Callable[[], object]


class Spent(NamedTuple):
    """CPU in microseconds per message."""

    c: float
    python: float
    gain: float
    """The least of Python minus the least of C."""
    gain_median: float
    """The median over the rounds of Python minus C."""


class _Sink(asyncio.Transport):
    """Takes what is sent, and forgets it."""

    def write(self, data: object) -> None:
        """Take the data."""

    def is_closing(self) -> bool:
        """Return False."""
        return False

    def abort(self) -> None:
        """There is nothing to close."""


def http(body: bytes) -> bytes:
    """Return a reply as SQS sends it."""
    head = (
        "HTTP/1.1 200 OK",
        "x-amzn-RequestId: 0dfaf1e2-87a4-4a5c-9f0c-5d9a1b2c3d4e",
        "Date: Mon, 30 Nov 2026 01:14:56 GMT",
        "Content-Type: application/x-amz-json-1.0",
        f"Content-Length: {len(body)}",
        "connection: keep-alive",
    )
    return "\r\n".join([*head, "", ""]).encode() + body


def receive_answer(handle_bytes: int) -> bytes:
    """Return the body of a ReceiveMessage reply of ten logins."""
    draw = random.Random(16)
    messages = [
        {
            "MessageId": str(uuid.UUID(int=draw.getrandbits(128), version=4)),
            "ReceiptHandle": base64.b64encode(draw.randbytes(handle_bytes)).decode(),
            "MD5OfBody": draw.randbytes(16).hex(),
            "Body": login.body,
            "Attributes": {"SentTimestamp": "1795384388351", "ApproximateReceiveCount": "1"},
        }
        for login in logins(wire.BATCH_MAX, wire.BATCH_MAX)
    ]
    return json.dumps({"Messages": messages}).encode()


def _reader(replies: Sequence[bytes]) -> Work:
    connection = HttpConnection(lambda _: None)
    connection.connection_made(_Sink())
    exchange = connection.exchange(b"a request", 30.0, lambda _: b"the next request")
    exchange.send(None)  # starts it; there is always a next request, so it does not end

    def work() -> object:
        for reply in replies:
            connection.data_received(reply)
        return exchange  # keeps it from being closed

    return work


def _holder(messages: list[Message]) -> Work:
    leases = Leases()
    others = logins(HELD, HELD)
    for at in range(0, HELD, wire.BATCH_MAX):
        leases.hold(others[at : at + wire.BATCH_MAX], 0.0, 30.0)

    def work() -> None:
        leases.hold(messages, 1.0, 31.0)
        leases.release(messages)

    return work


def _writer(handles: list[str]) -> Work:
    return DeleteChain(HandleBatches(QUEUE_URL, handles), wire.DeleteAnswers()).body


def _signer(body: bytes, token: str | None) -> Work:
    keys = AwsKeys("AKIDEXAMPLE", "s" * 40, token)
    signer = Signer(keys, region="eu-central-1", host="sqs.eu-central-1.amazonaws.com")
    target = ("X-Amz-Target", "AmazonSQS.DeleteMessageBatch")
    template = RequestTemplate(signer, signed=(("Content-Type", wire.CONTENT_TYPE), target))
    return lambda: template.sign(body, 1_795_384_388.351)


def works(server: str) -> dict[str, Work]:
    """Return what is done per ten messages, with the extension that is in use at the moment."""
    answer = receive_answer(HANDLE_BYTES[server])
    messages = wire.read_messages(answer)
    handles = [message.receipt_handle for message in messages]
    deleted = json.dumps({"Successful": [{"Id": str(index)} for index in range(10)]}).encode()
    body = wire.write_delete(QUEUE_URL, handles)
    return {
        "`read_plain`": _reader([http(answer), http(deleted)]),
        "`hold_messages`, `release_messages`": _holder(messages),
        "`write_delete`": _writer(handles),
        "`sign`": _signer(body, TOKEN if server == "AWS" else None),
    }


def both(server: str, extension: ModuleType) -> dict[str, tuple[Work, Work]]:
    """Return each piece of work in C and in Python."""
    used = native.EXTENSION
    made = []
    for one in (extension, None):
        native.EXTENSION = one
        made.append(works(server))
    native.EXTENSION = used
    in_c, in_python = made
    return {name: (in_c[name], in_python[name]) for name in in_c}


def _us_per_message(work: Work) -> float:
    calls = range(CALLS)
    began = time.thread_time_ns()
    for _ in calls:
        work()
    return (time.thread_time_ns() - began) / 1_000 / CALLS / wire.BATCH_MAX


async def measure(rounds: int, extension: ModuleType) -> dict[tuple[str, str], Spent]:
    """Return what each function costs, by function and server."""
    pairs = {
        (name, server): pair
        for server in HANDLE_BYTES
        for name, pair in both(server, extension).items()
    }
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in pairs}
    for turn in range(rounds):
        for key, (in_c, in_python) in pairs.items():
            if turn % 2:
                taken[key].append((_us_per_message(in_c), _us_per_message(in_python)))
            else:
                python = _us_per_message(in_python)
                taken[key].append((_us_per_message(in_c), python))
    spent = {}
    for key, turns in taken.items():
        c, python = (min(side) for side in zip(*turns, strict=True))
        gain = statistics.median(python - c for c, python in turns)
        spent[key] = Spent(c, python, python - c, gain)
    return spent


def table(spent: dict[tuple[str, str], Spent], rounds: int) -> str:
    """Return the part of RESULTS.md."""
    lines = ["| CPU µs per message | handles of | in C | in Python | C gains | median gain |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for (name, server), one in spent.items():
        cells = " | ".join(f"{us:.3f}" for us in one)
        lines.append(f"| {name} | {server} | {cells} |")
    most = max(spent.values(), key=lambda one: max(one.gain, one.gain_median))
    lines += [
        "",
        f"The largest gain is {max(most.gain, most.gain_median):.2f} µs; {WORTH_US:g} µs ",
    ]
    lines[-1] += "is what keeps a function in C."
    how = f"Least of {rounds:,} rounds of {CALLS} calls, C and Python in turns, and the median of "
    how += f"their differences; SHA-256 in C: {native.EXTENSION.SHA256 if native.EXTENSION else ''}"
    lines += ["", f"{machine()}. {how}; load {os.getloadavg()[0]:.1f}."]
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    lines += [f"Measured {when}, commit {commit()}: `python -m benchmarks.twins`"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and publish unless told not to."""
    parser = argparse.ArgumentParser(prog="benchmarks.twins", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-publish", action="store_true", help="leave RESULTS.md alone")
    options: Any = parser.parse_args(arguments)
    extension = native.extension()
    if extension is None:
        raise BenchmarkError("there is no C extension to compare with: install a C compiler")
    text = table(asyncio.run(measure(options.rounds, extension)), options.rounds)
    print(text)
    if not options.no_publish:
        publish_part("twins", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
