"""Apply each breakage to a copy of the checkout and run the tests that should notice it.

    make breakages                        # python -m tests.breakages
    make breakages BREAKAGES_ARGS='--only ledger'

Exit 0 only if every breakage was noticed. One that no longer applies is an error, and so is one
whose tests fail without it: `--sound` runs all of them on an unbroken copy first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

from tests.breakages.table import BREAKAGES, Breakage
from tests.checkout import ROOT, copy_checkout

COPIES = ROOT / "build" / "breakages"
TESTS_S_MAX = 600
NOTICED, PASSED = 1, 0  # pytest's exit codes: a test failed, all passed
# The extension is compiled into the copy's own package.
COMPILE = """import hatch_build as h, sysconfig, pathlib, sys
into = pathlib.Path("src/sqs2pg") / ("_native" + sysconfig.get_config_var("EXT_SUFFIX"))
sys.exit(h.compile_extension(into, h.find_compiler()) or 0)"""


class Copy:
    """A copy of the checkout, whose package its tests import."""

    def __init__(self, number: int) -> None:
        self.root = COPIES / f"{os.getpid()}-{number}"
        copy_checkout(self.root)
        for built in ROOT.glob("src/sqs2pg/_*"):
            if built.is_file():
                shutil.copy2(built, self.root / built.relative_to(ROOT))

    @contextmanager
    def broken(self, breakage: Breakage) -> Iterator[None]:
        """Apply a breakage while the block runs."""
        path = self.root / breakage.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(breakage.before, breakage.after), encoding="utf-8")
        native = breakage.file.startswith("native/")
        try:
            if native:
                self._compile()
            yield
        finally:
            path.write_text(text, encoding="utf-8")
            if native:
                self._compile()

    def _compile(self) -> None:
        done = self._python("-c", COMPILE)
        if done.returncode:
            raise SystemExit(f"error: the native extension does not compile: {done.stderr}")

    def test(self, files: Sequence[str]) -> tuple[int, str, float]:
        """Run tests; return pytest's exit code, the first test that failed, and the seconds."""
        began = time.monotonic()
        try:
            done = self._python(
                *("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "-rfE"),
                *files,
            )
        except subprocess.TimeoutExpired:
            return NOTICED, f"no end within {TESTS_S_MAX} s", time.monotonic() - began
        lines = done.stdout.splitlines()
        failed = next((x for x in lines if x.startswith(("FAILED", "ERROR"))), "")
        name = failed.partition(" ")[2].partition(" - ")[0]
        return done.returncode, name or "".join(lines[-1:]), time.monotonic() - began

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # PYTHONPATH comes before the checkout's own package, in every process that a test starts.
        own = {"PYTHONPATH": str(self.root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TESTS_S_MAX,
            check=False,
        )


def unfit(breakage: Breakage) -> str:
    """Return why a breakage cannot be applied; "" where it can."""
    path = ROOT / breakage.file
    count = path.read_text(encoding="utf-8").count(breakage.before) if path.is_file() else 0
    missing = [one for one in breakage.files if not (ROOT / one).is_file()]
    if count != 1:
        return f"its text stands {count} times in {breakage.file}"
    return f"there is no {missing[0]}" if missing else ""


def main() -> int:
    """Run the chosen breakages, print what noticed each, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.breakages")
    parser.add_argument("--only", default="", help="breakages whose words or file hold this text")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sound", action="store_true", help="first run the tests unbroken")
    chosen = parser.parse_args()
    wanted = [one for one in BREAKAGES if chosen.only in f"{one.what} {one.file}"]
    errors = [f"{one.what}: {why}" for one in wanted if (why := unfit(one))]
    if errors:
        print("\n".join(f"error: no longer applies: {error}" for error in errors))
        return 2
    began = time.monotonic()
    copies: SimpleQueue[Copy] = SimpleQueue()
    for number in range(chosen.workers):
        copies.put(Copy(number))
    unnoticed: list[Breakage] = []

    def check(breakage: Breakage) -> None:
        copy = copies.get()
        try:
            with copy.broken(breakage):
                code, by, seconds = copy.test(breakage.files)
        finally:
            copies.put(copy)
        if code != NOTICED:
            unnoticed.append(breakage)
        word = "noticed" if code == NOTICED else "NOT NOTICED"
        print(f"{word:11}  {breakage.what}  [{seconds:.0f} s: {by}]", flush=True)

    if chosen.sound:
        everything = sorted({file for one in wanted for file in one.files})
        copy = copies.get()
        code, by, _ = copy.test(everything)
        copies.put(copy)
        if code != PASSED:
            print(f"error: without any breakage: {by}")
            return 2
    try:
        with ThreadPoolExecutor(chosen.workers) as pool:
            list(pool.map(check, wanted))
    finally:
        while not copies.empty():
            shutil.rmtree(copies.get().root, ignore_errors=True)
    took = time.monotonic() - began
    print(f"{len(wanted) - len(unnoticed)} of {len(wanted)} noticed in {took / 60:.0f} min")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
