"""Copies of the checkout that are broken on purpose, and what their tests say."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

from tests.checkout import ROOT, copy_checkout

COPIES = ROOT / "build" / "breakages"
FAILED, PASSED = 1, 0  # pytest's exit codes
NO_END = -1
TEST_S_MAX = 90
TESTS_S_MAX = 600
_END_S = 20  # for pytest to stop the servers of its tests
_SUITE_S = 3600
_FAILED_TEST = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.MULTILINE)
# The extension is compiled into the copy's own package.
_COMPILE = """import hatch_build as h, sysconfig, pathlib, sys
into = pathlib.Path("src/sqs2pg") / ("_native" + sysconfig.get_config_var("EXT_SUFFIX"))
sys.exit(h.compile_extension(into, h.find_compiler()) or 0)"""

Task = TypeVar("Task")
Result = TypeVar("Result")


class Ran(NamedTuple):
    """How a run of pytest ended."""

    code: int
    by: str
    """The first test that failed, or pytest's last line."""
    seconds: float
    failed: frozenset[str] = frozenset()
    """The tests that failed, without their parameters."""


class Copy:
    """A copy of the checkout, whose package its tests import. `remove` deletes it."""

    def __init__(self, number: int) -> None:
        self.root = COPIES / f"{os.getpid()}-{number}"
        copy_checkout(self.root)
        self._built = [one for one in ROOT.glob("src/sqs2pg/_*") if one.is_file()]
        self._restore_built()
        # Compiled Python is told from its source by the source's second, which we make unique.
        self._seconds = itertools.count(1_000_000_000)

    @contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        """Replace a file's text while the block runs; a unit of native/ is compiled."""
        before = (self.root / file).read_text(encoding="utf-8")
        self.write(file, text)
        try:
            if file.startswith("native/"):
                self._compile()
            yield
        finally:
            self.write(file, before)
            if file.startswith("native/"):
                self._restore_built()

    def write(self, file: str, text: str) -> None:
        """Write a file as one that is new to Python."""
        path = self.root / file
        path.write_text(text, encoding="utf-8")
        second = next(self._seconds)
        os.utime(path, (second, second))

    def pytest(
        self, *arguments: str, variables: Mapping[str, str] | None = None, end_s: float = 0
    ) -> Ran:
        """Run pytest; its code is NO_END if it takes longer than `end_s` or TESTS_S_MAX seconds."""
        began = time.monotonic()
        quiet = ("-q", "-p", "no:cacheprovider", "--no-header", "-rfE", "--tb=no")
        limit = ("--timeout", str(TEST_S_MAX))
        try:
            code, output = self._python(
                ["-m", "pytest", *quiet, *limit, *arguments], variables or {}, end_s or TESTS_S_MAX
            )
        except TimeoutError:
            by = f"no end within {end_s or TESTS_S_MAX:.0f} s"
            return Ran(NO_END, by, time.monotonic() - began)
        failed = _FAILED_TEST.findall(output)
        by = failed[0] if failed else output.rstrip().rpartition("\n")[2]
        return Ran(code, by, time.monotonic() - began, frozenset(failed))

    def suite(
        self, workers: int, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> Ran:
        """Run many tests, `workers` at a time."""
        share = ("-n", str(workers), "--dist", "worksteal")
        return self.pytest(*share, *arguments, variables=variables, end_s=_SUITE_S)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def _restore_built(self) -> None:
        for built in self._built:
            shutil.copy2(built, self.root / built.relative_to(ROOT))

    def _compile(self) -> None:
        code, output = self._python(["-c", _COMPILE], {}, TESTS_S_MAX)
        if code:
            raise SystemExit(f"error: the native extension does not compile: {output}")

    def _python(
        self, arguments: Sequence[str], variables: Mapping[str, str], end_s: float
    ) -> tuple[int, str]:
        """Return the exit code and what was printed; TimeoutError if it had to be ended."""
        environment = {**os.environ, **variables}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        # PYTHONPATH comes before the checkout's own package, in every process that a test starts.
        environment["PYTHONPATH"] = str(self.root / "src")
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
            try:
                code = process.wait(end_s)
            except BaseException as error:
                _end(process)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TimeoutError from None
                raise
            output.seek(0)
            return code, output.read()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt pytest, so that it stops its servers; kill what is left of it."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def copies_of_checkout(number: int) -> Iterator[list[Copy]]:
    """Make copies, and remove them at the end."""
    made: list[Copy] = []
    try:
        made.extend(map(Copy, range(number)))
        yield made
    finally:
        for copy in made:
            copy.remove()


def failing_unbroken(copy: Copy, workers: int, tests: Collection[str]) -> frozenset[str]:
    """Return which of these tests fail although nothing is broken, such as on a busy machine."""
    if not tests:
        return frozenset()
    ran = copy.suite(workers, *sorted(tests))
    if ran.code not in (PASSED, FAILED):
        raise SystemExit(f"error: the tests of the unbroken checkout do not run: {ran.by}")
    return ran.failed


def on_each(
    copies: Collection[Copy], work: Callable[[Copy, Task], Result], tasks: Sequence[Task]
) -> list[Result]:
    """Do all tasks, the first ones first, each with a copy that no other task uses meanwhile."""
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(task: Task) -> Result:
        copy = free.get()
        try:
            return work(copy, task)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(one, tasks))
