"""What was checked and what was found, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class Report:
    """Prints one line per check, and remembers what failed."""

    checks: int = 0
    failed: list[str] = field(default_factory=list)

    def check(self, what: str, problems: Iterable[str]) -> None:
        """Note one check; `problems` is empty if it passed."""
        found = list(problems)
        self.checks += 1
        print(f"{'ok  ' if not found else 'FAIL'}  {what}", flush=True)
        for problem in found:
            print(f"        {problem}")
        self.failed += [f"{what}: {problem}" for problem in found]

    def refuses(self, what: str, find: Callable[[], Iterable[str]]) -> None:
        """Note that a mistake made on purpose is found; otherwise the check proves nothing."""
        self.check(f"sees what is wrong: {what}", [] if list(find()) else ["it was not seen"])
