"""A mutant, how it reads, and the drawing of some."""

from __future__ import annotations

import difflib
import hashlib
import json
import subprocess
from typing import NamedTuple

from tests.checkout import ROOT

PYTHON = ROOT / ".venv-mutants/bin/python"


class Mutant(NamedTuple):
    """One change of one place that a tool made."""

    file: str
    line: int
    operator: str
    text: str
    """The whole file, changed."""

    change: str
    """What stood there and what stands there now, in Markdown."""


def draw(seed: int, count: int) -> list[Mutant]:
    """Return the mutants of a seed; the same for the same code, so they are made once for it."""
    code = hashlib.sha256(f"{seed} {count}".encode())
    for path in sorted((ROOT / "src/sqs2pg").rglob("*.py")):
        code.update(path.read_bytes())
    kept = ROOT / f"build/mutants-{code.hexdigest()[:16]}.json"
    if not kept.exists():
        done = subprocess.run(
            [PYTHON, "tests/mutants/draw.py", "--seed", str(seed), "--count", str(count)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
        )
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(done.stdout)
    return [
        Mutant(**one, change=_change((ROOT / one["file"]).read_text(encoding="utf-8"), one["text"]))
        for one in json.loads(kept.read_bytes())
    ]


def _change(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    changed = list(lines)[2:]
    sides = [
        " ".join(one[1:].strip() for one in changed if one.startswith(sign)).strip()
        for sign in "-+"
    ]
    shown = [f"`{one}`" if one else "nothing" for one in sides]
    return " → ".join(shown).replace("|", "\\|")
