"""A TCP proxy that breaks connections on purpose, at a byte that the test names.

Place: before a real server, PostgreSQL or SQS; the consumer is pointed at the proxy. It runs an
event loop in a thread of its own, so that a test of either kind, a soak, and processes can use it.

A `Fault` says what to do (reset, close, half-close, stall, throttle, corrupt), to which stream
(UP: client to server, DOWN: server to client), and where: so many bytes after a pattern was seen,
or after the fault was armed where there is no pattern. Every fault counts how often it fired, and
can be waited for: a test that asserts nothing about its fault tests nothing.

Must never do: change a byte that no fault names, or swallow the end of a connection.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

from sqs2pg.cli.embedded.child_process import reserve_port
from sqs2pg.postgres.rehearsal import MARK

T = TypeVar("T")

WAIT_S = 120.0
"""Longest wait for a fault to fire; what it takes on a busy machine, not what it should take."""
REHEARSAL = f"BEGIN {MARK}".encode()
"""From here to ROLLBACK a start goes through a batch's statements; tests mean those of a batch."""
_CHUNK = 64 * 1024
_LINGER_0 = struct.pack("ii", 1, 0)  # close() sends RST. Source: socket(7), SO_LINGER


class Act(StrEnum):
    """What a fault does to the connection it strikes."""

    RESET = "reset"
    """RST to both ends; what was not yet delivered is lost."""
    CLOSE = "close"
    """FIN to both ends, in mid-stream."""
    HALF_CLOSE = "half_close"
    """FIN to the receiver of this stream; the other stream goes on."""
    STALL = "stall"
    """Nothing more of this stream until `release`; the connection stays open."""
    THROTTLE = "throttle"
    """From here on `bytes_per_s`."""
    CORRUPT = "corrupt"
    """One byte has all its bits flipped."""


CUTS = frozenset({Act.RESET, Act.CLOSE, Act.HALF_CLOSE})
"""The acts after which the connection is of no use."""


class Way(StrEnum):
    """A stream of a connection."""

    UP = "up"
    DOWN = "down"

    @property
    def other(self) -> Way:
        """The stream of the replies."""
        return Way.DOWN if self is Way.UP else Way.UP


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """Strikes before byte number `at`, from 0, past the first `after` of a stream.

    Without `after` bytes are counted from when the fault was armed or the connection began,
    whichever was later. With `on_reply` all of the stream passes, and the fault strikes the first
    byte that comes back on the other one. `times` is how often it may fire in all, on different
    connections or at different places; None: without end.
    """

    act: Act
    way: Way = Way.UP
    after: bytes = b""
    at: int = 0
    on_reply: bool = False
    times: int | None = 1
    bytes_per_s: int = 0


def draw(rng: random.Random, *, bytes_max: int, acts: Sequence[Act] = (*CUTS,)) -> Fault:
    """Return a fault of a random act, in a random direction, at a random byte."""
    return Fault(
        act=rng.choice(sorted(acts)), way=rng.choice(list(Way)), at=rng.randrange(bytes_max)
    )


