"""Results as files: one JSON file a section, its last run, small enough to keep in git."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from .measure import Run
from .workloads import Section

FOLDER = Path(__file__).parent / "results"


def save(section: Section, folder: Path) -> Path:
    """Write a section's file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{section.name}.json"
    path.write_text(json.dumps(dataclasses.asdict(section), indent=1) + "\n")
    return path


def load(folder: Path) -> dict[str, Section]:
    """Return the sections that were measured, by name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text())
        if "runs" not in tree:
            continue  # another suite's, of a form of its own
        runs = [Run(**run) for run in tree.pop("runs")]
        section = Section(**tree, runs=runs)
        found[section.name] = section
    return found
