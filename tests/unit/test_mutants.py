"""The notes of `make mutants`: which test reaches which place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.mutants.reach import place_notes, reached_by

MODULE = '''"""A module."""
LIMIT = 3
LIMITS = [LIMIT]


def over(number):
    """Whether it is too much."""
    if number < 0:
        return False
    elif number > LIMITS[0]:
        return True
    return False


class Box:
    @property
    def empty(self):
        return True
'''
LINES = {0: 2, 1: 8, 2: 10, 3: 11, 4: 16}  # constant, if, elif, in the elif, decorator


def test_a_place_is_reached_by_what_evaluates_or_uses_it(tmp_path: Path) -> None:
    module = tmp_path / "src/sqs2pg/module.py"
    module.parent.mkdir(parents=True)
    module.write_text(MODULE)
    folder = tmp_path / "notes"
    place_notes(tmp_path, [(n, "src/sqs2pg/module.py", line) for n, line in LINES.items()], folder)

    def reached(expression: str) -> list[int]:
        test = f"tests/test_it.py::test_{expression}[4]"
        text = f"""import os, pathlib
pathlib.Path({str(folder)!r}, str(os.getpid())).write_text({test!r})
import sqs2pg.module as m
if os.fork():
    os.wait()
else:
    {expression}
"""
        environment = {"PYTHONPATH": str(tmp_path / "src")}
        subprocess.run([sys.executable, "-S", "-c", text], env=environment, check=True)
        name = test.removesuffix("[4]")
        return sorted(number for number, tests in reached_by(folder).items() if name in tests)

    assert reached("m") == []
    assert reached("m.over(1)") == [0, 1, 2]
    assert reached("m.over(4)") == [0, 1, 2, 3]
    assert reached("m.Box().empty") == [4]
