"""Run a command's work as a process: signals, status server, progress, and the limit of a drain.

Place in the flow: around it. One pipeline (`run_pipeline`), several worker processes
(`run_workers`) and the driver of a Ray cluster (`run_ray`) are run alike: the first SIGTERM or
SIGINT stops the work in good order, a second one leaves at once. SIGHUP has the settings read
again where the work can do that, and never ends it, unless the terminal is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from sqs2pg.cli import live_view
from sqs2pg.cli.options import counted
from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import FatalFault
from sqs2pg.pipeline.totals import Totals
from sqs2pg.settings import StatusSettings
from sqs2pg.sqs.endpoint import is_loopback
from sqs2pg.status.access import Access
from sqs2pg.status.listener import published_address, status_server
from sqs2pg.status.recorder import Recorder, recording
from sqs2pg.status.site import ReadTap
from sqs2pg.status.snapshot import Snapshot
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry

_EXIT_S = 0.9
"""Past the grace period, the process ends whatever hangs: it has a second."""

logger = structlog.get_logger(__name__)


class Work(Protocol):
    """What a process does until it is stopped."""

    @property
    def totals(self) -> Totals:
        """What it has done so far."""

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Work until a stop is requested, or the queue was empty for so long."""

    def request_stop(self) -> None:
        """End receiving; `run` returns when the messages held are settled or released."""


class Served(Protocol):
    """What the status server shows of the work."""

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics."""

    def health(self) -> tuple[bool, bytes]:
        """Return the answer of /livez."""

    def ready(self) -> tuple[bool, bytes]:
        """Return the answer of /readyz."""

    def snapshots(self) -> Mapping[str, Snapshot]:
        """Return the present moment of each pipeline, by name, in the status thread."""

    @property
    def several(self) -> bool:
        """Whether there is a list of pipelines, and a page of each."""


class DrainTimeoutFault(FatalFault):
    """The queue was not empty in time."""

    totals = Totals()
    """Of what was done until then."""


class StatusOutput(msgspec.Struct):
    """How the work is shown while it runs: the status server, and the live view on a terminal."""

    served: Served
    settings: StatusSettings
    address_file: Path | None = None
    """Where one of several workers notes its address for its parent, which records for all."""
    view: bool = False
    """Show it on the terminal, too: one pipeline, not several."""
    started: Callable[[str], None] | None = None
    """Called with the address, "" where there is none."""
    tapped: ReadTap | None = None
    """Returns a sample of the rows that are written; None: they are not shown."""

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Serve, and show the view if it is wanted, while the block runs."""
        served, settings = self.served, self.settings
        record = self.address_file is None and bool(settings.address or self.view)
        with (
            recording(served.snapshots, wanted=record) as recorder,
            status_server(
                settings.bind,
                served.registry,
                served.health,
                ready=served.ready,
                access=Access.from_settings(settings),
                take=served.snapshots,
                recorder=recorder,
                several=served.several,
                tapped=self.tapped,
            ) as address,
            published_address(self.address_file, address),
        ):
            if self.started:
                self.started(address)
            with self._viewed(recorder):
                yield

    def _viewed(self, recorder: Recorder | None) -> contextlib.AbstractContextManager[None]:
        if self.view and recorder:
            return live_view.live_view(recorder.only)
        return contextlib.nullcontext()


class Drain(msgspec.Struct):
    """Work until the queue is empty."""

    timeout_s: float | None = None
    """The longest that it may take."""
    hint: str = "give it longer, more --workers, or look for what keeps sending"
    settle_s: float = 0.0
    """How long the queue must look empty."""
    stopped: bool = False
    """Whether a signal ended it before the queue was empty."""


async def run_process(
    work: Work,
    *,
    status: StatusOutput | None = None,
    drain: Drain | None = None,
    progress: Callable[[], dict[str, int]] | None = None,
    say: Callable[[str], None] | None = None,
    echo_s: float = 0.0,
    abort: Callable[[], None] | None = None,
    logs_end: bool = False,
    reload: Callable[[], None] | None = None,
    exit_within_s: float | None = None,
) -> Totals:
    """Run the work to its end; return its totals.

    `progress` returns counts to show beside the settled messages; without it none are shown.
    `say` takes them off a terminal, in place of the log.
    `echo_s`: a second signal within these seconds repeats the first. `abort` is called before a
    process that is asked twice leaves. `logs_end`: the totals are logged. `reload` has the settings
    read again, on SIGHUP. `exit_within_s`: the grace period, a second after which the process ends
    even if something hangs; None if the caller has more to do after it.

    Raises what the work raises, and DrainTimeoutFault when the queue is not empty in time.
    """
    late = False

    def request_stop() -> None:
        if drain:
            drain.stopped = True
        work.request_stop()

    def too_late() -> None:
        nonlocal late
        late = True
        work.request_stop()

    timer = None
    if drain and drain.timeout_s:
        timer = asyncio.get_running_loop().call_later(drain.timeout_s, too_late)
    try:
        with (
            _handling_signals(request_stop, abort, echo_s, reload, exit_within_s),
            status.shown() if status else contextlib.nullcontext(),
        ):
            async with _progress_shown(work, progress, say):
                totals = await work.run(drain_settle_s=drain.settle_s if drain else None)
    finally:
        if timer:
            timer.cancel()
    if logs_end:
        logger.info("stopped", **as_flat(totals))
    if late and drain:
        fault = DrainTimeoutFault(
            f"the queue was not empty after {drain.timeout_s:g} s ({summary(totals)})",
            code="drain_timeout",
            hint=drain.hint,
        )
        fault.totals = totals
        raise fault
    return totals


