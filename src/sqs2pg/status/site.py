"""What the status server shows, as its listener hands it over."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sqs2pg.postgres.tap import TappedRow
from sqs2pg.status.access import Access
from sqs2pg.status.recorder import Recorder, TakeSnapshots
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry

Health = Callable[[], tuple[bool, bytes]]
"""Returns whether all is well, and the report as JSON."""
ReadTap = Callable[[str | None, float], list[TappedRow] | None]
"""Returns the rows of a pipeline (None: the only one) that were written after a time, seconds since
the epoch; None where there is no such pipeline."""


class Site(msgspec.Struct):
    """What is served. Without `take` there is no `/state`, without `recorder` no page.

    With `several`, `/` is a list, and each pipeline has its page at `/pipelines/NAME`.
    """

    registry: CollectorRegistry
    health: Health
    ready: Health
    access: Access
    take: TakeSnapshots | None = None
    recorder: Recorder | None = None
    several: bool = False
    tapped: ReadTap | None = None
