"""Faults of SQS and of the network: waited out, or reported and given up in time."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.shell import told_error

from .proxy import Act, Fault, Way
from .world import DELETE, QUEUE, RECEIVE, Met, World, users

COUNT = 60
CALLS = ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")
TIMES = 8
"""Faults in a row: more than one call's attempts, so that every layer's retries are used."""
END_S = 40.0
"""How soon a process must stop that cannot go on, its start on a busy machine included."""


@pytest.mark.parametrize("call", ["ReceiveMessage", "DeleteMessageBatch"])
@pytest.mark.parametrize(
    ("share", "kind", "code"),
    [("throttle_share", "throttle", "aws_throttled"), ("error_share", "error", "aws_5xx")],
)
async def test_a_burst_of_refusals_is_waited_out(
    world: World, met: Met, call: str, share: str, kind: str, code: str
) -> None:
    world.server.set_faults(call, **{share: 1, "times": TIMES})
    world.send_logins(users(COUNT))
    async with world.consuming() as running:
        await running.until(world.deleted(COUNT))
    assert world.fired(call, kind) == TIMES
    assert met.codes[code]
    world.check_queue_empty()
    await world.check(users(COUNT))


async def test_entries_that_fail_in_a_batch_are_done_again(world: World, met: Met) -> None:
    # All of one batch and half of the next, or of the same one again. No entry fails more than
    # twice, because after a third time it is given up.
    world.server.set_faults("DeleteMessageBatch", fail_entry_share=1, times=15)
    world.send_logins(users(COUNT))
    async with world.consuming() as running:
        await running.until(world.deleted(COUNT))
    assert world.fired("DeleteMessageBatch", "fail_entry") == 15
    assert met.codes["InternalError"] == 15
    assert {line.receives for line in world.manifest()} == {1}  # not left to a redelivery
    world.check_queue_empty()
    await world.check(users(COUNT))


@pytest.mark.parametrize("queue_server", [("--in-flight-limit", "50")], indirect=True)
async def test_over_limit_is_waited_out(world: World, met: Met) -> None:
    """Another consumer holds as many messages as may be in flight, until ours meets the limit."""
    world.send_logins(users(COUNT))
    handles: list[str] = []
    for _ in range(5):
        taken = world.server.call(
            "ReceiveMessage",
            {"QueueUrl": QUEUE, "MaxNumberOfMessages": 10, "VisibilityTimeout": 600},
        )
        handles += [message["ReceiptHandle"] for message in taken["Messages"]]
    assert len(handles) == 50
    async with world.consuming() as running:
        await running.until(met("aws_over_limit"))
        for handle in handles:
            world.server.call(
                "ChangeMessageVisibility",
                {"QueueUrl": QUEUE, "ReceiptHandle": handle, "VisibilityTimeout": 0},
            )
        await running.until(world.deleted(COUNT))
    world.check_queue_empty()
    await world.check(users(COUNT))


async def test_an_endpoint_that_refuses_connections_is_waited_out(world: World, met: Met) -> None:
    world.send_logins(users(COUNT))
    async with world.consuming() as running:
        await running.until(world.deleted(COUNT))
        world.sqs.down()
        world.send_logins(users(COUNT, "late"))
        await running.until(met("aws_unreachable", 3))
        world.sqs.up()
        await running.until(world.deleted(2 * COUNT))
    world.check_queue_empty()
    await world.check([*users(COUNT), *users(COUNT, "late")])


async def test_a_name_that_stops_resolving_is_waited_out(
    world: World, met: Met, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver is a fake: a test must not break the machine's name server."""
    world.send_logins(users(COUNT))
    resolve = socket.getaddrinfo

    def fail(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if port == world.sqs.port:
            raise socket.gaierror(socket.EAI_AGAIN, "")
        return resolve(host, port, *rest, **options)

    async with world.consuming() as running:
        await running.until(world.deleted(COUNT))
        monkeypatch.setattr(socket, "getaddrinfo", fail)
        world.sqs.cut()
        world.send_logins(users(COUNT, "late"))
        await running.until(met("aws_dns", 2))
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        await running.until(world.deleted(2 * COUNT))
    await world.check([*users(COUNT), *users(COUNT, "late")])


@pytest.mark.parametrize(
    "fault",
    [
        Fault(act=Act.CORRUPT, way=Way.DOWN, after=b"HTTP/1.1 200", times=3),
        Fault(act=Act.CORRUPT, way=Way.DOWN, after=b'{"Messages":[{"', times=1),
        Fault(act=Act.CLOSE, way=Way.DOWN, after=b'"MessageId"', times=3),
        Fault(act=Act.HALF_CLOSE, way=Way.DOWN, after=b'"MessageId"', at=200, times=3),
        Fault(act=Act.RESET, after=RECEIVE, times=3),
        Fault(act=Act.HALF_CLOSE, after=DELETE, times=3),
        Fault(act=Act.THROTTLE, way=Way.DOWN, after=b'"MessageId"', bytes_per_s=50_000),
    ],
    ids=lambda fault: f"{fault.act}-{fault.way}-{fault.after.decode()[-12:]}",
)
async def test_an_answer_that_is_broken_is_asked_for_again(world: World, fault: Fault) -> None:
    async with world.consuming() as running:
        assert await running.until(world.reached("waiting", 1))
        armed = world.sqs.arm(fault)
        world.send_logins(users(COUNT))
        await running.until(armed.fired(fault.times or 1))
        await running.until(world.deleted(COUNT))
    world.check_queue_empty()
    await world.check(users(COUNT))


# ---- faults that a retry does not repair ----


def assert_ended(world: World, process: Any, *words: str) -> None:
    """The process stopped in time, with exit code 1, one error and one hint."""
    code, said = world.end_of(process, timeout_s=END_S)
    assert code == 1
    told = told_error(said)
    for word in words:
        assert word in told


async def test_a_queue_that_is_deleted_stops_the_process(world: World) -> None:
    world.send_logins(users(COUNT))
    process = world.spawn()
    await world.deleted(COUNT)
    world.server.call("DeleteQueue", {"QueueUrl": QUEUE})
    assert_ended(world, process, ["NonExistentQueue", "QueueDoesNotExist"][1], "source.queue")
    await world.check(users(COUNT))


async def test_access_that_is_denied_stops_the_process(world: World) -> None:
    """A stub denies every call, because the queue server grants everything."""
    world.send_logins(users(COUNT))
    process = world.spawn()
    await world.deleted(COUNT)
    with denying() as address:
        world.sqs.target = address
        world.sqs.cut()
        assert_ended(world, process, "AccessDenied", "emit-iam")
    await world.check(users(COUNT))


async def test_a_queue_deleted_under_a_batch_leaves_the_rows_and_stops(world: World) -> None:
    """Messages in flight when the queue is deleted are committed; their deletes fail for good."""
    held = world.sqs.arm(Fault(act=Act.STALL, after=DELETE, times=None))
    world.send_logins(users(COUNT))
    process = world.spawn()
    await held.fired(COUNT // 10)
    world.server.call("DeleteQueue", {"QueueUrl": QUEUE})
    held.release()
    assert_ended(world, process, "QueueDoesNotExist")
    await world.check(users(COUNT))


async def test_a_name_that_never_resolves_stops_the_start(world: World) -> None:
    process = world.spawn(AWS_ENDPOINT_URL="http://queue.invalid:9324")
    assert_ended(world, process, "queue.invalid", "AWS_ENDPOINT_URL")


@contextlib.contextmanager
def denying() -> Iterator[tuple[str, int]]:
    """A server that answers every request with AccessDeniedException, as AWS words it."""
    body = b'{"__type":"com.amazon.coral.service#AccessDeniedException","message":"Access denied."}'
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while b"\r\n\r\n" in sock.recv(65536):
                sock.sendall(answer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(sock,)))
                threads[-1].start()

    listener = socket.create_server(("127.0.0.1", 0))
    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(10)
