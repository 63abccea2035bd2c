"""The soak's faults: which, how many, and when."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from benchmarks.queue_server import QueueServer
from benchmarks.soak_clients import Consumers
from benchmarks.soak_database import SoakDatabase
from tests.faults.proxy import CUTS, Act, Fault, FaultProxy, Way, draw

CUT_BYTES_MAX = 20_000
STALL_S_MAX = 4.0
HANG_S_MAX = 15.0
# A burst of the queue's own faults: its length, and the shares of requests that get a fault.
BURST_S = 1.0
BURST = {"throttle_share": 0.2, "error_share": 0.2, "lose_reply_share": 0.05}
POISON = (0.3, 0.42), (0.5, 0.6)
"""When the trigger fails for its rows: from, to, as shares of the time. The isolated ones come back
minutes later."""
PAUSE = 0.2
"""How long after the end of a block its person is erased, as a share of the block's time."""

CONSUMER_CALLS = (
    "ReceiveMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibilityBatch",
    "GetQueueAttributes",
    "GetQueueUrl",
)
"""Calls that get faults. The sender's call gets none, since its records must be exact."""


def _one_per(seconds: float, least: int, what: str) -> Any:
    return dataclasses.field(
        metadata={
            "every": seconds,
            "least": least,
            "help": f"{what}; default: one per {seconds:g} s",
        }
    )


@dataclasses.dataclass
class FaultPlan:
    """How often each fault happens."""

    kills: int = _one_per(5.5, 4, "kills of a consumer")
    restarts: int = _one_per(27, 2, "restarts of PostgreSQL")
    cuts: int = _one_per(2.5, 10, "cut connections")
    hangs: int = _one_per(75, 1, "hangs of PostgreSQL")
    damages: int = _one_per(20, 2, "damaged keys")
    erasures: int = _one_per(30, 2, "people who are erased while rows move")

    @classmethod
    def over(cls, seconds: float, **chosen: int) -> FaultPlan:
        """Return the usual plan for a soak of so many seconds, with some numbers chosen."""
        usual = {
            field.name: max(field.metadata["least"], int(seconds / field.metadata["every"]))
            for field in dataclasses.fields(cls)
        }
        return cls(**usual | chosen)


class Faults:
    """Injects the faults of a plan until its time is over."""

    def __init__(
        self,
        plan: FaultPlan,
        seconds: float,
        seed: int,
        queue: QueueServer,
        proxies: list[FaultProxy],
        consumers: Consumers,
        around: SoakDatabase,
    ) -> None:
        self._plan = plan
        self._seconds = seconds
        self._rng = random.Random(seed)
        self._queue = queue
        self._proxies = proxies
        self._consumers = consumers
        self._around = around
        self._order = itertools.count()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="faults")
        self._acts: list[Future[Any]] = []
        self.kills = self.restarts = self.hangs = self.erased = 0

    def run(self, progress: Callable[[], None]) -> None:
        """Inject the faults; raise what an act beside them has met."""
        with self._pool:
            began = time.monotonic()
            schedule = self._schedule(progress)
            heapq.heapify(schedule)
            while schedule:
                at, _, act = heapq.heappop(schedule)
                self._wait_until(began + at)
                act()
            self._wait_until(began + self._seconds)
            self._around.go_on()
            time.sleep(BURST_S)
            for proxy in self._proxies:
                for armed in proxy.armed:
                    armed.release()
            self._calm()
            for act_beside in self._acts:
                act_beside.result()
        progress()

    def _wait_until(self, at: float) -> None:
        while (left := at - time.monotonic()) > 0:
            self._consumers.tend()
            time.sleep(min(left, 0.2))

    def _schedule(self, progress: Callable[[], None]) -> list[Event]:
        plan, seconds = self._plan, self._seconds
        stops = self._around.can_stop
        # Arm more cuts than planned: a cut that waits for its byte may wait long.
        events = [
            *self._spread(plan.kills, self._kill),
            *self._spread(plan.restarts if stops else 0, self._restart),
            *self._spread(plan.cuts * 3 // 2, self._cut),
            *self._spread(max(2, int(seconds / 15)), self._burst),
            *self._spread(max(2, int(seconds / 10)), self._stall),
            *self._spread(plan.damages, self._damage),
            *(self._event(at, progress) for at in _every(seconds, 15.0)),
        ]
        for hang in self._spread(plan.hangs if stops else 0, self._hang):
            length = self._rng.uniform(0.2, 1.0) * min(HANG_S_MAX, seconds / 10)
            events += [hang, self._event(min(hang[0] + length, seconds), self._around.go_on)]
        for start, end in POISON:
            events += [
                self._event(at * seconds, self._beside, self._around.switch, is_on)
                for at, is_on in ((start, True), (end, False))
            ]
        block_s = seconds / (plan.erasures + 1)
        events += [
            self._event((block + 1 + PAUSE) * block_s, self._erase, block)
            for block in range(plan.erasures)
        ]
        return events

    def _event(self, at: float, act: Callable[..., Any], *arguments: Any) -> Event:
        return at, next(self._order), lambda: act(*arguments)

    def _spread(self, count: int, act: Callable[[], None]) -> Iterator[Event]:
        """Yield `count` events: one at a random time in each of `count` equal parts of the time."""
        for index in range(count):
            # Not in the last 0.1 s, so that each event comes before the end.
            at = (index + self._rng.random()) * (self._seconds - 0.1) / count
            yield self._event(at, act)

    def _beside(self, act: Callable[..., Any], *arguments: Any) -> None:
        """Do what may have to wait for the database, beside the other faults."""
        self._acts.append(self._pool.submit(act, *arguments))

    # -- the faults ------------------------------------------------------------------------

    def _kill(self) -> None:
        self._consumers.kill(self._rng)
        self.kills += 1

    def _restart(self) -> None:
        self._around.restart()
        self.restarts += 1

    def _hang(self) -> None:
        self._around.hang()
        self.hangs += 1

    def _damage(self) -> None:
        self._beside(self._around.damage, random.Random(self._rng.random()))

    def _erase(self, block: int) -> None:
        self._beside(self._around.forget, block)
        self._beside(self._around.move, block)
        self.erased += 1

    def _cut(self) -> None:
        fault = draw(self._rng, bytes_max=CUT_BYTES_MAX, acts=sorted(CUTS))
        self._rng.choice(self._proxies).arm(fault)

    def _stall(self) -> None:
        way, at = self._rng.choice([Way.UP, Way.DOWN]), self._rng.randrange(CUT_BYTES_MAX)
        armed = self._rng.choice(self._proxies).arm(Fault(act=Act.STALL, way=way, at=at))
        threading.Timer(self._rng.uniform(1.0, STALL_S_MAX), armed.release).start()

    def _burst(self) -> None:
        for call in CONSUMER_CALLS:
            self._queue.set_faults(call, **BURST)
        threading.Timer(BURST_S, self._calm).start()

    def _calm(self) -> None:
        for call in CONSUMER_CALLS:
            self._queue.set_faults(call, **dict.fromkeys(BURST, 0.0))


Event = tuple[float, int, Callable[[], None]]
"""When, in which order among those of one time, and what."""


def _every(seconds: float, step: float) -> Iterator[float]:
    at = step
    while at < seconds:
        yield at
        at += step
