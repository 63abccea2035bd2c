"""What all queues of one process may hold together, in bytes.

Each queue has half of an even share for itself, so that a pipeline that cannot write and holds all
that it may never keeps another one from receiving. The other half is for whoever asks first. With
one queue both are its own. No I/O.

A message counts for its body and `MESSAGE_BYTES` more.
"""

from __future__ import annotations

from collections.abc import Callable

MESSAGE_BYTES = 1024
"""What a held message takes beside its body: attributes, receipt handle, its place in the books."""
STEPS = 32
"""A queue that notes its load rounds it up to one of so many steps of its own share: a load changes
with each request, and to note it takes as long as to sign one."""


class InFlight:
    """The bytes in flight of the queues of one process. For one event loop."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._loads: dict[object, int] = {}
        self._asks: dict[object, Callable[[], int] | None] = {}
        self.queues = 0
        """How many queues there are. Read only."""
        self._waiting: dict[object, Callable[[], None]] = {}
        self.step = 1
        """What a load is rounded up to, in bytes. Read only."""
        self._own = bytes_max
        self._shared = 0
        self._beyond = 0

    @property
    def bytes(self) -> int:
        """What all queues hold and have reserved."""
        self._ask()
        return sum(self._loads.values())

    def join(self, queue: object, ask: Callable[[], int] | None = None) -> None:
        """Add a queue. One with `ask`, which returns its load, need not `note` it while it is the
        only queue.
        """
        self._loads[queue] = 0
        self._asks[queue] = ask
        self._divide()

    def leave(self, queue: object) -> None:
        """Remove a queue with all that it holds. May be repeated."""
        if queue in self._loads:
            del self._loads[queue], self._asks[queue]
            self._waiting.pop(queue, None)
            self._divide()

    def note(self, queue: object, load: int) -> None:
        """Note how many bytes a queue holds and has reserved now."""
        own, before = self._own, self._loads.get(queue)
        if before is None:
            return  # it has left
        self._loads[queue] = load
        if load <= own and before <= own:
            return
        beyond = max(0, load - own) - max(0, before - own)
        if beyond:
            self._beyond += beyond
            if beyond < 0 and self._waiting:
                self._wake()

    def has_room(self, queue: object, load: int) -> bool:
        """Whether a queue may grow to `load` bytes."""
        if load <= self._own:
            return True
        held = max(0, self._loads.get(queue, 0) - self._own)
        return self._beyond - held + load - self._own <= self._shared

    def wait(self, queue: object, wake: Callable[[], None]) -> None:
        """Have `wake` called once others hold less; it asks `has_room` again."""
        self._waiting.setdefault(queue, wake)

    def _wake(self) -> None:
        # Each asks again, the one that has waited longest first.
        waiting, self._waiting = self._waiting, {}
        for wake in waiting.values():
            wake()

    def _ask(self) -> None:
        for queue, ask in self._asks.items():
            if ask is not None:
                self._loads[queue] = ask()

    def _divide(self) -> None:
        self._ask()
        count = self.queues = len(self._loads)
        self._own = self._bytes_max // (2 * count) if count > 1 else self._bytes_max
        self._shared = self._bytes_max - self._own * count
        self.step = max(1, self._own // STEPS)
        self._beyond = sum(max(0, load - self._own) for load in self._loads.values())
        self._wake()
