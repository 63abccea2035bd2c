"""Run test files in forked processes: for tests without I/O, where little else takes time.

    python -m pytest -p tests.forked_files --forks 2 tests/unit

Each worker of pytest-xdist starts Python anew and collects every test, and its controller relays
six messages of each. Here, one process finds the files. Its forks take one file after the other
from a pipe, collect its tests and run them, and send what is shown, many at a time. Six thousand
quick tests take two thirds of the time. Session fixtures exist once in each fork.

When a fork dies, the test it ran has failed, and the rest of its file is not run; of tests that
passed in the last tenth of a second before, nothing may be known.
"""

from __future__ import annotations

import gc
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from tests.worker_reports import FewerReports

_SEND_S = 0.1
"""What is shown may be that late."""
_NAME_BYTES = 4096


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--forks", type=int, default=0, help="run files in so many forked processes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("forks") > 1 and not config.option.collectonly:
        config.pluginmanager.register(Parent(config))


class Fork(NamedTuple):
    """A forked process: its id, and memory in which it says what test it runs."""

    pid: int
    running: mmap.mmap


class Parent:
    """Finds the files, forks, and shows what the forks report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: list[pytest.Collector | pytest.Item] = []
        self._files: list[pytest.Collector | pytest.Item] = []
        self._stop = mmap.mmap(-1, 1)  # shared with the forks: not 0 once they shall end

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        manager = self._config.pluginmanager
        terminal = manager.unregister(name="terminalreporter")  # "collected 0 items"
        session.perform_collect(genitems=False)
        manager.register(terminal, "terminalreporter")
        self._files = [file for node in self._found for file in _files(node)]
        # In random order, but what may take long comes first, so that the forks end together.
        random.Random(self._config.getoption("randomly_seed", None)).shuffle(self._files)
        sizes = {id(node): node.path.stat().st_size for node in self._files}
        large = sorted(sizes.values())[-len(sizes) // 3 :]
        self._files.sort(key=lambda node: sizes[id(node)] not in large)
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.nodeid:  # the session's: what was asked for, before -k takes tests away
            self._found = list(report.result)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        waiting, write = os.pipe()
        os.write(write, b"".join(number.to_bytes(2) for number in range(len(self._files))))
        os.close(write)
        forks: dict[Any, Fork] = {}
        try:
            for number in range(self._config.getoption("forks")):
                ours, theirs = Pipe(duplex=False)
                running = mmap.mmap(-1, _NAME_BYTES)
                if not (pid := os.fork()):
                    for reading in (*forks, ours):
                        reading.close()  # else no fork learns that the parent has gone
                    child = Child(session, theirs, running, self._stop)
                    child.run(number, self._files, waiting)
                theirs.close()
                forks[ours] = Fork(pid, running)
            while forks:
                for ours in wait(list(forks)):
                    self._receive(ours, forks, session)  # type: ignore[arg-type]
                self._stop[0] = bool(session.shouldfail or session.shouldstop)
        finally:
            os.close(waiting)
            for fork in forks.values():
                os.kill(fork.pid, signal.SIGTERM)
                os.waitpid(fork.pid, 0)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        return True

    def _receive(self, ours: Connection, forks: dict[Any, Fork], session: pytest.Session) -> None:
        hook = self._config.hook
        try:
            received = ours.recv()
        except EOFError:
            self._bury(forks.pop(ours))
            return
        for kind, data in received:
            match kind:
                case "test":
                    hook.pytest_runtest_logreport(report=self._report(data))
                case "collection":
                    hook.pytest_collectreport(report=self._report(data))
                case "collected":
                    session.testscollected += data
                case "deselected":
                    hook.pytest_deselected(items=[SimpleNamespace()] * data)  # they are counted
                case "warning":
                    hook.pytest_warning_recorded.call_historic(kwargs=data)

    def _report(self, data: dict[str, Any]) -> Any:
        return self._config.hook.pytest_report_from_serializable(config=self._config, data=data)

    def _bury(self, fork: Fork) -> None:
        _, status = os.waitpid(fork.pid, 0)
        if not status:
            return
        name = fork.running[:].partition(b"\0")[0].decode() or "no test"
        code = os.waitstatus_to_exitcode(status)
        why = f"a fork died (exit code {code}) in {name}; the rest of this file was not run"
        file = name.partition("::")[0]
        report = pytest.TestReport(name, (file, None, file), {}, "failed", why, "call")
        self._config.hook.pytest_runtest_logreport(report=report)


def _files(node: pytest.Item | pytest.Collector) -> Iterator[pytest.Item | pytest.Collector]:
    """Yield the files of a folder; what is smaller than a folder was asked for by its name."""
    if isinstance(node, pytest.Directory):
        report = node.ihook.pytest_make_collect_report(collector=node)
        node.ihook.pytest_collectreport(report=report)
        for inner in report.result:
            yield from _files(inner)
    else:
        yield node


class Child:
    """A fork: runs the tests of the files that it takes. `run` ends the process."""

    def __init__(
        self, session: pytest.Session, parent: Connection, running: mmap.mmap, stop: mmap.mmap
    ) -> None:
        self._session = session
        self._config = session.config
        self._parent = parent
        self._running = running
        self._stop = stop
        self._unsent: list[tuple[str, Any]] = []
        self._sent = time.monotonic()

    def run(self, number: int, files: list[pytest.Item | pytest.Collector], waiting: int) -> None:
        code = 1
        try:
            self._prepare(number)
            item = None
            for following in self._items(files, waiting):
                if item is not None:
                    self._test(item, following)
                item = following
            if item is not None:
                self._test(item, None)
            self._send()
            code = 0
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(code)  # the parent's frames are not ours

    def _prepare(self, number: int) -> None:
        """Give the fork its own captured output and temporary folder; it writes to no terminal."""
        manager = self._config.pluginmanager
        manager.unregister(name="terminalreporter")
        manager.register(FewerReports())
        manager.register(self)
        capture = manager.getplugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()
        factory: Any = getattr(self._config, "_tmp_path_factory")  # noqa: B009  as pytest-xdist does
        folder: Path = factory.getbasetemp() / f"fork-{number}"
        folder.mkdir(mode=0o700)
        setattr(factory, "_basetemp", folder)  # noqa: B010

    def _items(self, files: list[Any], waiting: int) -> Iterator[pytest.Item]:
        session = self._session
        while number := os.read(waiting, 2):
            gc.disable()  # as in tests/conftest.py
            items = session.items = list(session.genitems(files[int.from_bytes(number)]))
            gc.enable()
            self._config.hook.pytest_collection_modifyitems(
                session=session, config=self._config, items=items
            )
            self._unsent.append(("collected", len(items)))
            yield from items

    def _test(self, item: pytest.Item, following: pytest.Item | None) -> None:
        if self._stop[0]:
            return
        name = item.nodeid.encode(errors="replace")[: _NAME_BYTES - 1]
        self._running[: len(name) + 1] = name + b"\0"
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if time.monotonic() > self._sent + _SEND_S:
            self._send()

    def _send(self) -> None:
        self._parent.send(self._unsent)
        self._unsent, self._sent = [], time.monotonic()

    def _keep(self, kind: str, report: Any) -> None:
        hook = self._config.hook
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        self._unsent.append((kind, data))
        if not report.passed:
            self._send()  # whatever becomes of this process

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._keep("test", report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._keep("collection", report)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._unsent.append(("deselected", len(items)))

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: Any
    ) -> None:
        warning_message.source = None  # an object of this process
        given = {"when": when, "nodeid": nodeid, "location": location}
        self._unsent.append(("warning", {"warning_message": warning_message, **given}))
