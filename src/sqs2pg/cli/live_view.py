"""The live view of `run` on a terminal: below the log while it runs, gone at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqs2pg.telemetry import log

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sqs2pg.status.recorder import Track

_FRAMES_PER_S = 2
_WIDTH_MIN = 60


def wanted() -> bool:
    """Whether stderr is a terminal that is wide enough for the view."""
    if not sys.stderr.isatty():
        return False
    from rich.console import Console

    return Console(stderr=True).width >= _WIDTH_MIN


@contextmanager
def live_view(track: Track) -> Iterator[None]:
    """Show the pipeline until closed. Log lines go above the view, which stays at the end."""
    from rich.console import Console
    from rich.live import Live

    from sqs2pg.cli.terminal_frame import frame

    console = Console(stderr=True)

    def draw() -> RenderableType:
        return frame(track.moment.snapshot, track.history(), width=console.width)

    try:
        with Live(
            console=console,
            get_renderable=draw,
            refresh_per_second=_FRAMES_PER_S,
            redirect_stdout=sys.stdout.isatty(),  # a result for a pipe stays out of the console
        ):
            log.configure()  # again: stderr is now what writes above the view
            yield
    finally:
        log.configure()
