"""Which worker runs which of several pipelines.

The parent decides and writes it to one file per worker, which the worker reads with its settings. A
pipeline stays where it is for as long as it exists; a new one goes to the worker with the fewest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import structlog

from sqs2pg.cli import print_error
from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.settings import load_pipelines

log = structlog.get_logger(__name__)


class Shares:
    """The pipelines of each worker, by name, with the file of each."""

    def __init__(self, folder: Path, files: Sequence[Path], workers: int) -> None:
        """Give every worker its share. Raises SettingsError."""
        self._folder = folder
        self._files = files
        self._shares: list[dict[str, str]] = [{} for _ in range(workers)]
        self._spread(_names(files, {}))

    def file_of(self, worker: int) -> Path:
        """Return the file that names a worker's pipelines."""
        return self._folder / f"{worker}.share"

    def read_again(self) -> bool:
        """Follow the settings files; return whether the workers are to read them, too.

        They are not where the files do not go together: that is said once, here.
        """
        unread: dict[Path, SettingsError] = {}
        try:
            names = _names(self._files, unread)
        except Sqs2pgError as fault:
            what = f"new settings are refused; the old ones stay: {fault.what}"
            print_error(what, fault.hint, code=fault.code)
            return False
        had = {name: file for share in self._shares for name, file in share.items()}
        for file, error in unread.items():
            kept = {name: told for name, told in had.items() if told == str(file)}
            names |= kept
            if not kept:  # else its worker says so
                what = f"a pipeline is not started, its settings are refused: {error.what}"
                print_error(what, error.hint, code=error.code)
        self._spread(names)
        return True

    def _spread(self, names: dict[str, str]) -> None:
        for share in self._shares:
            for name in [name for name in share if name not in names]:
                del share[name]
            share |= {name: names[name] for name in share}
        there = {name for share in self._shares for name in share}
        for name, file in names.items():
            if name not in there:
                min(self._shares, key=len)[name] = file
        # More workers than pipelines: those that are idle help in turn.
        idle = [share for share in self._shares if not share]
        for share, (name, file) in zip(idle, list(names.items()) * len(idle), strict=False):
            share[name] = file
        for worker, share in enumerate(self._shares):
            fresh = self.file_of(worker).with_suffix(".fresh")
            fresh.write_text(json.dumps(share))
            fresh.replace(self.file_of(worker))


def _names(files: Sequence[Path], unread: dict[Path, SettingsError]) -> dict[str, str]:
    found = load_pipelines(files, unusable=unread.__setitem__)
    return {settings.pipeline_name: str(file) for file, settings in found.items()}