def settled(drain: Drain | None, settle_s: float | None, endpoint_host: str) -> Drain | None:
    """Set the drain's `settle_s`, and return it: as set, else as long as the counts may lag.

    AWS's counts lag by up to a minute, those of an emulator on this machine do not.
    """
    if drain is None:
        return None
    if settle_s is None:
        settle_s = 1.0 if is_loopback(endpoint_host) else 60.0
    drain.settle_s = settle_s
    return drain


def as_flat(totals: Totals) -> dict[str, Any]:
    """Return totals as the flat object that `--json` prints."""
    flat = msgspec.to_builtins(totals) | {"isolated": len(totals.isolated)}
    if totals.object_lines is None:
        del flat["object_lines"]
    return {**flat, "messages_per_second": totals.messages_per_second}


def summary(totals: Totals) -> str:
    """Return totals in one line for people."""
    lines = "" if totals.object_lines is None else f", lines of objects {totals.object_lines:,}"
    counts = (
        f"received {totals.received:,}: written {totals.written:,}, duplicate "
        f"{totals.duplicate:,}, quarantined {totals.quarantined:,}, released {totals.released:,}"
        f"{lines}"
    )
    if not totals.busy_seconds:
        return f"{counts}, in {totals.seconds:,.1f} s"
    # The last seconds of a drain see whether the queue stays empty; the rate leaves them out.
    return (
        f"{counts}; {counted(totals.settled, 'message')} in "
        f"{totals.busy_seconds:,.3f} s: {totals.messages_per_second:,.0f} a second "
        f"({totals.seconds:,.1f} s in all)"
    )


@contextlib.asynccontextmanager
async def _progress_shown(
    work: Work,
    progress: Callable[[], dict[str, int]] | None,
    say: Callable[[str], None] | None,
) -> AsyncIterator[None]:
    if progress is None:
        yield
        return

    def state() -> tuple[int, int | None, dict[str, int]]:
        totals = work.totals
        counts = {name: getattr(totals, name) for name in ("written", "duplicate", "quarantined")}
        if totals.object_lines is not None:
            counts["object_lines"] = totals.object_lines
        return totals.settled, None, counts | progress()

    async with Ticker("consuming", state, say):
        yield


@contextlib.contextmanager
def _handling_signals(
    request_stop: Callable[[], None],
    abort: Callable[[], None] | None,
    echo_s: float,
    reload: Callable[[], None] | None,
    exit_within_s: float | None,
) -> Iterator[None]:
    """Stop the work on a signal, and leave at once on a second one that is not its echo.

    SIGHUP calls `reload`.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in signals}
    on_terminal = sys.stderr.isatty()
    asked: float | None = None

    def stop(number: int) -> None:
        nonlocal asked
        if asked is not None:
            if loop.time() - asked < echo_s:
                return
            if abort:
                abort()
            os._exit(1)  # the messages held come back when their leases end
        asked = loop.time()
        if exit_within_s is not None:
            _exit_in(exit_within_s + _EXIT_S, abort)
        logger.info("stopping", signal=signal.Signals(number).name)
        request_stop()

    def hang_up(number: int) -> None:
        if on_terminal and not os.isatty(sys.stderr.fileno()):
            # The terminal is gone: nobody sees what we say, and writing to it would fail.
            _print_nowhere()
            if asked is None:
                stop(number)
        elif reload is not None:
            reload()
        else:
            logger.warning(
                "this command does not read its settings again; restart it", code="no_reload"
            )

    for number in signals:
        loop.add_signal_handler(number, hang_up if number == signal.SIGHUP else stop, number)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
            # A worker's totals are not printed yet: an echo must not kill it now.
            ignore = echo_s and asked is not None
            signal.signal(number, signal.SIG_IGN if ignore else before[number] or signal.SIG_DFL)


def _exit_in(seconds: float, abort: Callable[[], None] | None) -> None:
    """End the process after so long, even if a thread or the interpreter's own end hangs."""

    def leave() -> None:
        if abort:
            abort()
        logger.warning("the grace period is over; something hangs", code="hung_at_exit")
        os._exit(1)  # the messages held come back when their leases end

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def _print_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
