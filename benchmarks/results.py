"""Stores results: one JSON file per section with its last run, small enough to keep in git."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from .measure import Run
from .workloads import ResultSection

FOLDER = Path(__file__).parent / "results"


def save(section: ResultSection, folder: Path) -> Path:
    """Write a section's file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{section.name}.json"
    path.write_text(json.dumps(dataclasses.asdict(section), indent=1) + "\n")
    return path


def load(folder: Path) -> dict[str, ResultSection]:
    """Return the measured sections, by name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text())
        if "runs" not in tree:
            continue  # from another suite, with another format
        runs = [Run(**run) for run in tree.pop("runs")]
        section = ResultSection(**tree, runs=runs)
        found[section.name] = section
    return found
