"""What was checked, and what was found; one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class Report:
    """Prints a line a check, and remembers what failed."""

    checks: int = 0
    failed: list[str] = field(default_factory=list)

    def check(self, what: str, problems: Iterable[str]) -> None:
        """Note one check; `problems` is empty where it holds."""
        found = list(problems)
        self.checks += 1
        print(f"{'ok  ' if not found else 'FAIL'}  {what}", flush=True)
        for problem in found:
            print(f"        {problem}")
        self.failed += [f"{what}: {problem}" for problem in found]

    def refuses(self, what: str, find: Callable[[], Iterable[str]]) -> None:
        """Note that a thing made wrong on purpose is found: a check that sees nothing is none."""
        self.check(f"sees what is wrong: {what}", [] if list(find()) else ["it was not seen"])
