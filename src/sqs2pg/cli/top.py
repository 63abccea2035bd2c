"""`sqs2pg top`: attach to a running pipeline by its status address."""

from __future__ import annotations

import http.client
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import msgspec

from sqs2pg.cli.options import config_option, json_option, load_all, named_pipeline, print_json
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.settings import DEFAULT_BIND
from sqs2pg.status.access import read_token

if TYPE_CHECKING:
    from rich.console import Console

    from sqs2pg.status.recorder import Moment, Point

_EVERY_S = 1.0
_ANSWER_S = 5.0


class StatusClient:
    """The status server of a running pipeline."""

    def __init__(self, address: str, token: str = "", pipeline: str = "") -> None:
        """`pipeline`: the name of one of several.

        Raises SettingsError where `address` is not an http(s) URL or host:port.
        """
        if "://" not in address:
            address = f"http://{address}"
        if not address.startswith(("http://", "https://")):
            raise SettingsError(
                "the status address is not a URL of http or https",
                hint="such as http://127.0.0.1:9465; the log of `run` shows it",
            )
        self.address = address.rstrip("/")
        self._token = token
        self._base = f"/pipelines/{quote(pipeline, safe='')}" if pipeline else ""

    def read(self, path: str) -> bytes:
        """Return what is served at a path. Raises FatalFault if it cannot be read."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = urllib.request.Request(self.address + path, headers=headers)  # noqa: S310  http(s), see above
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310  the same
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error.code) from None
        except (OSError, http.client.HTTPException, ValueError):
            raise FatalFault(
                f"nothing answers at {self.address}",
                code="status_unreachable",
                hint="give the address that `run` logs as `status`, or set status.bind",
            ) from None

    def moment(self) -> Moment:
        """Return the present moment. Raises FatalFault."""
        from sqs2pg.status.recorder import Moment

        state = self.read(f"{self._base}/state")
        if state.startswith(b'{"pipelines"'):
            names = ", ".join(sorted(msgspec.json.decode(state)["pipelines"]))
            raise SettingsError(
                f"{self.address} shows several pipelines",
                hint=f"name one with --pipeline: {names}",
            )
        try:
            return msgspec.json.decode(state, type=Moment)
        except msgspec.DecodeError:
            raise FatalFault(
                f"what answers at {self.address} is not a pipeline's status of this version",
                code="status_unknown",
                hint="use the version of sqs2pg that runs there",
            ) from None

    def history(self) -> list[Point]:
        """Return the points of the last half hour; none if they cannot be read."""
        from sqs2pg.status.recorder import Point

        try:
            return msgspec.json.decode(self.read(f"{self._base}/history"), type=list[Point])
        except (FatalFault, msgspec.DecodeError):
            return []

    def rows(self, since: float) -> bytes:
        """Return the rows that are shown after `since`, seconds since the epoch, as JSON.

        Raises FatalFault, `status_no_tap` where the pipeline shows none.
        """
        try:
            return self.read(f"{self._base}/tap?since={since!r}")
        except FatalFault as fault:
            if fault.code != "status_refused":
                raise
        raise FatalFault(
            f"{self.address} shows no rows",
            code="status_no_tap",
            hint="set tap = true under [status], and SQS2PG_STATUS__TOKEN or token_file, which it "
            "needs; restart the pipeline. Of several, name one with --pipeline",
        )

    def _refused(self, code: int) -> FatalFault:
        if code == 401:
            return FatalFault(
                f"{self.address} wants its token",
                code="status_token",
                hint="set SQS2PG_STATUS__TOKEN, or status.token_file in the settings",
            )
        return FatalFault(
            f"{self.address} answered {code}",
            code="status_refused",
            hint="is it the address of a pipeline's status? `run` logs it",
        )


def status_at(address: str | None, config: Path | None) -> StatusClient:
    """Return the status server at an address, else at that of the settings.

    Of several pipelines it shows the one that --pipeline names.
    """
    settings = load_all([config] if config else [], any_name=True)[0]
    return StatusClient(
        address or settings.status.address or DEFAULT_BIND,
        read_token(settings.status),
        named_pipeline(),
    )


@click.command()
@click.argument("url", required=False)
@click.option("--once", is_flag=True, help="Show one frame and end, as it does off a terminal.")
@config_option
@json_option
def top(url: str | None, once: bool, config: Path | None, as_json: bool) -> None:
    """Attach to a running pipeline at URL, its status address; by default that of the settings."""
    from rich.console import Console

    from sqs2pg.cli.terminal_frame import frame
    from sqs2pg.status.recorder import POINTS_MAX

    status = status_at(url, config)
    moment = status.moment()
    if as_json:
        print_json(_flat(moment))
        return
    points = deque(status.history() or [moment.point], maxlen=POINTS_MAX)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if once or not sys.stdout.isatty():
        console.print(frame(moment.snapshot, list(points), width=console.width))
        return
    try:
        _follow(status, moment, points, console)
    except KeyboardInterrupt:
        return


def _follow(status: StatusClient, moment: Moment, points: deque[Point], console: Console) -> None:
    from rich.live import Live

    from sqs2pg.cli.terminal_frame import frame

    lost = False
    first = frame(moment.snapshot, list(points), width=console.width)
    with Live(first, console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(
                frame(moment.snapshot, list(points), width=console.width, lost=lost), refresh=True
            )
            time.sleep(_EVERY_S)
            try:
                moment, lost = status.moment(), False
            except FatalFault:
                lost = True
                continue
            if moment.point.at > points[-1].at:
                points.append(moment.point)


def _flat(moment: Moment) -> dict[str, Any]:
    snapshot, point = moment.snapshot, moment.point
    flat: dict[str, Any] = {
        "ok": snapshot.well and all(check.ok for check in snapshot.ready.values()),
        "pipeline": snapshot.pipeline,
        "paused": snapshot.pause is not None,
        "receiving_paused": snapshot.paused,
        "workers": len(snapshot.workers),
        **{name: int(count) for name, count in snapshot.counts.items()},
        "messages_per_second": point.written + point.duplicate + point.quarantined,
        "lag_p95_s": point.lag_p95,
        **snapshot.gauges,
    }
    flat["faults"] = [
        {"stage": key.partition(" ")[0], "code": key.partition(" ")[2], "times": int(times)}
        for key, times in snapshot.faults.items()
    ]
    return flat