class Armed:
    """A fault in force: how often it fired, and when it ends."""

    def __init__(self, fault: Fault, proxy: FaultProxy) -> None:
        self.fault = fault
        self._proxy = proxy
        self._count = 0
        self._changed = threading.Condition()
        self.released = asyncio.Event()
        """Belongs to the proxy's loop."""

    @property
    def count(self) -> int:
        """How often it fired."""
        return self._count

    @property
    def spent(self) -> bool:
        """Whether it has fired as often as it may."""
        times = self.fault.times
        return self.released.is_set() or (times is not None and self._count >= times)

    def wait(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Block until it has fired `count` times in all. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count >= count, timeout_s):
                raise TimeoutError(f"{self.fault} fired {self._count} times, not {count}")

    async def fired(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until it has fired `count` times in all. Raises TimeoutError."""
        await asyncio.to_thread(self.wait, count, timeout_s)

    def release(self) -> None:
        """End it: what it stalls goes on, and it fires no more."""

        async def set_it() -> None:
            self.released.set()

        self._proxy.call(set_it())

    def note(self) -> None:
        """Count one firing; on the proxy's loop."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()


class _Watch:
    """One armed fault on one stream: where it will strike."""

    def __init__(self, armed: Armed) -> None:
        self.armed = armed
        self._fault = armed.fault
        self._tail = b""  # the end of what passed, too short to hold the pattern
        self._left: int | None = None if armed.fault.after else armed.fault.at

    @property
    def has_pattern(self) -> bool:
        """Whether it waits for bytes of the protocol."""
        return bool(self._fault.after)

    def place(self, data: bytes) -> int | None:
        """The offset in `data` to strike at, or None if it does not strike here."""
        if self.armed.spent:
            return None
        left = self._left
        if left is None:
            found = (self._tail + data).find(self._fault.after)
            if found < 0:
                return None
            left = found + len(self._fault.after) - len(self._tail) + self._fault.at
        needed = left + (self._fault.act is Act.CORRUPT)
        return left if needed <= len(data) else None

    def passed(self, data: bytes) -> None:
        """Take note of bytes that went by without a strike."""
        if self._left is not None:
            self._left -= len(data)
            return
        seen = self._tail + data
        found = seen.find(self._fault.after)
        if found >= 0:
            self._left = self._fault.at - (len(seen) - found - len(self._fault.after))
        elif len(self._fault.after) > 1:
            self._tail = seen[1 - len(self._fault.after) :]

    def again(self) -> bool:
        """Look for the pattern anew after a strike; False where there is none to look for."""
        self._tail, self._left = b"", None
        return bool(self._fault.after)


class _Stream:
    """One direction of one connection."""

    def __init__(self, way: Way, writer: asyncio.StreamWriter, connection: _Connection) -> None:
        self._way = way
        self.writer = writer
        self._connection = connection
        self._watches: dict[Armed, _Watch] = {}
        self._rate: int | None = None
        self.on_first_byte: list[Armed] = []
        """Faults of the other stream that strike when this one answers."""

    async def deliver(self, data: bytes) -> bool:
        """Pass bytes on, with the faults in force; False at the end of this stream."""
        self._note_rehearsal(data)
        while data:
            while self.on_first_byte:
                if not await self._strike(self.on_first_byte.pop()):
                    return False
            watch, place = self._next_strike(data)
            await self._pass_on(data[:place])
            data = data[place:]
            if watch is None:
                continue
            fault = watch.armed.fault
            if not watch.again():
                self._watches.pop(watch.armed)
                self._connection.done.add((self._way, watch.armed))
            if fault.on_reply:
                self._connection.streams[self._way.other].on_first_byte.append(watch.armed)
            elif fault.act is Act.CORRUPT:
                watch.armed.note()
                await self._pass_on(bytes([data[0] ^ 0xFF]))
                data = data[1:]
            elif not await self._strike(watch.armed):
                return False
        return True

    def _next_strike(self, data: bytes) -> tuple[_Watch | None, int]:
        for armed in self._connection.proxy.armed:
            fresh = armed not in self._watches and (self._way, armed) not in self._connection.done
            if armed.fault.way is self._way and fresh and not armed.spent:
                self._watches[armed] = _Watch(armed)
        places = [(watch.place(data), watch) for watch in self._looking()]
        strikes = [(place, watch) for place, watch in places if place is not None]
        if not strikes:
            return None, len(data)
        place, watch = min(strikes, key=lambda strike: strike[0])
        return watch, place

    async def _strike(self, armed: Armed) -> bool:
        """Do what the fault says; return whether the stream goes on."""
        if armed.spent:
            return True
        fault = armed.fault
        self._connection.proxy.counts[fault.act] += 1
        match fault.act:
            case Act.RESET:
                self._connection.reset()
            case Act.CLOSE:
                self._connection.close()
            case Act.HALF_CLOSE:
                self.writer.write_eof()
            case Act.THROTTLE:
                self._rate = fault.bytes_per_s
            case _:
                pass
        armed.note()
        if fault.act is Act.STALL:
            await armed.released.wait()
        return fault.act not in CUTS

    def _looking(self) -> list[_Watch]:
        """Return the watches that take notice: those for a pattern wait for a batch."""
        watches = list(self._watches.values())
        if self._connection.rehearsing:
            return [watch for watch in watches if not watch.has_pattern]
        return watches

    def _note_rehearsal(self, data: bytes) -> None:
        if self._way is Way.UP and REHEARSAL in data:
            self._connection.rehearsing = True

    async def _pass_on(self, data: bytes) -> None:
        for watch in self._looking():
            watch.passed(data)
        if self._way is Way.UP and b"ROLLBACK" in data:
            self._connection.rehearsing = False
        step = max(1, self._rate // 20) if self._rate else len(data)
        while data:
            self.writer.write(data[:step])
            await self.writer.drain()
            data = data[step:]
            if self._rate:
                await asyncio.sleep(0.05)


class _Connection:
    """A client, the server it talks to, and a stream in each direction."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.proxy = proxy
        self._readers = {Way.UP: client[0], Way.DOWN: server[0]}
        self._writers = (client[1], server[1])
        self.streams = {
            Way.UP: _Stream(Way.UP, server[1], self),
            Way.DOWN: _Stream(Way.DOWN, client[1], self),
        }
        self.done: set[tuple[Way, Armed]] = set()
        self.rehearsing = False
        """Whether the client goes through a batch's statements without rows."""

    async def run(self) -> None:
        """Pump both ways until both have ended."""
        pumps = [asyncio.create_task(self._pump(way)) for way in Way]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for pump in pumps:
                pump.cancel()
            ends = await asyncio.gather(*pumps, return_exceptions=True)
            if any(isinstance(end, ConnectionError) for end in ends):
                self.reset()  # one end was reset: reset the other, too
            self.close()

    def reset(self) -> None:
        """RST to both ends."""
        for writer in self._writers:
            with contextlib.suppress(OSError):  # closed already
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            writer.transport.abort()

    def close(self) -> None:
        """FIN to both ends."""
        for writer in self._writers:
            writer.close()

    async def _pump(self, way: Way) -> None:
        reader, stream = self._readers[way], self.streams[way]
        while data := await reader.read(_CHUNK):
            if not await stream.deliver(data):
                while await reader.read(_CHUNK):
                    pass  # the sender must find out by itself
                return
        if not stream.writer.is_closing():
            stream.writer.write_eof()


class FaultProxy:
    """A proxy on a free port of 127.0.0.1, before `target` (host, port). A context manager.

    `counts` says how often each act was done, over all faults, cuts of `cut` included.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.armed: list[Armed] = []
        self.counts: collections.Counter[Act] = collections.Counter()
        self._hold = reserve_port()
        self.port: int = self._hold.getsockname()[1]
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for armed in self.armed:
            armed.release()
        self.down()
        self.call(_end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._hold.close()

    def arm(self, fault: Fault) -> Armed:
        """Put a fault in force, for the connections there are and those to come."""

        async def add() -> Armed:
            armed = Armed(fault, self)
            self.armed = [one for one in self.armed if not one.spent] + [armed]
            return armed

        return self.call(add())

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def cut(self) -> int:
        """Reset every connection there is; return how many."""

        async def reset() -> int:
            return await self._end_all(_Connection.reset)

        return self.call(reset())

    def down(self) -> None:
        """Refuse connections (ECONNREFUSED) and reset those there are."""

        async def stop() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            await self._end_all(_Connection.reset)

        self.call(stop())

    def up(self) -> None:
        """Accept connections again, on the same port."""

        async def start() -> None:
            if self._server is None:
                self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

        self.call(start())

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the proxy's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _end_all(self, end: Callable[[_Connection], None]) -> int:
        tasks = list(self._connections)
        for task in tasks:
            if connection := self._connections.get(task):
                end(connection)
                self.counts[Act.RESET] += 1
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            server = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self._connections[task] = connection = _Connection(self, (reader, writer), server)
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass  # by _end_all, which waits for this task; start_server would report it
        finally:
            del self._connections[task]
            ends = (writer.wait_closed(), server[1].wait_closed())
            await asyncio.gather(*ends, return_exceptions=True)


async def _end_tasks() -> None:
    """Cancel connects and closes that are under way, so that the loop can close."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
