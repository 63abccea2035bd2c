"""The fault proxy: each fault strikes once, at its byte, and is counted."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from .proxy import Act, Armed, Fault, FaultProxy, Way, draw

BLOCK = bytes(range(256)) * 1024


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._seen: list[bytearray] = []
        self._ended: list[threading.Event] = []
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._acceptor, *self._threads):
            thread.join(60)
            assert not thread.is_alive()

    def seen(self, connection: int = 0) -> bytes:
        """All that a connection brought, once it has ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._ended) > connection, 60)
        assert self._ended[connection].wait(60)
        return bytes(self._seen[connection])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._seen.append(bytearray())
                with self._changed:
                    self._ended.append(threading.Event())
                    self._changed.notify_all()
                thread = threading.Thread(target=self._serve, args=(sock, len(self._seen) - 1))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                self._seen[number] += data
                sock.sendall(data)
        self._ended[number].set()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.address) as started:
        yield started


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def read(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (part := client.recv(size - len(data))):
        data += part
    return bytes(data)


def read_all(client: socket.socket) -> tuple[bytes, bool]:
    """The bytes up to the end of the stream, and whether it ended with a reset."""
    data = bytearray()
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionResetError:
        return bytes(data), True
    return bytes(data), False


def test_without_a_fault_every_byte_passes_and_so_does_the_end(
    proxy: FaultProxy, echo: Echo
) -> None:
    with connect(proxy) as client:
        sender = threading.Thread(target=lambda: client.sendall(BLOCK))
        sender.start()
        assert read(client, len(BLOCK)) == BLOCK
        sender.join()
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == (b"", False)
    assert echo.seen() == BLOCK
    assert not proxy.counts


@pytest.mark.parametrize(("act", "is_reset"), [(Act.RESET, True), (Act.CLOSE, False)])
@pytest.mark.parametrize("at", [0, 1, 1000])
def test_a_cut_upwards_is_at_its_byte(
    proxy: FaultProxy, echo: Echo, act: Act, is_reset: bool, at: int
) -> None:
    armed = proxy.arm(Fault(act=act, at=at))
    with connect(proxy) as client:
        with contextlib.suppress(ConnectionError):  # the cut may be quicker
            client.sendall(BLOCK[: 2 * at + 10])
        armed.wait()
        data, reset = read_all(client)
    assert reset == is_reset
    assert BLOCK[:at].startswith(data)  # an answer may be lost on its way back
    assert echo.seen() == BLOCK[:at]
    assert (armed.count, proxy.counts) == (1, {act: 1})


@pytest.mark.parametrize(("act", "is_reset"), [(Act.RESET, True), (Act.CLOSE, False)])
def test_a_cut_downwards_lets_the_server_have_it_all(
    proxy: FaultProxy, echo: Echo, act: Act, is_reset: bool
) -> None:
    armed = proxy.arm(Fault(act=act, way=Way.DOWN, at=7))
    with connect(proxy) as client:
        client.sendall(b"0123456789")
        data, reset = read_all(client)
    assert reset == is_reset
    # A reset may overtake bytes that were passed on before it; a FIN may not.
    assert data == b"0123456" or (is_reset and b"0123456".startswith(data))
    assert echo.seen() == b"0123456789"
    assert armed.count == 1


def test_a_pattern_is_found_across_chunks_and_counted_past(proxy: FaultProxy, echo: Echo) -> None:
    armed = proxy.arm(Fault(act=Act.CLOSE, after=b"COMMIT", at=2))
    with connect(proxy) as client:
        for part in (b"COMMI", b"COM", b"MI", b"T;..."):
            client.sendall(part)
            if part != b"T;...":
                assert read(client, len(part)) == part
        armed.wait()
        read_all(client)
    assert echo.seen() == b"COMMICOMMIT;."


def test_a_lost_reply_is_cut_when_it_comes_back(proxy: FaultProxy, echo: Echo) -> None:
    armed = proxy.arm(Fault(act=Act.RESET, after=b"COMMIT", on_reply=True))
    with connect(proxy) as client:
        client.sendall(b"BEGIN ")
        assert read(client, 6) == b"BEGIN "
        client.sendall(b"COMMIT and all of it")
        assert read_all(client) == (b"", True)
    assert echo.seen() == b"BEGIN COMMIT and all of it"
    assert armed.count == 1


def test_a_stall_ends_with_its_release_and_loses_nothing(proxy: FaultProxy, echo: Echo) -> None:
    armed = proxy.arm(Fault(act=Act.STALL, after=b"b", at=0, times=None))
    with connect(proxy) as client, connect(proxy) as other:
        client.sendall(b"aabaa")
        armed.wait()
        assert read(client, 3) == b"aab"
        other.sendall(b"aa")  # a stalled connection holds up no other
        assert read(other, 2) == b"aa"
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(60)
        armed.release()
        assert read(client, 2) == b"aa"
        client.sendall(b"b!")  # over: no more stalls
        assert read(client, 2) == b"b!"
    assert echo.seen() == b"aabaab!"


def test_a_half_close_ends_one_stream_only(proxy: FaultProxy, echo: Echo) -> None:
    armed = proxy.arm(Fault(act=Act.HALF_CLOSE, way=Way.DOWN, at=3))
    with connect(proxy) as client:
        client.sendall(b"01234")
        assert read_all(client) == (b"012", False)
        client.sendall(b"5678")
        client.shutdown(socket.SHUT_WR)
        assert echo.seen() == b"012345678"
    assert armed.count == 1


def test_one_byte_is_corrupted_and_no_other(proxy: FaultProxy, echo: Echo) -> None:
    armed = proxy.arm(Fault(act=Act.CORRUPT, way=Way.DOWN, at=3))
    with connect(proxy) as client:
        client.sendall(b"\0" * 10)
        assert read(client, 10) == b"\0\0\0\xff" + b"\0" * 6
    assert echo.seen() == b"\0" * 10
    assert armed.count == 1


def test_a_throttled_stream_takes_its_time(proxy: FaultProxy, echo: Echo) -> None:
    armed = proxy.arm(Fault(act=Act.THROTTLE, way=Way.DOWN, at=100, bytes_per_s=1000))
    with connect(proxy) as client:
        began = time.monotonic()
        client.sendall(BLOCK[:400])
        assert read(client, 400) == BLOCK[:400]
    assert time.monotonic() - began >= 0.25  # 300 bytes at 1,000 per second
    assert armed.count == 1


def test_times_bounds_the_firings_over_all_connections(proxy: FaultProxy) -> None:
    armed = proxy.arm(Fault(act=Act.RESET, after=b"x", times=2))
    ends: list[bytes | bool] = []
    for _ in range(4):
        with connect(proxy) as client:
            client.sendall(b"x")
            ends.append(client.recv(1) if len(ends) > 1 else read_all(client)[1])
    assert ends == [True, True, b"x", b"x"]
    assert armed.count == 2


async def test_a_fault_that_does_not_fire_is_reported(proxy: FaultProxy) -> None:
    armed = proxy.arm(Fault(act=Act.RESET, after=b"never"))
    with pytest.raises(TimeoutError, match="fired 0 times, not 1"):
        await armed.fired(timeout_s=0.01)


def test_after_down_connections_are_refused_and_after_up_served_on_the_same_port(
    proxy: FaultProxy,
) -> None:
    with connect(proxy) as client:
        client.sendall(b"x")
        assert read(client, 1) == b"x"
        assert proxy.connections == 1
        proxy.down()
        assert read_all(client) == (b"", True)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.up()
    with connect(proxy) as client:
        client.sendall(b"y")
        assert read(client, 1) == b"y"
        assert proxy.cut() == 1
        assert read_all(client) == (b"", True)


def test_connections_are_reset_while_the_target_is_away(proxy: FaultProxy) -> None:
    with socket.socket() as unused:  # held, so that nobody can listen on it
        unused.bind(("127.0.0.1", 0))
        proxy.target = unused.getsockname()
        with connect(proxy) as client:
            assert read_all(client)[0] == b""


def test_one_seed_draws_one_schedule_of_every_cut_both_ways() -> None:
    def schedule(seed: int) -> list[Fault]:
        rng = random.Random(seed)
        return [draw(rng, bytes_max=1000) for _ in range(100)]

    assert schedule(3) == schedule(3) != schedule(4)
    assert {(f.act, f.way) for f in schedule(3)} == {
        (act, way) for act in (Act.RESET, Act.CLOSE, Act.HALF_CLOSE) for way in Way
    }
    assert len({f.at for f in schedule(3)}) > 80


def test_random_cuts_of_many_connections_each_fire_once(proxy: FaultProxy) -> None:
    rng = random.Random(11)
    armed: list[Armed] = []
    for _ in range(30):
        armed.append(proxy.arm(draw(rng, bytes_max=5000)))
        with connect(proxy) as client, contextlib.suppress(ConnectionError):
            client.sendall(BLOCK[:5000])
            read_all(client)
    for one in armed:
        one.wait()
    assert [one.count for one in armed] == [1] * 30
    assert sum(proxy.counts.values()) == 30
