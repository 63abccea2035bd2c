"""Turns: which of the queues of one process that have a backlog are received from now.

A transaction has a fixed cost, however few messages it holds. If all of fifty queues were received
from at once, each would bring a fiftieth of the messages, and batches would be small. So it is the
turn of a few at a time, each until it has brought a few whole batches. A queue without a backlog
needs no turn. No I/O.

Promises: turns are given in the order in which they were asked for. One ends after TURN_S if others
wait, whatever keeps its pipeline. With one queue it never ends.
"""

from __future__ import annotations

import asyncio
from collections import deque

from sqs2pg.sqs.concurrency import RoundTripTime
from sqs2pg.sqs.gate import Gate

AT_ONCE = 2
"""How many turns there are at a time: one queue's batch comes while another one's is written."""
ONE_IN = 25
"""There are more turns where more queues want one: so none waits for longer than 25 turns."""
BATCHES = 4
"""How many whole batches a turn brings. Each turn begins and ends some dozens of polls, which costs
as much as hundreds of polls that follow each other."""
TURN_S = 1.0
"""A turn that has not brought so many by then is over, seconds: others may be faster."""


class Turns:
    """The turns of one process. For one event loop."""

    def __init__(self) -> None:
        self.receiving = RoundTripTime()
        """Of polls that came back full, of any queue: they have one endpoint."""
        self.deleting = RoundTripTime()
        self._waiting: deque[Turn] = deque()
        self._held: set[Turn] = set()

    def join(self) -> Turn:
        """Return the turn of one more queue; it is not asked for yet."""
        return Turn(self)

    @property
    def contested(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def ask(self, turn: Turn) -> None:
        """Give a turn now or later, after those who asked before."""
        self._waiting.append(turn)
        self._give()

    def end(self, turn: Turn) -> None:
        """Take back what was given or asked for."""
        if turn in self._held:
            self._held.remove(turn)
            self._give()
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _give(self) -> None:
        while self._waiting and len(self._held) < self._at_once():
            turn = self._waiting.popleft()
            self._held.add(turn)
            turn.begin()

    def _at_once(self) -> int:
        return max(AT_ONCE, -(-(len(self._waiting) + len(self._held)) // ONE_IN))


class Turn:
    """One queue's turn: not asked for, waited for, or held."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.receiving, self.deleting = turns.receiving, turns.deleting
        self._gate = Gate()  # closed while it waits
        self._timer: asyncio.TimerHandle | None = None
        self.held = False
        """Whether it is this queue's turn. Read only."""
        self.brought = 0
        """How many messages it has brought so far. Whoever receives adds to it."""

    @property
    def asked(self) -> bool:
        """Whether it waits for its turn."""
        return not self._gate.is_open

    async def come(self) -> None:
        """Ask for the turn, and wait until it is given or no longer asked for."""
        if not (self.held or self.asked):
            self._gate.close()
            self._turns.ask(self)
        await self._gate.wait()

    @property
    def contested(self) -> bool:
        """Whether it is held while others wait."""
        return self.held and self._turns.contested

    def end(self) -> None:
        """Give it up, held or not. May be repeated."""
        if self.held or self.asked:
            self.held = False
            self._gate.open()
            if self._timer is not None:
                self._timer.cancel()
            self._turns.end(self)

    def begin(self) -> None:
        """Take what `Turns` gives."""
        self.held, self.brought = True, 0
        self._gate.open()
        self._watch()

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TURN_S, self._is_over)

    def _is_over(self) -> None:
        if self.contested:
            self.end()
        else:
            self._watch()
