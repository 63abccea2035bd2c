"""All pipelines of one process: a list of one, or of fifty, as one piece of work.

    SIGHUP ─▶ read the files ─▶ start those that are new
                              ─▶ stop in good order those whose file is gone
                              ─▶ give new settings to those that changed; leave the others alone

Promises: what ends one pipeline ends no other one. A file that cannot be read changes nothing of
its pipeline. A stop lets every pipeline settle what it holds.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import msgspec
import structlog

from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.pipeline.totals import Totals, summed
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.runners.shared import Shared
from sqs2pg.runners.supervised import Refused, Supervised
from sqs2pg.settings import ProcessSettings, Settings
from sqs2pg.status.snapshot import Snapshot
from sqs2pg.telemetry.process_metrics import process_registry

Found = Mapping[Path | None, Settings]
"""The settings of each pipeline, by its file."""
Read = Callable[[Callable[[Path, SettingsError], None]], Found]
"""Returns the settings anew; is given what to call for each file that is refused."""

log = structlog.get_logger(__name__)


class Pipelines:
    """See the module. `async with` opens the only one, and closes what is open."""

    def __init__(
        self,
        found: Found,
        *,
        several: bool,
        process: ProcessSettings,
        read: Read | None,
        refused: Refused,
        opened: Callable[[Pipeline], None] = lambda _: None,
    ) -> None:
        """`several`: they may become more or fewer, and a fault of one is its own. `process`: the
        bounds of the process. `read` returns the settings anew, for `request_reload`. `refused` and
        `opened` are those of `ReloadingPipeline`.

        Raises SettingsError where the AWS environment is not usable.
        """
        self.several = several
        self._read = read
        self._tell = refused
        self._opened = opened
        self._shared = Shared(process, found.values())
        self.members: dict[str, Supervised] = {}
        """The pipelines by name; read only."""
        self._files: dict[str, Path | None] = {}
        self._left: list[Supervised] = []
        self._tasks: set[asyncio.Task[Totals]] = set()
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._stopping = False
        self._settle_s: float | None = None
        for file, settings in found.items():
            self._add(file, settings)
        self.registry = process_registry(
            lambda: {name: one.metrics.registry for name, one in self.members.copy().items()}
        )

    async def __aenter__(self) -> Self:
        if not self.several:
            try:
                await self._only.open()
            except BaseException:
                await self.__aexit__()
                raise
            gc.freeze()  # the cyclic collector need not walk what lives as long as the process
        return self

    async def __aexit__(self, *exc: object) -> None:
        for member in self.members.values():
            await member.close()
        await self._shared.close()

    @property
    def endpoint_host(self) -> str:
        """The host of the queues' endpoint."""
        return self._shared.client.endpoint_host

    @property
    def faults(self) -> dict[str, Sqs2pgError]:
        """What ended pipelines for good, by name."""
        ended = [one for one in (*self.members.values(), *self._left) if one.state == "failed"]
        return {one.name: one.fault for one in ended if one.fault}

    @property
    def totals(self) -> Totals:
        """What all of them have done so far."""
        if not self.several:
            return self._only.totals
        return summed(self.each().values())

    def each(self) -> dict[str, Totals]:
        """Return what each has done so far, those that were removed too, by name."""
        totals: dict[str, Totals] = {}
        for one in (*self._left, *self.members.values()):
            before = totals.get(one.name)
            totals[one.name] = before.plus(one.totals) if before else one.totals
        return totals

    def request_stop(self) -> None:
        """End receiving. `run` returns when the messages held are settled or released."""
        self._stopping = True
        for member in self.members.values():
            member.request_stop()
        self._changed.set()

    def request_reload(self) -> None:
        """Have the settings read again. Several requests while one is under way are one."""
        if self.several:
            self._wanted.set()
        else:
            self._only.follow()

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Run all until a stop is requested, or until every queue was empty for so long.

        The only one raises as `ReloadingPipeline`; of several, `faults` has what ended them.
        """
        self._settle_s = drain_settle_s
        for member in self.members.values():
            self._start(member)
        following = asyncio.create_task(self._follow())
        try:
            while self._tasks or not (self._stopping or self._ends):
                self._changed.clear()
                change = asyncio.create_task(self._changed.wait())
                await asyncio.wait([*self._tasks, change], return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                for task in [task for task in self._tasks if task.done()]:
                    self._tasks.remove(task)
                    task.result()
            return self.totals
        finally:
            following.cancel()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    @property
    def _only(self) -> Supervised:
        [member] = self.members.values()
        return member

    @property
    def _ends(self) -> bool:
        """Whether it is over once all that run have ended."""
        return self._settle_s is not None or not self.several

    def _add(self, file: Path | None, settings: Settings) -> Supervised:
        member = Supervised(
            settings,
            self._shared,
            alone=not self.several,
            refused=self._tell,
            opened=self._opened,
            read=self._read_only if self._read and not self.several else None,
        )
        self.members[member.name], self._files[member.name] = member, file
        return member

    def _start(self, member: Supervised) -> None:
        self._tasks.add(asyncio.create_task(member.run(drain_settle_s=self._settle_s)))

    def _read_only(self) -> Settings:
        assert self._read is not None
        [settings] = self._read(lambda _file, _error: None).values()
        return settings

    async def _follow(self) -> None:
        """Follow the files at each request."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._read and not self._stopping:
                self._apply(self._read)

    def _apply(self, read: Read) -> None:
        unread: dict[Path, SettingsError] = {}
        try:
            found = read(unread.__setitem__)
        except Sqs2pgError as fault:
            self._tell(
                f"new settings are refused; the old ones stay: {fault.what}", fault.hint, fault.code
            )
            return
        for error in unread.values():
            self._tell(
                f"new settings of one pipeline are refused; its old ones stay: {error.what}",
                error.hint,
                error.code,
            )
        fresh = {settings.pipeline_name: (file, settings) for file, settings in found.items()}
        for name in [name for name in self.members if name not in fresh]:
            if self._files[name] not in unread:
                self._remove(name)
        for name, (file, settings) in fresh.items():
            member = self.members.get(name)
            self._files[name] = file
            if member is None:
                self._start(self._add(file, settings))
                log.info("a pipeline was added", pipeline=name)
            elif member.settings != settings or member.state == "failed":
                member.follow(settings)
        log.info("the settings were read again", count=len(self.members))
        self._changed.set()

    def _remove(self, name: str) -> None:
        member = self.members.pop(name)
        del self._files[name]
        self._left.append(member)
        member.request_stop()
        log.info("a pipeline is removed", pipeline=name)

    # -- its state, for the status thread --------------------------------------------------

    def snapshots(self) -> dict[str, Snapshot]:
        """Return the present moment of each pipeline, by name."""
        return {name: one.snapshot() for name, one in self.members.copy().items()}

    def health(self) -> tuple[bool, bytes]:
        """Return whether the process makes progress, and the report as JSON (/livez).

        Of several, one that makes none is started again alone: only where all make none is it the
        process's fault.
        """
        if not self.several:
            return self._only.health()
        return self._reports({n: one.health() for n, one in self.members.copy().items()}, none=True)

    def ready(self) -> tuple[bool, bytes]:
        """Return whether at least one can write messages now, and the reports as JSON (/readyz)."""
        if not self.several:
            return self._only.ready()
        return self._reports({n: one.ready() for n, one in self.members.copy().items()}, none=False)

    @staticmethod
    def _reports(reports: Mapping[str, tuple[bool, bytes]], *, none: bool) -> tuple[bool, bytes]:
        ok = any(ok for ok, _ in reports.values()) if reports else none
        each = {name: msgspec.Raw(report) for name, (_, report) in reports.items()}
        return ok, msgspec.json.encode({"ok": ok, "pipelines": each})
